"""Reference outputs of the methods of 2024 to 2026: what was asked, what came out, and the model that it was run on."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import recipe
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

DATA = Path(__file__).parent / "data"
SHARED = [Path(__file__).parents[3] / "shared" / folder for folder in ("golden2", "golden3")]
INPUTS = {"noise": recipe.noise, "smooth": recipe.smooth}
SMALL = {
    name: partial(VisionTransformer, **shape, patch_size=8, num_classes=10, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    for name, shape in {
        "vit_mini_patch8_64": {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3},
        "vit_5x5_c48": {"img_size": 40, "embed_dim": 48, "depth": 4, "num_heads": 3},
        "vit_7x7_c64": {"img_size": 56, "embed_dim": 64, "depth": 6, "num_heads": 4},
    }.items()
}


def on_cases(*names):
    """The test runs for these cases, with either input; those of the larger set are skipped where it is absent."""
    absent = pytest.mark.skip(reason="the larger set of reference outputs is not here")
    cases = [pytest.param(name, marks=() if folder_of(name) else absent) for name in names]
    return pytest.mark.parametrize("name", cases)


def folder_of(name):
    return next((folder for folder in (DATA, *SHARED) if (folder / f"{name}.npz").exists()), None)


def stored(name):
    """Arrays of a case, and its entry of the manifest that has one."""
    folder = folder_of(name)
    manifests = (json.loads(file.read_text())["cases"] for file in folder.glob("manifest*.json"))
    return np.load(folder / f"{name}.npz"), next(cases[name] for cases in manifests if name in cases)


def official(name, dtype=torch.float32):
    """A model with the weights of the reference outputs."""
    model = SMALL[name]() if name in SMALL else timm.create_model(name)
    model.load_state_dict({key: torch.from_numpy(array) for key, array in recipe.weights(name).items()}, strict=True)
    return model.eval().to(dtype)


def owners_by_block(tokens, counts):
    """(depth, B, N0) owner after each block, of a method that changes the tokens once wherever their number changes."""
    done, out, before = 0, [], tokens.origin
    for count in counts:
        done, before = done + (count != before), count
        out.append(replace(tokens, steps=tokens.steps[:done]).owner.numpy())
    return np.stack(out)
