"""Models with their weights: timm's pretrained ones, a local file, random ones, or those shipped with the suite."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from suite.backbones import backbone_of, family_of
from suite.errors import RequestError
from suite.models.hub import no_waiting_for_an_unreachable_hub
from suite.models.published import PUBLISHED
from suite.models.weights_file import file_sha256, load_into, one_line, read_state_dict, state_dict_sha256
from suite.models.whole import Kind, embedded_files, kind_of, whole_models

# Name -> (module:function(num_classes=...) that builds the model, its weights file relative to this package).
EMBEDDED: dict[str, tuple[str, str]] = {
    "scenes_vit": ("suite.models.scenes_vit:build_scenes_vit", "weights/scenes_vit.safetensors"),
}
RANDOM_SEED = 0


@dataclass(frozen=True)
class WeightsInfo:
    """Which weights a model carries. `sha256` identifies them: of the file, or of the state dict without one.

    Of a captioner, it also covers what else its captions depend on: words, preparation of images.
    """

    kind: str  # "trained" | "random"
    source: str  # "pretrained:<name>", "embedded:<name>", "random:seed=0" or the file (with its wrapper) or folder
    sha256: str


def default_checkpoint(name: str) -> str:
    """The checkpoint that is meant when the user names none."""
    return "embedded" if name in EMBEDDED or name in embedded_files() else "pretrained"


def load_model(
    name: str,
    checkpoint: str | None = None,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
) -> tuple[nn.Module, WeightsInfo]:
    """A model in eval mode, in float32 on the CPU, and what its weights are.

    `name`: a timm model, with or without a tag (`deit_small_patch16_224.fb_in1k`), a key of EMBEDDED or PUBLISHED, or
    one of a whole model (`kind_of`), such as a `Captioner` or a `Segmenter`.
    `checkpoint`: 'pretrained', 'embedded', 'none' (random weights, the same in every process) or a local file; for a
    captioner, a local folder. Position embeddings of a file are resampled to `image_size` (pixels) as timm does.
    Raises RequestError, one line, for whatever cannot be had or does not fit.
    """
    checkpoint = checkpoint or default_checkpoint(name)
    check_model_name(name)
    kind = kind_of(name)
    if kind is not None:
        model, info = _whole(kind, name, checkpoint, image_size, num_classes)
    elif checkpoint == "embedded":
        model, info = _embedded(name, image_size, num_classes)
    elif checkpoint == "pretrained":
        model, info = _pretrained(name, image_size, num_classes)
    elif checkpoint == "none":
        model = _build(name, image_size, num_classes)
        info = WeightsInfo("random", f"random:seed={RANDOM_SEED}", state_dict_sha256(model.state_dict()))
    else:
        # The file is read first: a refused file should not cost the building of a large model.
        path = Path(checkpoint)
        own = PUBLISHED.get(name)
        state, wrapper = read_state_dict(path, own.wrapper if own else "")
        model = _build(name, image_size, num_classes)
        note = load_into(model, state, path, own.renamed if own else dict)
        source = (f"{path}[{wrapper}]" if wrapper else str(path)) + note
        info = WeightsInfo("trained", source, file_sha256(path))
    return model.eval(), info


def sources_of(name: str, model: nn.Module) -> set[str]:
    """Modules whose code made `model`, the one of that name, and is run by it: classes, loader and family."""
    kind, family = kind_of(name), family_of(model)
    makers = [kind.loader] if kind else [EMBEDDED[name][0]] if name in EMBEDDED else []
    return {
        *(cls.__module__ for module in model.modules() for cls in type(module).__mro__ if cls is not object),
        *(maker.partition(":")[0] for maker in makers),
        type(family).__module__,
    }


def check_model_name(name: str) -> None:
    """Raises RequestError, with the closest names, unless `name` is a timm model or one of ours."""
    architecture, _, tag = name.partition(".")
    if name in EMBEDDED or name in PUBLISHED or kind_of(name):
        return
    if not timm.is_model(architecture):
        known = [*EMBEDDED, *PUBLISHED, *whole_models(), *timm.list_models()]
        close = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`list models` shows what there is"
        raise RequestError(f"model '{name}' is unknown; {hint}")
    tags = [item.partition(".")[2] for item in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        known = f"its tags are {', '.join(tags)}" if tags else "it has no tags"
        raise RequestError(f"model '{architecture}' has no pretrained tag '{tag}'; {known}")


def _whole(
    kind: Kind, name: str, checkpoint: str, image_size: int | None, num_classes: int | None
) -> tuple[nn.Module, WeightsInfo]:
    """A whole model has the image size and the classes that it has."""
    module, _, loader = kind.loader.partition(":")
    model, *info = getattr(importlib.import_module(module), loader)(name, checkpoint, RANDOM_SEED)
    classes = getattr(model, "num_classes", None)
    if num_classes is not None and classes is None:
        raise RequestError(f"model '{name}' writes captions; it has no classes, let alone {num_classes}")
    if num_classes not in (None, classes):
        raise RequestError(f"model '{name}' has {classes} classes, not {num_classes}; leave the number out")
    height, width = family_of(model).image_size(backbone_of(model))
    if image_size is not None and (image_size, image_size) != (height, width):
        side = height if height == width else f"{height} x {width}"
        raise RequestError(f"model '{name}' takes images of {side} pixels, not {image_size}; leave the size out")
    return model, WeightsInfo(*info)


def _build(name: str, image_size: int | None, num_classes: int | None, **timm_options: Any) -> nn.Module:
    """The model with weights drawn from a fixed seed; the caller's random state is left alone."""
    options = {"num_classes": num_classes, "img_size": None if name in EMBEDDED else image_size}
    options = {key: value for key, value in options.items() if value is not None}
    with torch.random.fork_rng(devices=[]):
        # Only the CPU generator: torch.manual_seed would also reseed the GPUs, which fork_rng leaves alone here.
        torch.default_generator.manual_seed(RANDOM_SEED)
        try:
            if name in EMBEDDED:
                module, _, function = EMBEDDED[name][0].partition(":")
                model = getattr(importlib.import_module(module), function)(**options)
            elif name in PUBLISHED:
                model = PUBLISHED[name].build(**options)
            else:
                model = timm.create_model(name, **options, **timm_options)
        except TypeError as error:
            raise RequestError(f"model '{name}' cannot be built with {options}: {one_line(error)}") from error
    _check_image_size(name, model, image_size)
    return model


def _check_image_size(name: str, model: nn.Module, image_size: int | None) -> None:
    embed = getattr(model, "patch_embed", None)
    patch, built = getattr(embed, "patch_size", None), getattr(embed, "img_size", None)
    if name in EMBEDDED and image_size and built and image_size != built[0]:
        raise RequestError(f"model '{name}' takes images of {built[0]} pixels, not {image_size}; leave the size out")
    if image_size and patch and any(image_size % side for side in patch):
        raise RequestError(
            f"image size {image_size} is not a multiple of {name}'s patch size {patch[0]}; "
            f"use {max(image_size // patch[0], 1) * patch[0]}"
        )


def _pretrained(name: str, image_size: int | None, num_classes: int | None) -> tuple[nn.Module, WeightsInfo]:
    if name in EMBEDDED:
        raise RequestError(f"model '{name}' has no pretrained weights to download; use checkpoint embedded or none")
    if name in PUBLISHED:
        raise RequestError(
            f"model '{name}' has no pretrained weights that could be downloaded; give its authors' file "
            f"({PUBLISHED[name].home}) as the checkpoint, or none for random weights"
        )
    remedy = "give a local weights file (.safetensors, .pth) as the checkpoint, or none for random weights"
    trained = getattr(timm.get_pretrained_cfg(name, allow_unregistered=True), "num_classes", None)
    if num_classes is not None and num_classes != trained:
        # timm would quietly put a random head on the trained backbone.
        raise RequestError(f"the pretrained head of '{name}' has {trained} classes, not {num_classes}; {remedy}")
    try:
        with no_waiting_for_an_unreachable_hub():
            model = _build(name, image_size, num_classes, pretrained=True)
    except RequestError:
        raise
    # The hub client raises errors of several libraries: requests, httpx, huggingface_hub, OSError, RuntimeError.
    except Exception as error:
        raise RequestError(f"no pretrained weights for '{name}': {one_line(error)}; {remedy}") from error
    return model, WeightsInfo("trained", f"pretrained:{name}", state_dict_sha256(model.state_dict()))


def _embedded(name: str, image_size: int | None, num_classes: int | None) -> tuple[nn.Module, WeightsInfo]:
    if name not in EMBEDDED:
        download = "" if name in PUBLISHED else "pretrained, "
        raise RequestError(
            f"model '{name}' has no embedded weights; use checkpoint {download}none or a file "
            f"(embedded: {', '.join(EMBEDDED)})"
        )
    path = Path(__file__).parents[1] / EMBEDDED[name][1]
    state, _ = read_state_dict(path)
    model = _build(name, image_size, num_classes)
    load_into(model, state, path)
    return model, WeightsInfo("trained", f"embedded:{name}", file_sha256(path))
