"""Methods along a curve give what their authors' implementation gives: groups, sizes, logits, cost; and what a literal
second one gives on models that no outputs exist for."""

from dataclasses import replace

import numpy as np
import pytest
import recipe
import torch
from recent import INPUTS, folder_of, official, on_cases, owners_by_block, stored
from reference import Reference
from reference_curve import mat
from test_reference import KINDS, MERGES, compare, tiny

from suite import attach
from suite.measure.flops import count_macs_fast
from suite.rates.rate import parse_rate
from suite.rates.schedule import r_per_block
from suite.reducers.mat import neighbour_matching
from suite.tokens.curve import curve_order
from suite.tokens.state import Tokens

SINGLE = folder_of("unit_curve")
ABSENT = pytest.mark.skipif(SINGLE is None, reason="the larger set of reference outputs is not here")


def asked(name, params):
    """Method, rate and options of a case."""
    if name.startswith("mat"):
        return "mat", f"r={params['r']}", {"proportional_attention": params["prop_attn"]}
    if name.startswith("nap"):
        blocks = ",".join(map(str, params["drop_loc"]))
        options = {"fuse": params["fuse_token"], "window": params["R"], "alpha": params["alpha"]}
        return "nap", f"keep={params['keep_rate']}@{blocks}", options
    plan = {name.removesuffix("_num"): params[name] for name in ("prune_kept_num", "merge_kept_num")}
    return "hynap", None, {**plan, "window": params["R"], "alpha": params["alpha"]}


CASES = (
    *("mat_mini_r9", "mat_t_r8", "mat_t_r16", "mat_t_r13_nopa"),
    *("nap_mini_07", "nap_t_k07", "nap_t_k05_nofuse", "nap_t_k07_R3"),
    *("hynap_mini_own", "hynap_t_own"),
)


@on_cases(*CASES)
@pytest.mark.parametrize("image", INPUTS)
@pytest.mark.parametrize(("dtype", "array", "bound"), [("float32", "logits", 1e-5), ("float64", "logits64", 1e-12)])
@torch.no_grad()
def test_logits_and_groups_equal_the_authors(name, image, dtype, array, bound):
    outputs, entry = stored(name)
    model, images = official(entry["model"], getattr(torch, dtype)), torch.from_numpy(INPUTS[image](entry["model"]))
    method, rate, options = asked(name, entry["params"])
    with attach(model, method, rate, **options) as handle:
        logits = model(images.to(getattr(torch, dtype)))
    tokens = handle.tokens
    assert handle.token_counts == entry["token_counts"]["block_out"]
    assert np.abs(logits.numpy() - outputs[f"{image}_{array}"]).max() <= bound
    assert (tokens.owner.numpy() == outputs[f"{image}_map"]).all()
    wanted = outputs[f"{image}_maps_by_layer"]
    if method == "hynap":  # every block is a step
        maps = np.stack([replace(tokens, steps=tokens.steps[: 1 + block]).owner for block in range(len(wanted))])
        assert (maps == wanted).all()
    else:
        begun = np.array(handle.token_counts) < tokens.origin  # theirs stand along the curve from the start
        assert (owners_by_block(tokens, handle.token_counts)[begun] == wanted[begun]).all()
    if f"{image}_size" in outputs:
        np.testing.assert_allclose(tokens.sizes.numpy(), outputs[f"{image}_size"], rtol=1e-6)


@on_cases("mat_mini_r9", "mat_t_r16", "nap_mini_07", "nap_t_k07_R3", "hynap_mini_own", "hynap_t_own")
def test_the_cost_is_what_was_counted_on_the_authors_code(name):
    _, entry = stored(name)
    params, model = entry["params"], official(entry["model"])
    method, rate, options = asked(name, params)
    with attach(model, method, rate, **options) as handle:
        macs = count_macs_fast(model, torch.from_numpy(recipe.smooth(entry["model"])[:1]))
    if method != "mat":  # class attention is a row more than the map has; neighbours are added up, not convolved
        by_score = [t for t in handle.trace if method == "hynap" or t.leaving < t.entering]
        macs -= sum(model.embed_dim * t.attended - (2 * params["R"] + 1) * (t.attended - 1) for t in by_score)
    assert macs / 1e9 == pytest.approx(entry["gflops"], abs=1e-6)


@ABSENT
def test_the_order_of_patches_is_that_of_the_authors_on_every_grid():
    outputs = np.load(SINGLE / "unit_curve.npz")
    for name in outputs.files:
        height, width = map(int, name.removeprefix("order_").split("x"))
        assert (np.stack(divmod(np.array(curve_order(height, width)), width), axis=1) == outputs[name]).all()


@ABSENT
@pytest.mark.parametrize("r", [1, 5, 10, 19, 20])
def test_one_merge_of_neighbours_equals_the_authors(r):
    outputs = np.load(SINGLE / "unit_mat_merge.npz")
    metric, x, size = (torch.from_numpy(outputs[array]) for array in ("metric", "x", "size"))
    after = Tokens(x, 1, x.shape[1], size=size).merge(neighbour_matching(metric, r, 1))
    assert np.abs(after.x.numpy() - outputs[f"out_r{r}"]).max() <= 1e-14
    assert np.abs(after.size.numpy() - outputs[f"size_r{r}"]).max() <= 1e-14
    assert (after.owner.numpy() == outputs[f"owner_r{r}"]).all()


@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_merging_neighbours_equals_the_literal_form_at_every_kind_of_rate(kind, proportional):
    model, about, image = tiny(kind)
    reference = Reference(model.state_dict(), proportional=proportional, **about)
    for rate in MERGES:
        amounts = r_per_block(parse_rate(rate), 5) if "@" not in rate else [0, 5, 0, 0, 5]
        reduce = mat(amounts, about["prefix"], model.patch_embed.grid_size)
        compare(model, image, "mat", rate, reference, reduce, 1e-11, proportional_attention=proportional)
