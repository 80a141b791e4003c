"""Methods that score, cluster or propagate patches give what other implementations of them give."""

import numpy as np
import pytest
import recipe
import torch
from recent import INPUTS, official, on_cases, owners_by_block, stored

from suite import attach

CASES = {
    "repshift_t_k072_branch": ("representation_shift", "keep=0.72@3,6,9", {}),
    "repshift_t_k07_residual": ("representation_shift", "keep=0.7@3,6,9", {"form": "residual"}),
    "repshift_7x7_k08_l1": ("representation_shift", "keep=0.8@1,2,4", {"metric": "l1"}),
    "atc_t_k07_average": ("atc", "keep=0.7@3,6,9", {}),
    "atc_t_k05_complete": ("atc", "keep=0.5@3,6,9", {"linkage": "complete"}),
    "atc_t_k025_single_nopa": ("atc", "keep=0.25@3,6,9", {"linkage": "single", "proportional_attention": False}),
    "atc_5x5_k06_average": ("atc", "keep=0.6@1,2,3", {}),
    "atc_7x7_k05_complete_nopa": ("atc", "keep=0.5@1,3,5", {"linkage": "complete", "proportional_attention": False}),
    "atc_7x7_list_single": ("atc", "r=[0,9,0,19,16]", {"linkage": "single"}),
    "zerotprune_t": (
        "zero_tprune",
        "r=[0,10,0,28,0,0,40,0,0,43,0,10]",
        {"similar": 10},
    ),
    "zerotprune_7x7": (
        "zero_tprune",
        "r=[0,9,0,11,0,9]",
        {"similar": [0, 4, 0, 3, 0, 0], "iterations": [0, 30, 0, 5, 0, 1]},
    ),
    "gtp_t_p8": ("gtp", "r=8", {}),
    "gtp_t_p8_sparse06": ("gtp", "r=8", {"theta": 0.6}),
    "gtp_7x7_p6_mixed": ("gtp", "r=6", {"alpha": 0.25, "neighbours": 3}),
    "gtp_7x7_p4_clsattn": ("gtp", "r=4", {"neighbours": 5, "selection": "CLSAttnMean"}),
    "gtp_7x7_p5_spatial_sparse08": ("gtp", "r=5", {"alpha": 0.2, "graph": "spatial", "theta": 0.8}),
    "gtp_5x5_p3_semantic_noscale": (
        "gtp",
        "r=3",
        {"alpha": 0.3, "graph": "semantic", "neighbours": 4, "scales": False},
    ),
    "dct_t_r8": ("dct", "r=8", {}),
    "dct_7x7_r4": ("dct", "r=4", {}),
    "ppt_t_r50_mixed": ("ppt", "r=50@3,6,9", {}),
    "ppt_t_r50_prune": ("ppt", "r=50@3,6,9", {}),
    "ppt_t_r30_prune_then_pool": ("ppt", "r=30@1,3,5,7,9", {}),
    "ppt_5x5_r4_unbiased": ("ppt", "r=4@0,2", {}),
    "ppt_5x5_r5_mixed": ("ppt", "r=5@1,2,3", {}),
    "ppt_7x7_r12_pool": ("ppt", "r=12@1,3,4", {}),
    "ppt_7x7_r6dec": ("ppt", "r=[0,12,0,9,7]", {}),
    "ppt_7x7_r9_mixed_nopa": ("ppt", "r=9@1,3,4", {"proportional_attention": False}),
    "ppt_7x7_r9_prune_then_pool": ("ppt", "r=9@1,3,4", {}),
}


def forward(name, image, dtype):
    """(logits, tokens, token counts) of a case."""
    reducer, rate, options = CASES[name]
    _, about = stored(name)
    if reducer == "ppt":
        options = {**options, "threshold": about["params"]["threshold"]}
    model = official(about["model"], dtype)
    images = torch.from_numpy(INPUTS[image](about["model"])).to(dtype)
    with torch.no_grad(), attach(model, reducer, rate, **options) as handle:
        return model(images).numpy(), handle.tokens, handle.token_counts


@pytest.mark.parametrize("image", INPUTS)
@on_cases(*CASES)
def test_logits_and_groups_equal_theirs_in_both_precisions(name, image):
    arrays, about = stored(name)
    for dtype, array, bound in ((torch.float32, "logits", 1e-5), (torch.float64, "logits64", 1e-10)):
        logits, tokens, counts = forward(name, image, dtype)
        assert np.abs(logits - arrays[f"{image}_{array}"]).max() <= bound
        assert counts == about["token_counts"]["block_out"]
        if f"{image}_scales64" in arrays:
            assert np.abs(tokens.sizes.numpy() - arrays[f"{image}_scales64"]).max() <= bound
        if f"{image}_maps_by_layer" not in arrays:
            continue
        owners = owners_by_block(tokens, counts)
        for ours, theirs in zip(owners, arrays[f"{image}_maps_by_layer"], strict=True):
            assert (recipe.canonical_partition(ours) == recipe.canonical_partition(theirs)).all()


@on_cases(*CASES)
def test_the_weights_are_those_that_they_were_run_with(name):
    _, about = stored(name)
    assert recipe.digest(recipe.weights(about["model"])) == about["weights_sha256"]
