"""`analyse patterns`: how alike methods keep and group patches, and whether those alike score alike."""

from __future__ import annotations

import json

import numpy as np
import pytest

from suite.analyse.patterns import Pattern, compare_pair, compare_patterns
from suite.analyse.sheet import write_sheet
from suite.errors import RequestError
from suite.stats.partitions import alone, mantel, mutual_information, overlap
from suite.sweep.progress import Progress

QUIET = Progress(quiet=True)
SPEC = {"task": "scenes", "limit": 8, "device": "cpu", "workers": 0, "batch_size": 8, "task_options": {}}
ROUNDING = 1e-10


def test_mutual_information_is_that_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.metrics.cluster")
    draw = np.random.default_rng(0)
    for kinds, others in ((4, 4), (3, 30), (60, 60), (1, 5)):
        one, two = draw.integers(0, kinds, 80), draw.integers(-1, others, 80)
        normalised, adjusted = mutual_information(one, two)
        assert normalised == pytest.approx(cluster.normalized_mutual_info_score(one, two), abs=ROUNDING)
        assert adjusted == pytest.approx(cluster.adjusted_mutual_info_score(one, two), abs=ROUNDING)


def test_groups_alike_are_1_whatever_they_are_called_and_random_ones_0_only_if_chance_is_taken_out():
    draw = np.random.default_rng(1)
    one = draw.integers(0, 90, 196)
    assert mutual_information(one, 7 * one + 3) == pytest.approx((1, 1), abs=ROUNDING)
    found = np.mean([mutual_information(one, draw.permutation(one)) for _ in range(50)], axis=0)
    assert found[0] > 0.6  # fine partitions share much by chance
    assert found[1] == pytest.approx(0, abs=0.02)


def test_of_what_says_nothing_on_both_sides_there_is_no_similarity():
    apart, together = np.arange(9), np.zeros(9, dtype=int)
    for side in (apart, together):
        assert np.isnan(mutual_information(side, side)).all()


def test_patches_stand_alone_where_nothing_joined_them():
    owners = np.array([[0, 1, 1, 2, -1], [-1, -1, 0, 0, 0]])
    assert alone(owners).tolist() == [[True, False, False, True, False], [False] * 5]
    shared = overlap(alone(owners), np.array([[True, True, False, False, False], [False] * 5]))
    assert shared[0] == pytest.approx(1 / 3)
    assert np.isnan(shared[1])


def test_scores_that_follow_similarity_are_found_and_others_are_not():
    draw = np.random.default_rng(2)
    values = draw.normal(size=12)
    near = -np.abs(values[:, None] - values[None])
    assert mantel(near, values) == pytest.approx((-1, 1 / 2001))
    _, p = mantel(near, draw.normal(size=12))
    assert p > 0.05
    assert np.isnan(mantel(near[:3, :3], values[:3])).all()


def test_blocks_before_anything_is_reduced_do_not_count():
    whole, pairs = np.arange(4)[None], np.array([[0, 0, 1, 1]])
    first, second = compare_pair(Pattern("a", "m", 0.5, [whole, pairs]), Pattern("b", "m", 0.5, [whole, pairs]))
    assert all(np.isnan(value) for value in first.values())
    assert (second["normalised"], second["adjusted"]) == pytest.approx((1, 1))
    assert np.isnan(second["overlap"])  # nothing stands alone on either side


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    out = tmp_path_factory.mktemp("patterns")
    values = {**SPEC, "reducers": "tome,topk,evit,sinkhorn,resize", "flops": "-35%"}
    return compare_patterns(values, ("scenes_vit",), 4, out, QUIET), out


def test_methods_that_keep_the_same_patches_are_alike(sheet):
    found, _ = sheet
    pairs = {(one["one"], one["two"]): one for one in found.records if one["block"] == "all"}
    kept = next(one for names, one in pairs.items() if {name.split()[0] for name in names} == {"evit", "topk"})
    assert kept["overlap"] > 0.9  # both keep by class attention; EViT joins the rest to one token
    others = [one for names, one in pairs.items() if {name.split()[0] for name in names} == {"tome", "topk"}]
    assert all(one["overlap"] < kept["overlap"] for one in others)


def test_what_forms_no_groups_is_left_out_and_named(sheet):
    found, _ = sheet
    assert not any("sinkhorn" in label or "resize" in label for label in found.about["cells"])
    assert any("sinkhorn" in note and "left out" in note for note in found.notes)


def test_a_sheet_holds_every_pair_block_by_block_and_is_written(sheet, tmp_path):
    found, _ = sheet
    count = len(found.about["cells"])
    assert len(found.records) == count * (count - 1) // 2 * 13
    files = write_sheet(found, tmp_path)
    assert {file.suffix for file in files} == {".json", ".csv", ".md", ".png"}
    assert json.loads((tmp_path / "patterns.json").read_text())["images"] == 4


def test_one_method_alone_is_compared_with_nothing(tmp_path):
    with pytest.raises(RequestError, match="1 methods form groups"):
        compare_patterns({**SPEC, "reducers": "tome", "rates": "r=8"}, ("scenes_vit",), 2, tmp_path, QUIET)
