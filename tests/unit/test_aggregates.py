"""What metrics are made of: one declaration that is stored, scored, compared and resampled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reports.frame import load_frame
from reports.write import write_report
from suite.contract.metric import Metric, TaskReport
from suite.gate.compare import compare
from suite.gate.outcomes import Paired, pair_up
from suite.gate.paired_difference import measure_difference
from suite.stats.aggregates import KINDS, CalibrationError, Share, read_aggregate
from tasks import list_tasks, task_class
from tests.unit.gate_runs import identified
from tests.unit.run_folder import write_run

NO_SUM_OF_SAMPLES = {"frechet", "kernel", "psnr"}  # distances of two sets, and a median: compared nowhere

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
    assert {metric.name for metric in shown.metrics if metric.aggregate is None} <= NO_SUM_OF_SAMPLES


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


def test_a_declared_metric_is_in_the_store_the_frame_and_comparisons_and_a_hidden_one_in_no_table(tmp_path):
    """All confidences are 0.5, in one bin: the error is the share of right answers less a half."""
    (tmp_path / "run").mkdir()
    out = identified(write_run(tmp_path / "run", {"tome": 4.0, "evit": 7.0}))
    frame = load_frame(out)
    assert frame.ece.to_numpy() == pytest.approx(frame.top1.to_numpy() - 0.5)
    assert ((frame.ece_low < frame.ece) & (frame.ece < frame.ece_high)).all()
    report = compare(f"{out}:tome", f"{out}:evit")
    found = {row.match.new.rate: row.contrast for row in report.rows if row.contrast.metric.name == "ece"}
    rights = {row.match.new.rate: row.contrast for row in report.rows if row.contrast.metric.name == "top1"}
    assert found.keys() == rights.keys() == {*frame.rate} - {""}
    for rate, one in found.items():
        assert one.difference == pytest.approx(rights[rate].difference)
        assert one.gain == -one.difference
        assert one.low < one.difference < one.high
    write_report(out)
    assert "ece" in pd.read_csv(out / "report" / "table.csv").columns
    assert "ECE" not in (out / "report" / "table.md").read_text()
