"""The paired comparisons of a page, against `suite.stats` and mmsegmentation for one pair at a time."""

import pytest

from reports.frame import load_frame, load_samples
from reports.groups import groups
from reports.page.outcomes import load_outcomes
from reports.page.pairs import compare_pairs
from suite.stats import mcnemar, paired_scores, paired_share_interval, swap_test
from suite.stats.areas import dense_areas, mean_iou
from tasks.segmentation_scoring import metrics
from tests.unit.page_runs import read_page, write_captioned, write_classified, write_masked
from tests.unit.run_folder import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return {
        "labels": write_classified(folder / "labels"),
        "captions": write_captioned(folder / "captions"),
        "masks": write_masked(folder / "masks"),
    }


def pair(out):
    """(outcomes, pairs, columns of per-sample values of the first and the last cell, place of that pair)."""
    outcomes = load_outcomes([*groups(load_frame(out))])
    return outcomes, compare_pairs(outcomes), len(outcomes.keys) - 2


def test_shares_are_compared_as_suite_stats_compares_one_pair(runs):
    outcomes, pairs, last = pair(runs["labels"])
    first, other = (load_samples(runs["labels"], outcomes.keys[i]) for i in (0, -1))
    right = [table.set_index("id").loc[outcomes.ids, "correct"] for table in (first, other)]
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert (pairs.only_a[last], pairs.only_b[last]) == (only_a, only_b)
    assert pairs.p[last] == mcnemar(only_a, only_b)
    assert (pairs.low[last], pairs.high[last]) == tuple(paired_share_interval(only_b, only_a, 400))
    assert pairs.value[0] == pytest.approx(right[0].mean())


def test_captions_are_compared_as_suite_stats_compares_one_pair(runs):
    outcomes, pairs, last = pair(runs["captions"])
    first, other = outcomes.score[0], outcomes.score[-1]
    found = paired_scores(other[:, None], first[:, None], lambda sums: sums[:, 0] / 400)
    assert (pairs.low[last], pairs.high[last]) == pytest.approx(found.interval())
    alone = swap_test(other[:, None], first[:, None], lambda sums: sums[:, 0] / 400)
    assert pairs.p[last] == pytest.approx(alone, abs=0.04)
    assert pairs.value == pytest.approx(load_frame(runs["captions"]).loc[outcomes.keys, "cider"].to_numpy())


def test_masks_are_compared_by_sums_of_areas_over_all_samples(runs):
    outcomes, pairs, last = pair(runs["masks"])
    areas = [dense_areas(load_samples(runs["masks"], outcomes.keys[i]), 5) for i in (0, -1)]
    assert [pairs.value[0], pairs.value[-1]] == pytest.approx([metrics(one.sum(axis=0))["miou"] for one in areas])
    flat = [one.reshape(30, -1).astype(float) for one in areas]

    def miou(sums):
        return mean_iou(sums.reshape(-1, 3, 5))

    assert (pairs.low[last], pairs.high[last]) == pytest.approx(paired_scores(*flat[::-1], miou).interval())
    alone = swap_test(*flat, miou)
    assert pairs.p[last] == pytest.approx(alone, abs=0.05)


def test_random_weights_are_compared_by_agreement_with_the_unreduced_model(tmp_path):
    out = write_run(tmp_path / "run", {"tome": 4.0}, about={"weights_kind": "random"})
    outcomes = load_outcomes([*groups(load_frame(out))])
    assert outcomes.kind == "agreement"
    assert outcomes.score[0].all()
    frame = load_frame(out)
    assert compare_pairs(outcomes).value == pytest.approx(frame.agreement.to_numpy())
    assert "Warning: random weights" in read_page(out)[1].text
