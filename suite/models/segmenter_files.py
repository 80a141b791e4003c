"""Segmenters with their weights: files of the authors' (with variant.yml), of mmsegmentation's and of our own saving.

The three name the same parameters differently; what a file holds is told by its names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from suite.backbones.segmenter import Segmenter
from suite.errors import RequestError
from suite.models.contents import Contents, files_of, read_state_dict
from suite.models.random_weights import build_random
from suite.models.registry import ModelEntry
from suite.models.several import say_choice_of, split_choice
from suite.models.weights_file import (
    WeightsInfo,
    check_fit,
    one_line,
    state_dict_sha256,
)

CHECKPOINT, VARIANT = "checkpoint.pth", "variant.yml"
State = dict[str, Tensor]


def load_segmenter(entry: ModelEntry, checkpoint: str, seed: int = 0) -> tuple[Segmenter, WeightsInfo]:
    """A Segmenter in float32 on the CPU, and what its weights are.

    `checkpoint`: 'embedded', 'none' (random weights from
    `seed`), a weights file, or a folder with the authors' checkpoint.pth. Position embeddings of another grid are
    resampled bilinearly, as the authors do, and that is said in the source.
    Raises RequestError, one line, for whatever cannot be had or is of another model.
    """
    if checkpoint == "pretrained":
        remedy = "use checkpoint embedded, none or a file"
        if entry.home:
            remedy = f"give its authors' folder ({entry.home}) or mmsegmentation's file as the checkpoint, or none"
        raise RequestError(f"model '{entry.name}' has no pretrained weights that could be downloaded; {remedy}")
    if checkpoint == "none":
        segmenter = build_random(entry, seed)
        return segmenter, WeightsInfo("random", f"random:seed={seed}", state_dict_sha256(segmenter.state_dict()))
    place, choice = split_choice(str(entry.locate(checkpoint)))
    path = checkpoint_file(place)
    # the file is read first: a refused file should not cost the building of a large model
    state, wrapper, others = read_state_dict(path, choice)
    naming = naming_of(state)
    note = f"[{wrapper}]" if wrapper else ""
    if naming is AUTHORS and entry.shape and path.with_name(VARIANT).is_file():
        note += check_variant(path.with_name(VARIANT), entry)
    segmenter = build_random(entry, seed)
    note += put_in(segmenter, naming, state, path)
    source = f"embedded:{entry.name}" if checkpoint == "embedded" else f"{path}{note}"
    digest = Contents(files_of(path)).sha256(wrapper if choice or others else "")
    return segmenter, WeightsInfo("trained", source, digest, say_choice_of(path, wrapper, others))


def checkpoint_file(path: Path) -> Path:
    """The weights file that is meant by a file or by a folder of the authors'."""
    if path.is_dir() and not (path / CHECKPOINT).is_file():
        raise RequestError(f"checkpoint '{path}' has no {CHECKPOINT}; give a weights file or the authors' folder")
    return path / CHECKPOINT if path.is_dir() else path


@dataclass(frozen=True)
class Naming:
    """One way of naming a Segmenter's parameters.

    mark: how a name begins that no other naming has. renamed: names and values as `Segmenter` has them. epsilon: what
    LayerNorms of the encoder add to the variance; None: what ours do.
    """

    mark: str
    renamed: Callable[[Mapping[str, Tensor]], State]
    epsilon: float | None = None


def from_authors(state: Mapping[str, Tensor]) -> State:
    """The encoder's head of its pretraining is left out: nothing reads it."""
    heads = ("encoder.head.", "encoder.head_dist.")
    return {re.sub(r"^encoder\.", "backbone.", key): value for key, value in state.items() if not key.startswith(heads)}


MMSEG_NAMES = (
    (r"^backbone\.layers\.", "backbone.blocks."),
    (r"^decode_head\.layers\.", "decoder.blocks."),
    (r"^backbone\.patch_embed\.projection\.", "backbone.patch_embed.proj."),
    (r"^backbone\.ln1\.", "backbone.norm."),
    (r"\.ln(\d)\.", r".norm\1."),
    (r"\.attn\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"^decode_head\.dec_proj\.", "decoder.proj_dec."),
    (r"^decode_head\.patch_proj\.weight$", "decoder.proj_patch"),
    (r"^decode_head\.classes_proj\.weight$", "decoder.proj_classes"),
    (r"^decode_head\.", "decoder."),
)


def from_mmseg(state: Mapping[str, Tensor]) -> State:
    """Its two projections are linear layers, so they are transposed; its patches may be made without a bias."""
    renamed = {}
    for key, value in state.items():
        for pattern, ours in MMSEG_NAMES:
            key = re.sub(pattern, ours, key)
        renamed[key] = value.T if key in ("decoder.proj_patch", "decoder.proj_classes") else value
    weight = renamed.get("backbone.patch_embed.proj.weight")
    if weight is not None:
        renamed.setdefault("backbone.patch_embed.proj.bias", weight.new_zeros(len(weight)))
    return renamed


AUTHORS = Naming("encoder.", from_authors, epsilon=1e-5)
NAMINGS = (AUTHORS, Naming("decode_head.", from_mmseg, epsilon=1e-6), Naming("", dict))


def naming_of(state: Mapping[str, Tensor]) -> Naming:
    return next(naming for naming in NAMINGS if any(key.startswith(naming.mark) for key in state))


def put_in(segmenter: Segmenter, naming: Naming, state: State, path: Path) -> str:
    """Loads a state dict, of which every name and shape must match. Returns what was changed on the way, or ''."""
    linear = next((key for key in ("decoder.head.weight", "decode_head.conv_seg.weight") if key in state), None)
    if linear is not None:
        raise RequestError(f"checkpoint '{path}' has a linear decoder ('{linear}'); give one with a mask transformer")
    state, own, note = naming.renamed(state), segmenter.state_dict(), ""
    positions = state.get("backbone.pos_embed")
    if positions is not None and positions.dim() == 3:
        state["backbone.pos_embed"] = resized = resampled(positions, own["backbone.pos_embed"].shape[1] - 1)
        if resized.shape != positions.shape:
            note = f", position embeddings resampled from {positions.shape[1]} to {resized.shape[1]}"
    misfit = f"checkpoint '{path}' does not fit the model"
    check_fit(own, state, misfit, "name the model that it was saved from")
    segmenter.load_state_dict(state)
    for module in segmenter.backbone.modules():
        if isinstance(module, nn.LayerNorm) and naming.epsilon is not None:
            module.eps = naming.epsilon
    return note


def resampled(positions: Tensor, patches: int) -> Tensor:
    """Position embeddings (1, 1 + g², C), the class token's first, on the square grid of another number of patches.

    Bilinear. Those of no square grid are left as they are.
    """
    old, new = math.isqrt(positions.shape[1] - 1), math.isqrt(patches)
    if old == new or old**2 != positions.shape[1] - 1:
        return positions
    grid = positions[:, 1:].float().transpose(1, 2).unflatten(2, (old, old))
    grid = F.interpolate(grid, (new, new), mode="bilinear", align_corners=False)
    return torch.cat([positions[:, :1].float(), grid.flatten(2).transpose(1, 2)], dim=1)


# Fields of variant.yml, and what they have to be: always, and by the names of a shape.
VARIANT_ALWAYS = {
    "net_kwargs.decoder.name": "mask_transformer",
    "net_kwargs.normalization": "vit",
    "net_kwargs.distilled": False,
    "dataset_kwargs.normalization": "vit",
}
VARIANT_SHAPE = {
    "net_kwargs.decoder.n_layers": "decoder_depth",
    "net_kwargs.decoder.n_cls": "num_classes",
    "net_kwargs.n_cls": "num_classes",
    "net_kwargs.d_model": "width",
    "net_kwargs.n_layers": "depth",
    "net_kwargs.n_heads": "heads",
    "net_kwargs.patch_size": "patch_size",
    "net_kwargs.image_size": "image_size",
    "inference_kwargs.window_size": "image_size",
}


def check_variant(path: Path, entry: ModelEntry) -> str:
    """RequestError where the authors' description of their checkpoint contradicts the name.

    Returns what else there is to know of it, or ''. Fields that it lacks say nothing.
    """
    try:
        variant = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RequestError(f"'{path}' cannot be read as YAML: {one_line(error)}") from error
    shape = {field: entry.shape[name] for field, name in VARIANT_SHAPE.items() if name in entry.shape}
    expected = {**VARIANT_ALWAYS, **shape}
    for field, value in expected.items():
        found = look_up(variant, field)
        if found not in (None, value):
            raise RequestError(f"'{path}' contradicts model '{entry.name}': {field} is {found!r}, not {value!r}")
    stride = look_up(variant, "inference_kwargs.window_stride")
    return "" if stride in (None, entry.shape.get("image_size")) else f", meant for windows every {stride} pixels"


def look_up(variant: Any, field: str) -> Any:
    """The value of 'a.b.c', None where there is none; a square's (H, W) is its side."""
    for key in field.split("."):
        variant = variant.get(key) if isinstance(variant, dict) else None
    if isinstance(variant, list) and len(variant) == 2 and variant[0] == variant[1]:
        return variant[0]
    return variant
