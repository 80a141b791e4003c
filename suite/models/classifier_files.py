"""Classifiers with their weights: timm's pretrained ones, files, random ones, and those that come with the suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from suite.backbones.timm_sizes import stem_of
from suite.errors import RequestError, UnavailableError
from suite.models.contents import read_contents
from suite.models.described import CONFIG, read_description
from suite.models.fitting import load_into
from suite.models.hub import no_waiting_for_an_unreachable_hub
from suite.models.label_names import label_names_in
from suite.models.random_weights import build_random
from suite.models.registry import ModelEntry
from suite.models.several import split_choice
from suite.models.weights_file import WeightsInfo, one_line, state_dict_sha256


def load_classifier(
    entry: ModelEntry,
    checkpoint: str,
    seed: int = 0,
    image_size: int | None = None,
    num_classes: int | None = None,
) -> tuple[nn.Module, WeightsInfo]:
    """A classifier in float32 on the CPU, and what its weights are.

    `checkpoint`: 'pretrained', 'embedded', 'none' (random weights from `seed`) or a local file, of several models in it
    'FILE::NAME'. Its position embeddings are resampled to `image_size` (pixels) as timm does; without `num_classes`,
    the model has as many classes as the file. RequestError, one line, for whatever cannot be had or does not fit.
    """
    if checkpoint == "pretrained":
        return _pretrained(entry, seed, image_size, num_classes)
    if checkpoint == "none":
        model = build_classifier(entry, seed, image_size, num_classes)
        return model, WeightsInfo("random", f"random:seed={seed}", state_dict_sha256(model.state_dict()))
    # The file is read first: a refused file should not cost the building of a large model.
    path, choice = split_choice(str(entry.locate(checkpoint)))
    contents = read_contents(path)
    model = build_classifier(entry, seed, image_size, num_classes)
    info = load_into(model, contents, entry, choice, any_classes=num_classes is None)
    names = contents.label_names or _names_beside(contents.path.parent)
    if len(names) == getattr(model, "num_classes", None):
        cast(Any, model).label_names = names  # a task may have the same classes in another order
    return model, replace(info, source=f"embedded:{entry.name}") if checkpoint == "embedded" else info


def _names_beside(folder: Path) -> tuple[str, ...]:
    """The names of classes in the config.json of transformers or timm."""
    about = read_description(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    of_timm = about.get("pretrained_cfg")
    return label_names_in(about) or label_names_in(of_timm if isinstance(of_timm, dict) else {})


def build_classifier(
    entry: ModelEntry, seed: int = 0, image_size: int | None = None, num_classes: int | None = None, **options: Any
) -> nn.Module:
    """The model with weights from `seed`, with what timm reads of how its images are prepared."""
    asked = {"num_classes": num_classes, "img_size": image_size}
    asked = {key: value for key, value in asked.items() if value is not None}
    try:
        model = build_random(entry, seed, **asked, **options)
    except TypeError as error:
        raise RequestError(f"model '{entry.name}' cannot be built with {asked}: {one_line(error)}") from error
    if entry.crop_pct is not None:
        model.default_cfg = model.pretrained_cfg = {
            "input_size": (3, 224, 224),
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "crop_pct": entry.crop_pct,
            "interpolation": "bicubic",
            "num_classes": model.num_classes,
        }
    stem = stem_of(model)
    _check_image_size(entry, stem, image_size)
    if image_size and hasattr(stem, "default_img_size"):  # it takes any size; which, timm's notes alone say
        about = {**model.pretrained_cfg, "input_size": (3, image_size, image_size)}
        model.default_cfg = model.pretrained_cfg = about
    return model


def _check_image_size(entry: ModelEntry, stem: nn.Module | None, image_size: int | None) -> None:
    patch = getattr(stem, "patch_size", None)
    if image_size and patch and any(image_size % side for side in patch):
        raise RequestError(
            f"image size {image_size} is not a multiple of {entry.name}'s patch size {patch[0]}; "
            f"use {max(image_size // patch[0], 1) * patch[0]}"
        )


def _pretrained(
    entry: ModelEntry, seed: int, image_size: int | None, num_classes: int | None
) -> tuple[nn.Module, WeightsInfo]:
    name = entry.name
    if entry.weights:
        raise RequestError(f"model '{name}' has no pretrained weights to download; use checkpoint embedded or none")
    if entry.home:
        raise RequestError(
            f"model '{name}' has no pretrained weights that could be downloaded; give its authors' file "
            f"({entry.home}) as the checkpoint, or none for random weights"
        )
    remedy = "give a local weights file (.safetensors, .pth) as the checkpoint, or none for random weights"
    trained = getattr(timm.get_pretrained_cfg(name, allow_unregistered=True), "num_classes", None)
    if num_classes is not None and num_classes != trained:
        # timm would quietly put a random head on the trained backbone.
        raise RequestError(f"the pretrained head of '{name}' has {trained} classes, not {num_classes}; {remedy}")
    try:
        with no_waiting_for_an_unreachable_hub():
            model = build_classifier(entry, seed, image_size, num_classes, pretrained=True)
    except RequestError:
        raise
    # The hub client raises errors of several libraries: requests, httpx, huggingface_hub, OSError, RuntimeError.
    except Exception as error:
        raise UnavailableError(f"no pretrained weights for '{name}': {one_line(error)}; {remedy}") from error
    return model, WeightsInfo("trained", f"pretrained:{name}", state_dict_sha256(model.state_dict()))
