"""Methods on the grid of patches give what their authors' implementation gives: groups, logits, cost."""

import numpy as np
import pytest
import recipe
import torch
from recent import INPUTS, official, on_cases, stored

from suite import attach
from suite.measure.flops import count_macs_fast

PRECISIONS = pytest.mark.parametrize(
    ("dtype", "array", "bound"), [("float32", "logits", 1e-5), ("float64", "logits64", 1e-12)]
)
CUBIST = ("cubist_mini_r2", "cubist_t_r1", "cubist_t_r4_3")


def lines(params):
    return f"lines=[{params['rh']},{params['rw']}]@{params['loc']}"


@on_cases(*CUBIST)
@pytest.mark.parametrize("image", INPUTS)
@PRECISIONS
@torch.no_grad()
def test_a_thinned_grid_has_the_authors_groups_and_logits(name, image, dtype, array, bound):
    outputs, entry = stored(name)
    model, images = official(entry["model"], getattr(torch, dtype)), torch.from_numpy(INPUTS[image](entry["model"]))
    with attach(model, "cubist_merge", lines(entry["params"])) as handle:
        logits = model(images.to(getattr(torch, dtype)))
    assert handle.token_counts == entry["token_counts"]
    assert (handle.tokens.owner.numpy() == outputs[f"{image}_map"]).all()
    assert np.abs(logits.numpy() - outputs[f"{image}_{array}"]).max() <= bound


@on_cases(*CUBIST)
def test_the_cost_lacks_what_the_authors_code_multiplies_for_cosines_of_neighbours(name):
    _, entry = stored(name)
    model, images = official(entry["model"]), torch.from_numpy(recipe.smooth(entry["model"])[:1])
    side, width = model.patch_embed.grid_size[0], model.embed_dim
    multiplied = (
        side * (side - 1) * width + (side - entry["params"]["rw"]) * (side - 1) * width
    )  # here element by element
    with attach(model, "cubist_merge", lines(entry["params"])):
        assert (count_macs_fast(model, images) + multiplied) / 1e9 == pytest.approx(entry["gflops"], abs=1e-6)


@on_cases("g2tm_mini_l1", "g2tm_t_l2", "g2tm_t_l2_inv")
@pytest.mark.parametrize("image", INPUTS)
@PRECISIONS
@torch.no_grad()
def test_connected_parts_are_the_authors_and_so_are_logits_alone_and_in_a_batch(name, image, dtype, array, bound):
    outputs, entry = stored(name)
    params, precision = entry["params"], getattr(torch, dtype)
    model = official(entry["model"], precision)
    images = torch.from_numpy(INPUTS[image](entry["model"])).to(precision)
    with attach(
        model, "g2tm", f"tau={params['threshold']}@{params['layer'] - 1}", attention=params["attention"]
    ) as handle:
        for rows in ([0], [1], [0, 1]):
            logits, tokens = model(images[rows]), handle.tokens
            assert np.abs(logits.numpy() - outputs[f"{image}_{array}"][rows]).max() <= bound
            assert (tokens.owner.numpy() == outputs[f"{image}_map"][rows]).all()
            for row, sizes, count in zip(rows, tokens.sizes.numpy(), tokens.counts.tolist(), strict=True):
                assert (sizes[:count] == outputs[f"{image}_size_{row}"]).all()
    if image == "noise":  # nothing is alike
        assert torch.equal(logits, model(images))
