"""A model with its weights, whatever kind it is of."""

from __future__ import annotations

import difflib
from pkgutil import resolve_name

from torch import nn

from suite.backbones import backbone_of, family_of
from suite.errors import RequestError
from suite.models.registry import TIMM, ModelEntry, default_checkpoint, find_entry, list_entries
from suite.models.weights_file import WeightsInfo

RANDOM_SEED = 0


def load_model(
    name: str,
    checkpoint: str | None = None,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
) -> tuple[nn.Module, WeightsInfo]:
    """A model in eval mode, in float32 on the CPU, and what its weights are.

    `name`: one of the registry, a model id of the hub, 'mmseg:' and a config, or a timm model, with or without a tag
    (`deit_small_patch16_224.fb_in1k`).
    `checkpoint`: 'pretrained', 'embedded', 'none' (random weights, the same in every process) or a local file; for a
    captioner, a local folder. Position embeddings of a file are resampled to `image_size` (pixels).
    Raises RequestError, one line, for whatever cannot be had or does not fit.
    """
    entry, checkpoint = find_entry(name), checkpoint or default_checkpoint(name)
    check_model_name(name)
    _check_embedded(entry, checkpoint)
    load = resolve_name(entry.kind.loader)
    if entry.kind.adaptable:
        model, info = load(entry, checkpoint, RANDOM_SEED, image_size, num_classes)
    else:
        model, info = load(entry, checkpoint, RANDOM_SEED)
        _check_sizes(name, model, image_size, num_classes)
    return model.eval(), info


def sources_of(name: str, model: nn.Module) -> set[str]:
    """Modules whose code made `model`, the one of that name, and is run by it: classes, makers and family."""
    entry = find_entry(name)
    return {
        *(cls.__module__ for module in model.modules() for cls in type(module).__mro__ if cls is not object),
        *(maker.partition(":")[0] for maker in (entry.kind.loader, entry.build) if maker),
        type(family_of(model)).__module__,
    }


def check_model_name(name: str) -> None:
    """Raises RequestError, with the closest names, unless `name` is a timm model or one of ours."""
    if find_entry(name).build != TIMM:
        return
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = [*(entry.name for entry in list_entries()), *timm.list_models()]
        close = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`list models` shows what there is"
        raise RequestError(f"model '{name}' is unknown; {hint}")
    tags = [item.partition(".")[2] for item in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        told = f"its tags are {', '.join(tags)}" if tags else "it has no tags"
        raise RequestError(f"model '{architecture}' has no pretrained tag '{tag}'; {told}")


def _check_embedded(entry: ModelEntry, checkpoint: str) -> None:
    """RequestError where embedded weights are asked for of a model without, of a kind of which others have them."""
    embedded = [other.name for other in list_entries() if other.kind == entry.kind and other.weights]
    if checkpoint == "embedded" and embedded and entry.weights is None:
        download = "pretrained, " if entry.hub or entry.build == TIMM else ""
        raise RequestError(
            f"model '{entry.name}' has no embedded weights; use checkpoint {download}none or a "
            f"{entry.kind.takes.lower()} (embedded: {', '.join(embedded)})"
        )


def _check_sizes(name: str, model: nn.Module, image_size: int | None, num_classes: int | None) -> None:
    """RequestError unless the model has the image size and the classes that it is asked to have."""
    classes = getattr(model, "num_classes", None)
    if num_classes is not None and classes is None:
        raise RequestError(f"model '{name}' writes captions; it has no classes, let alone {num_classes}")
    if num_classes not in (None, classes):
        raise RequestError(f"model '{name}' has {classes} classes, not {num_classes}; leave the number out")
    height, width = family_of(model).image_size(backbone_of(model))
    if image_size is not None and (image_size, image_size) != (height, width):
        side = height if height == width else f"{height} x {width}"
        raise RequestError(f"model '{name}' takes images of {side} pixels, not {image_size}; leave the size out")
