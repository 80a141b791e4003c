"""The analyses: rank correlation against cases that are known, estimates against their definition, tiny real runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import exit_code, one_error_line
from tiny_vit import images, make_model

from suite import attach
from suite.analyse.bench import Measured
from suite.analyse.comparison import Row, compared
from suite.analyse.correlation import over, places
from suite.analyse.kendall import candidate_similarities, correlations, rank_correlation
from suite.analyse.seed_interval import estimate, estimate_share, format_estimate, format_seed_range
from suite.attachment.reducer_weights import read_reducer_weights, write_tensors
from suite.errors import RequestError
from suite.models.load import load_model
from suite.reducers import make_reducer
from suite.stats import mean_interval, wilson_interval

FLAGS = ["--device", "cpu", "--workers", 0]


def detached(model, rate="r=6", **options):
    handle = attach(model, "dtem", rate, **options)
    handle.detach()
    return handle


@torch.no_grad()
def embed_as_keys(model, handle):
    """The embedding of every block becomes the mean over heads of the rows that make its keys."""
    heads, width = model.blocks[0].attn.num_heads, model.embed_dim
    for block, layer in zip(model.blocks, handle.reducer.embeddings, strict=True):
        for own, theirs in ((layer.weight, block.attn.qkv.weight), (layer.bias, block.attn.qkv.bias)):
            own.copy_(theirs[width : 2 * width].unflatten(0, (heads, -1)).mean(0))


def test_equal_rankings_correlate_by_one_and_reversed_ones_by_minus_one():
    values = np.random.default_rng(0).normal(size=500)
    assert rank_correlation(values, 3 * values + 1) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert np.isnan(rank_correlation(values, np.ones(500)))
    assert np.isnan(rank_correlation(values[:1], values[:1]))


@pytest.mark.parametrize(("protected", "a", "b"), [(0, [0, 2, 4, 6], [1, 3, 5]), (1, [2, 4, 6], [1, 3, 5]),
                                                   (2, [2, 4, 6], [3, 5]), (3, [4, 6], [3, 5])])  # fmt: skip
def test_candidates_are_the_pairs_of_the_bipartite_split(protected, a, b):
    metric = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = [[torch.cosine_similarity(of[i], of[j], dim=0) for i in a for j in b] for of in metric.double()]
    torch.testing.assert_close(candidate_similarities(metric.double(), protected), torch.tensor(expected).double())


@pytest.mark.parametrize(
    "options", [{}, {"qkv_bias": True, "reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}]
)
def test_an_embedding_that_is_the_mean_key_ranks_as_keys_do_in_every_block(options):
    model = make_model(**options).double()
    handle = detached(model)
    untrained = correlations(handle, images().double())
    assert untrained.shape == (3, 4)
    assert (np.abs(untrained) < 0.95).all()
    embed_as_keys(model, handle)
    np.testing.assert_allclose(correlations(handle, images().double()), 1, atol=1e-6)
    with torch.no_grad():
        for layer in handle.reducer.embeddings:
            layer.weight.mul_(-2)  # a cosine knows neither the length nor the common sign
            layer.bias.mul_(-2)
    np.testing.assert_allclose(correlations(handle, images().double()), 1, atol=1e-6)


def test_blocks_that_merge_nothing_have_no_correlation():
    model = make_model()
    taus = correlations(detached(model, "r=[6, 0, 6]"), images())
    assert np.isnan(taus[:, [1, 3]]).all()
    assert not np.isnan(taus[:, [0, 2]]).any()
    assert type(model).__name__ == "VisionTransformer"


def test_a_block_ranks_the_tokens_that_the_blocks_before_left():
    """At a stronger rate, the first block is the same and the later ones are not."""
    model = make_model()
    weak, strong = (correlations(detached(model, rate), images()) for rate in ("r=2", "r=12"))
    np.testing.assert_array_equal(weak[:, 0], strong[:, 0])
    assert (weak[:, 1:] != strong[:, 1:]).all()


def test_groups_are_thirds_of_the_depth_and_average_their_blocks():
    assert {name: blocks for name, blocks in places(12).items() if name.startswith("blocks")} == {
        "blocks 1–4": [0, 1, 2, 3], "blocks 5–8": [4, 5, 6, 7], "blocks 9–12": [8, 9, 10, 11],
    }  # fmt: skip
    assert list(places(2)) == ["block 1", "block 2", "blocks 1–1", "blocks 2–2", "all blocks"]
    taus = np.random.default_rng(0).uniform(size=(2, 5, 12))
    taus[:, :, 3] = np.nan
    found = estimate(over([0, 1, 2, 3], list(taus)))
    assert found.value == pytest.approx(taus[:, :, :3].mean())
    assert (found.least, found.largest) == pytest.approx(sorted(taus[:, :, :3].mean(axis=(1, 2))))
    assert estimate(over([3], list(taus))) is None
    assert format_estimate(estimate(over([3], list(taus))), 3) == "n/a"


def test_an_interval_is_that_of_the_mean_over_seeds_and_images_without_a_value_are_left_out():
    values = np.random.default_rng(1).normal(size=(3, 40))
    values[1, 7] = np.nan
    found, kept = estimate(values), np.delete(values, 7, axis=1)
    assert (found.value, found.images) == (pytest.approx(kept.mean()), 39)
    assert (found.low, found.high) == pytest.approx(mean_interval(kept.mean(axis=0)))
    one = estimate(values[:1])
    assert (one.least, one.largest, format_seed_range(one, 2)) == (None, None, "n/a")


def test_the_share_of_one_seed_has_wilsons_interval_which_is_no_point_at_one():
    found = estimate_share(np.ones((1, 20)))
    assert (found.low, found.high) == pytest.approx(wilson_interval(20, 20))
    assert found.low < found.value


def shuffled(answers):
    """The same answers, by sample, in another order."""
    return pd.Series(answers).sample(frac=1, random_state=int(answers.sum()))


def test_differences_pair_samples_and_seeds_and_what_is_lacking_is_no_zero():
    answers = np.random.default_rng(2).integers(0, 2, size=(2, 3, 30)).astype(float)
    first, second = (
        Row(name, [{"-50%": Measured("r=6", -0.5, 0.2, shuffled(seed))} for seed in seeds])
        for name, seeds in zip(("first", "second"), answers)
    )
    unreduced = Row("unreduced", [{"": Measured("", 0.0, 0.4, pd.Series(np.ones(30)))}])
    found = compared(unreduced, [first, second], first, ["-50%", "-60%"])
    assert [entry.row.label for entry in found.entries] == ["unreduced", "first", "second", "first", "second"]
    entry, by_seed = found.entries[2], (answers[1] - answers[0]).mean(axis=1)
    assert entry.top1.value == pytest.approx(answers[1].mean())
    assert entry.difference.value == pytest.approx(by_seed.mean())
    assert (entry.difference.least, entry.difference.largest) == pytest.approx((by_seed.min(), by_seed.max()))
    paired = mean_interval((answers[1] - answers[0]).mean(axis=0))
    assert (entry.difference.low, entry.difference.high) == pytest.approx(paired)
    assert found.lines[4] == ["-60%", "second", *["n/a"] * 6]
    assert found.records[4]["top1"] is None
    assert set(found.curves) == {"first", "second"}


def test_soft_merging_by_keys_evaluates_as_tome_does_to_the_last_bit_and_learns_nothing_of_its_own():
    model = make_model()
    with torch.no_grad():
        with attach(model, "tome", "r=6"):
            expected = model(images())
        with attach(model, "dtem", "r=6", metric="keys") as handle:
            assert torch.equal(model(images()), expected)
    assert handle.reducer.trained
    assert not handle.reducer.soft
    assert handle.reducer.state_dict() == {}


def test_soft_merging_by_keys_teaches_the_backbone_through_its_sizes():
    """Sizes depend on what merging goes by alone, and the embedding's input is detached."""
    gradients = {}
    for metric in ("keys", "embedding"):
        model = make_model()
        with attach(model, "dtem", "r=6", metric=metric) as handle:
            handle.reducer.train()
            assert handle.reducer.soft
            size = handle.encode(handle.model, images()).size
            assert handle.token_counts == [65] * 4
        size.square().sum().backward()
        gradients[metric] = model.blocks[0].attn.qkv.weight.grad
    assert gradients["embedding"] is None
    assert gradients["keys"].isfinite().all()
    assert gradients["keys"][32:64].any()


@pytest.mark.parametrize("options", [{"metric": "values"}, {"metric": 3}, {"metric": "keys", "feat_dim": 8}])
def test_a_metric_that_is_none_is_refused(options):
    with pytest.raises(RequestError, match="metric"):
        make_reducer("dtem", **options)


@pytest.fixture
def embedding(tmp_path):
    """A file of a random embedding for the embedded model."""
    handle = detached(load_model("scenes_vit")[0])
    with torch.no_grad():
        for parameter in handle.reducer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    write_tensors(tmp_path / "learned.safetensors", handle.reducer.state_dict(), reducer=handle.reducer.name)
    return tmp_path / "learned.safetensors"


def test_correlation_writes_numbers_a_table_and_a_figure_and_computes_nothing_twice(embedding, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["analyse", "correlation", *FLAGS, "--weights", embedding, "--limit", 4, "--draws", 2, "--out", out]
    assert exit_code(*flags) == 0
    assert "blocks 9–12" in capsys.readouterr().out
    assert (out / "correlation.png").stat().st_size > 10_000
    written = {name: (out / f"correlation.{name}").read_bytes() for name in ("json", "csv", "md", "png")}
    records = pd.DataFrame(json.loads(written["json"])["records"]).set_index(["place", "embedding"])
    assert set(records.index.get_level_values(1)) == {"untrained", "random maps", "trained", "change"}
    assert (records.tau_images == 4).all()
    for group, blocks in places(12).items():
        of_blocks = [records.tau[f"block {block + 1}", "trained"] for block in blocks]
        assert records.tau[group, "trained"] == pytest.approx(np.mean(of_blocks))
        change = records.tau[group, "trained"] - records.tau[group, "untrained"]
        assert records.tau[group, "change"] == pytest.approx(change)
    stored = sorted((out / "tau").iterdir())
    assert len(stored) == 4
    times = [file.stat().st_mtime_ns for file in stored]
    assert exit_code(*flags) == 0
    assert [file.stat().st_mtime_ns for file in sorted((out / "tau").iterdir())] == times
    assert {name: (out / f"correlation.{name}").read_bytes() for name in written} == written


@pytest.mark.slow
def test_every_stage_of_the_ablation_is_trained_on_one_budget_and_measured_at_the_same_targets(tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["analyse", "ablation", *FLAGS, "--steps", 2, "--soft-every", 2, "--batch-size", 4, "--train-limit", 8]
    flags += ["--limit", 12, "--seeds", 7, "--flops=-50%", "--out", out]
    assert exit_code(*flags) == 0
    assert "Ablation: scenes" in capsys.readouterr().out
    assert "soft, by embedding" in (out / "ablation.md").read_text()
    records = pd.DataFrame(json.loads((out / "ablation.json").read_text())["records"]).set_index("row")
    assert list(records.index) == [
        "unreduced", "ToMe as it comes", "hard, by keys", "soft, by keys", "soft, by embedding",
    ]  # fmt: skip
    assert (records.top1_images == 12).all()
    assert records.rate["soft, by keys"] == records.rate["hard, by keys"]
    difference = records.top1 - records.top1["hard, by keys"]
    for row in ("ToMe as it comes", "soft, by keys", "soft, by embedding"):
        assert records.difference[row] == pytest.approx(difference[row])
    assert np.isnan(records.difference["hard, by keys"])
    files = sorted((out / "train").glob("*/weights.safetensors"))
    assert [file.parent.name for file in files] == ["embedding-seed-7", "keys-seed-7", "none-seed-7"]
    keys = read_reducer_weights(make_reducer("dtem", metric="keys"), files[1])
    assert keys.own == {}
    assert keys.backbone
    cells = sorted((out / "run" / "cells").glob("*/samples.parquet"))
    times = [file.stat().st_mtime_ns for file in (*files, *cells)]
    before = (out / "ablation.json").read_bytes()
    assert exit_code(*flags) == 0
    assert [file.stat().st_mtime_ns for file in (*files, *cells)] == times
    assert (out / "ablation.json").read_bytes() == before


@pytest.mark.slow
def test_more_samples_and_updates_stand_in_a_grid_of_differences_to_tome(tmp_path):
    out = tmp_path / "out"
    flags = ["analyse", "data", *FLAGS, "--samples", "4,8", "--updates", "1", "--batch-size", 4, "--limit", 10]
    assert exit_code(*flags, "--flops=-50%,-60%", "--out", out) == 0
    records = pd.DataFrame(json.loads((out / "data.json").read_text())["records"])
    trained = records[records.samples.notna()]
    assert [(row.target, row.samples, row.updates, row.passes) for row in trained.itertuples()] == [
        (target, samples, 1, 4 / samples) for target in ("-50%", "-60%") for samples in (4, 8)
    ]
    for target in ("-50%", "-60%"):
        at = records[records.target == target].set_index("row")
        assert at.difference["DTEM, untrained"] == pytest.approx(at.top1["DTEM, untrained"] - at.top1["ToMe"])
    assert (out / "data.png").is_file()
    assert "| -60% | DTEM | 8 | 1 |" in (out / "data.md").read_text()


@pytest.mark.parametrize(("flags", "reason"), [
    (["correlation", "--weights", "nowhere.safetensors"], "do not exist"),
    (["correlation", "--weights", "none", "--rate", "r=banana"], "cannot be read"),
    (["correlation", "--weights", "none", "--task", "scenez"], "did you mean 'scenes'"),
    (["ablation", "--task", "scenes-seg"], "no classification"),
    (["ablation", "--task", "imagenet", "--data", "."], "--train-data"),
    (["ablation", "--seeds", "a"], "--seeds 'a' cannot be read"),
    (["ablation", "--seed", "3"], "use --seeds"),
    (["ablation", "--stepz", "3"], "did you mean 'steps'"),
    (["ablation", "--reducer-options", "3"], "leave it out"),
    (["data", "--samples", "9999999"], "ask for fewer"),
    (["data", "--updates", "0"], "whole numbers of 1 or more"),
    (["data", "--steps", "5"], "use --updates"),
    (["data", "--flops", ","], "names nothing"),
])  # fmt: skip
def test_a_bad_request_is_one_line(flags, reason, tmp_path, capsys):
    assert reason in one_error_line(capsys, "analyse", *flags, "--out", tmp_path / "out")
    assert not Path(tmp_path / "out" / "train").exists()
