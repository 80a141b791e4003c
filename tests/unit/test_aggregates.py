"""What metrics are made of: one declaration that is stored, scored, compared and resampled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from suite.contract.metric import Metric, TaskReport
from suite.gate.outcomes import Paired, pair_up
from suite.gate.paired_difference import measure_difference
from suite.stats.aggregates import KINDS, CalibrationError, Share, read_aggregate
from tasks import list_tasks, task_class

ECE = CalibrationError("correct", "confidence")


def answers(confidence: list[float], correct: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"confidence": np.float32(confidence), "correct": correct})


def error_of(table: pd.DataFrame, **changes: int) -> float:
    made_of = CalibrationError("correct", "confidence", **changes)
    [addends] = made_of.addends(table)
    return made_of.score(addends)


def test_calibration_error_by_hand():
    """Two bins: 3 samples at 0.25 of which one is right, |1 - 0.75| / 5; 2 at 0.75, both right, |2 - 1.5| / 5."""
    table = answers([0.25, 0.25, 0.25, 0.75, 0.75], [True, False, False, True, True])
    assert error_of(table, bins=2) == pytest.approx((0.25 + 0.5) / 5)
    assert error_of(answers([1.0, 1.0], [True, True])) == 0
    assert error_of(answers([1.0, 1.0], [False, False])) == 1


def test_a_bin_holds_its_upper_end_and_the_first_one_holds_zero():
    table = answers([0.0, 0.5, 0.75], [True, False, True])
    [addends] = CalibrationError("correct", "confidence", bins=2).addends(table)
    assert addends.tolist() == [[1, 0], [-0.5, 0], [0, 0.25]]


def test_calibration_error_is_that_of_bins_averaged_one_by_one():
    draw = np.random.default_rng(3)
    confidence, correct = draw.random(500), draw.random(500) < 0.7
    expected = 0.0
    for bin in range(15):
        inside = (confidence > bin / 15) & (confidence <= (bin + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert error_of(pd.DataFrame({"confidence": confidence, "correct": correct})) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", list_tasks())
def test_what_a_metric_is_made_of_survives_the_store(name):
    shown = task_class(name).shown
    assert TaskReport.from_dict(shown.as_dict()) == shown
    assert all(metric.aggregate is not None for metric in shown.metrics)


def test_what_an_absent_plug_in_declares_is_shown_but_compared_nowhere():
    stored = TaskReport((Metric("top1", "Top-1 (%)", Share("correct")),)).as_dict()
    stored["metrics"][0]["aggregate"] = {"kind": "of a plug-in", "column": "correct"}
    shown = TaskReport.from_dict(stored)
    assert shown.metrics[0].aggregate is None
    rows = answers([0.5], [True])
    assert pair_up(rows, rows, shown) == []


def test_another_aggregate_is_a_subclass_with_a_kind_of_its_own():
    class Errors(Share):
        kind = "errors, of a test"

        def statistic(self, n):
            return lambda sums: 1 - sums[:, 0] / n

    try:
        assert read_aggregate(Errors("correct").as_dict()) == Errors("correct")
        [addends] = Errors("correct").addends(answers([0.5, 0.5], [True, False]))
        assert Errors("correct").score(addends) == 0.5
    finally:
        del KINDS[Errors.kind]


@pytest.mark.parametrize("worse", [True, False])
def test_where_less_is_better_more_is_a_loss(worse):
    draw, n = np.random.default_rng(0), 2000
    correct = draw.random(n) < 0.7
    calibrated = pd.DataFrame({"confidence": draw.uniform(0.6, 0.8, n), "correct": correct})
    overconfident = pd.DataFrame({"confidence": draw.uniform(0.9, 1.0, n), "correct": correct})
    metric = Metric("ece", "ECE (%)", ECE, lower_is_better=True)
    sides = (overconfident, calibrated) if worse else (calibrated, overconfident)
    found = measure_difference(Paired(metric, *ECE.addends(*sides), ECE.statistic(n)), 0.05)
    assert np.sign(found.difference) == (1 if worse else -1) == -np.sign(found.gain)
    assert found.low < found.difference < found.high
    assert (found.worse < 0.01) == worse
    assert (found.bound < 0) == worse
