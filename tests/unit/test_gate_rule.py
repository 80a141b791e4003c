"""The gate's rule, proved by simulation: how often it is wrong, and what it finds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from suite.contract.metric import Metric
from suite.gate.outcomes import Paired
from suite.gate.paired_difference import PairedDifference, measure_difference
from suite.gate.pairing import Match
from suite.gate.render import _needed
from suite.gate.verdict import PASSED, REGRESSED, Row, judge, overall, planned
from suite.stats import FEWEST, largest_share, smallest_difference
from suite.stats.aggregates import Mean, MeanIoU, Share
from suite.stats.areas import mean_iou as iou
from tests.unit.test_paired_stats import chance, counts

TOP1, CIDER = Metric("top1", "Top-1 (%)", Share("correct")), Metric("cider", "CIDEr", Mean("cider"), largest=10.0)
MIOU = Metric("miou", "mIoU (%)", MeanIoU())


def answers(wins: int, losses: int, n: int) -> Paired:
    new, base = np.ones((n, 1)), np.ones((n, 1))
    base[:wins] = new[wins : wins + losses] = 0
    return Paired(TOP1, new, base, lambda sums: sums[:, 0] / n)


@cache
def seen(wins: int, losses: int, n: int) -> PairedDifference:
    return measure_difference(answers(wins, losses, n), 0.05)


def verdicts(n: int, wins: float, losses: float, margin: float, rows: int = 4, trials: int = 400) -> list[str]:
    """What the gate says of `trials` comparisons of so many rows, each with its own samples."""
    drawn = zip(*(side.reshape(trials, rows).tolist() for side in counts(n, wins, losses, trials * rows)))
    return [
        overall(judge([Row(Match(None, None), seen(won, lost, n), margin=margin) for won, lost in zip(*trial)], 0.05))
        for trial in drawn
    ]


@pytest.mark.parametrize(("n", "share"), [(50, 0.1), (1000, 0.06)])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_method_against_its_equal_regresses_no_more_often_than_alpha(n, share, rows):
    said = verdicts(n, share / 2, share / 2, margin=0.005, rows=rows)
    assert said.count(REGRESSED) / len(said) <= 0.05 + chance(0.05, len(said))


@pytest.mark.parametrize(("n", "share"), [(1000, 0.04), (300, 0.1)])
def test_a_method_that_is_worse_by_the_margin_passes_no_more_often_than_alpha(n, share):
    margin = 0.02
    said = verdicts(n, (share - margin) / 2, (share + margin) / 2, margin=margin, rows=1)
    assert said.count(PASSED) / len(said) <= 0.05 + chance(0.05, len(said)) + 0.005
    said = verdicts(n, (share - margin) / 2, (share + margin) / 2, margin=margin, rows=4, trials=100)
    assert said.count(PASSED) / len(said) <= 0.01


def test_a_loss_that_can_be_seen_regresses_four_times_of_five_and_more():
    n, share, rows = 1000, 0.06, 4
    effect = smallest_difference(share, n, 0.05 / rows, two_sided=False)
    said = verdicts(n, (share - effect) / 2, (share + effect) / 2, margin=0.005, rows=rows)
    assert said.count(REGRESSED) / len(said) >= 0.8


def test_an_identical_method_passes_as_soon_as_the_samples_could_have_shown_a_difference():
    assert [overall(judge([Row(Match(None, None), seen(0, 0, n), margin=0.005)], 0.05)) for n in (538, 539)] == [
        "cannot tell", PASSED,
    ]  # fmt: skip


def test_errors_that_are_all_alike_pass_only_if_there_are_enough_of_them():
    """A sample that fails altogether has the largest error: what an error is below that is at stake."""
    error = Metric("error", "Error", Mean("error"), lower_is_better=True, largest=2.0)
    for n, passes in ((100, False), (300, True)):
        errors = np.full((n, 1), 0.5)
        found = measure_difference(Paired(error, errors, errors, lambda sums, n=n: sums[:, 0] / n), 0.05)
        assert (found.difference, found.p, found.at_stake) == (0, 1, 1.5)
        assert found.bound == pytest.approx(-1.5 * float(largest_share(0, n, 0.05)))
        assert found.low == -found.high < found.bound
        assert (found.bound > -0.015) == passes
        assert passes or found.needed_to_bound(0.015, 0.05) == 299


def test_an_error_without_a_largest_one_never_passes_on_outcomes_that_are_all_alike():
    error = Metric("error", "Error", Mean("error"), lower_is_better=True, largest=None)
    found = measure_difference(Paired(error, np.ones((900, 1)), np.ones((900, 1)), lambda sums: sums[:, 0] / 900), 0.05)
    assert found.bound == -np.inf
    assert found.needed_to_bound(0.5, 0.05) is None
    assert found.detectable(0.05) is None


def test_captions_that_are_all_alike_pass_only_if_there_are_enough_of_them():
    for n, passes in ((100, False), (300, True)):
        cider = np.random.default_rng(8).gamma(2.0, size=(n, 1))
        found = measure_difference(Paired(CIDER, cider, cider, lambda sums, n=n: sums[:, 0] / n), 0.05)
        assert (found.difference, found.p) == (0, 1)
        assert found.bound == pytest.approx(-found.base * float(largest_share(0, n, 0.05)))
        assert found.low == -found.high < found.bound
        assert (found.bound > -0.01 * found.base) == passes
        assert passes or found.needed_to_bound(0.01 * found.base, 0.05) == 299


@pytest.mark.parametrize(("wins", "losses", "n"), [(6, 8, 200), (3, 9, 200), (0, 0, 100)])
def test_the_power_that_stands_beside_the_samples_needed_is_how_often_they_tell(wins, losses, n):
    margin = 0.02
    (row,) = planned(judge([Row(Match(None, None), seen(wins, losses, n), margin=margin)], 0.05), 0.05)
    assert (row.verdict, row.power >= 0.8) == ("cannot tell", True)
    assert f"needed: about {row.needed}, which tell with probability {100 * row.power:.1f} %" in _needed(row)
    wanted = REGRESSED if losses - wins > margin * n else PASSED
    said = verdicts(row.needed, wins / n, losses / n, margin=margin, rows=1, trials=150)
    assert said.count(wanted) / len(said) == pytest.approx(row.power, abs=chance(row.power, len(said)))


def captions(new: list[float], base: list[float]) -> PairedDifference:
    sides = (np.array(side, dtype=float)[:, None] for side in (new, base))
    return measure_difference(Paired(CIDER, *sides, lambda sums: sums[:, 0] / len(base)), 0.05)


@pytest.mark.parametrize(
    ("found", "margin", "needed"),
    [
        (captions([0.5] * 3, [1.0] * 3), 0.01, FEWEST),
        (captions([1.0] * 50, [1.0] * 50), 1e-12, None),  # no number of samples shows as little
    ],
)
def test_what_cannot_be_told_of_few_captions_needs_more_of_them_or_none_will_do(found, margin, needed):
    (row,) = planned(judge([Row(Match(None, None), found, margin=margin)], 0.05), 0.05)
    assert (row.verdict, row.needed) == ("cannot tell", needed)


@pytest.mark.parametrize(("differing", "verdict"), [(FEWEST - 1, "cannot tell"), (FEWEST, REGRESSED)])
def test_no_verdict_rests_on_fewer_differing_captions_than_tell_how_much_captions_differ(differing, verdict):
    found = captions([0.0] * differing + [1.0] * (200 - differing), [1.0] * 200)
    (row,) = planned(judge([Row(Match(None, None), found, margin=0.01)], 0.05), 0.05)
    assert row.verdict == verdict
    if verdict != REGRESSED:
        assert row.reason == f"only {differing} of 200 samples differ; fewer than {FEWEST} do not tell how much"
        assert row.needed > 200


def test_few_differing_captions_pass_if_the_worst_that_they_leave_possible_is_within_the_margin():
    same = [1.0] * 2000
    for margin, verdict in ((0.004, "cannot tell"), (0.006, PASSED)):
        found = captions([0.99] * 4 + same[4:], same)
        assert judge([Row(Match(None, None), found, margin=margin)], 0.05)[0].verdict == verdict
        assert found.bound == pytest.approx(-float(largest_share(4, 2000, 0.05)))


def segmented(images: int, classes: int, each: int) -> PairedDifference:
    """Class 0 in all images, each of the others in `each` of them; NEW loses a pixel of a hundred everywhere."""
    labelled = np.zeros((images, classes))
    labelled[:, 0] = 100
    for place in range(1, classes):
        labelled[(place + np.arange(each)) % images, place] = 100
    base = np.stack([labelled] * 3, axis=1)
    new = base.copy()
    new[:, 0] *= 0.99

    def mean_iou(sums: np.ndarray) -> np.ndarray:
        return iou(sums.reshape(-1, 3, classes))

    per_class = np.count_nonzero(labelled, axis=0)
    return measure_difference(
        Paired(MIOU, new.reshape(images, -1), base.reshape(images, -1), mean_iou, per_class), 0.05
    )


@pytest.mark.parametrize(("each", "verdict"), [(4, "cannot tell"), (5, PASSED)])
def test_no_verdict_rests_on_classes_of_which_most_occur_in_too_few_images(each, verdict):
    found = segmented(40, 8, each)
    (row,) = planned(judge([Row(Match(None, None), found, margin=0.5)], 0.05), 0.05)
    assert row.verdict == verdict
    if verdict != PASSED:
        assert row.reason == "7 of 8 classes occur in fewer than 5 images"
        assert row.needed == 50
        assert found.low <= found.difference <= found.high


def test_where_base_scores_nothing_a_margin_has_to_be_named():
    (row,) = judge([Row(Match(None, None), captions([0.0] * 5, [0.0] * 5), margin=0.0)], 0.05)
    assert row.verdict == "cannot tell"
    assert "--margin" in row.reason


def test_a_loss_that_all_samples_agree_on_is_significant_in_a_large_family_too():
    draw, family = np.random.default_rng(9), 150
    base = draw.gamma(2.0, size=(60, 1))
    found = measure_difference(Paired(CIDER, 0.9 * base, base, lambda sums: sums[:, 0] / 60), 0.05, family)
    assert found.p * family <= 0.05


def test_a_significant_loss_within_the_margin_is_no_regression():
    said = judge([Row(Match(None, None), seen(100, 200, 50_000), margin=0.005)], 0.05)[0]
    assert said.adjusted < 1e-6
    assert said.verdict == PASSED
