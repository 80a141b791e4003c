"""A shrunk image gives what timm gives that takes images of any size."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import recipe
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from suite import attach

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[3] / "shared" / "golden2"
INPUTS = {"noise": recipe.noise, "smooth": recipe.smooth}


def compare(model, side, images, stored, prefix):
    """In float32 and in float64, where timm resamples the embedding in float32 all the same."""
    for dtype, array, bound in ((torch.float32, "logits", 1e-5), (torch.float64, "logits64", 1e-7)):
        with torch.no_grad(), attach(model.to(dtype), "resize", f"side={side}"):
            logits = model(torch.from_numpy(images).to(dtype))
        assert np.abs(logits.numpy() - stored[f"{prefix}_{array}"]).max() <= bound
    model.float()


@pytest.mark.parametrize("prefix", INPUTS)
def test_deit_tiny_on_ten_by_ten_patches_is_timms_own(prefix):
    model = timm.create_model("deit_tiny_patch16_224").eval()
    weights = recipe.weights("deit_tiny_patch16_224")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=True)
    compare(model, 160, INPUTS[prefix](), np.load(DATA / "resize_t_g10.npz"), prefix)


@pytest.mark.parametrize("prefix", INPUTS)
@pytest.mark.skipif(not SHARED.exists(), reason="the larger set of reference outputs is not here")
def test_a_small_model_on_five_by_five_patches_is_timms_own(prefix):
    spec = importlib.util.spec_from_file_location("recipe_of_shared", SHARED / "recipe.py")
    shared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shared)
    entry = json.loads((SHARED / "manifest.json").read_text())["cases"]["resize_7x7_g5"]
    model = VisionTransformer(**entry["model_kwargs"]).eval()
    weights = shared.base_weights(entry["model"])
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=True)
    images = {"noise": shared.noise_input, "smooth": shared.smooth_input}[prefix](model=entry["model"])
    compare(model, 40, images, np.load(SHARED / "resize_7x7_g5.npz"), prefix)
