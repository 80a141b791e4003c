"""mmsegmentation's own Segmenter, built from one of its configs, in the place of ours."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from mmengine import Config
from torch import Tensor, nn

from suite.backbones.segmenter import Segmenter
from suite.errors import RequestError
from suite.models.contents import Contents, files_of, read_state_dict
from suite.models.registry import MMSEG_PREFIX, ModelEntry
from suite.models.segmenter_files import look_up
from suite.models.several import say_choice_of, split_choice
from suite.models.weights_file import (
    WeightsInfo,
    check_fit,
    one_line,
    state_dict_sha256,
)

# mmcv's releases are C++17; torch 2.13 can be compiled against so, 2.15 wants C++20
INSTALL = "pip install 'torch<2.14' 'setuptools<81' psutil && pip install --no-build-isolation 'mmcv>=2.0,<2.2'"
# What a config has to say for it to be a Segmenter that is fed as ours are.
REQUIRED = {
    "type": "EncoderDecoder",
    "backbone.type": "VisionTransformer",
    "decode_head.type": "SegmenterMaskTransformerHead",
    "data_preprocessor.bgr_to_rgb": True,
    "neck": None,
    "decode_head.input_transform": None,
}
PATCH_BIAS = "backbone.patch_embed.projection.bias"


class MaskHead(nn.Module):
    """mmsegmentation's mask transformer, called as our own is."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @property
    def num_classes(self) -> int:
        return cast(int, self.head.num_classes)

    def forward(self, x: Tensor, frozen: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Patches (B, N, C) -> class scores (B, N, K). RequestError for what the head has no means for."""
        if frozen is not None or valid is not None:
            what = "patches that were dropped" if frozen is not None else "images with different numbers of patches"
            raise RequestError(f"mmsegmentation's head cannot read {what}; use restore=before_decoder or per_block")
        # a map of one column: the head looks at no neighbours
        return self.head((x.transpose(1, 2).unsqueeze(3),)).squeeze(3).transpose(1, 2)


def load_mmseg(entry: ModelEntry, checkpoint: str, seed: int = 0) -> tuple[Segmenter, WeightsInfo]:
    """mmsegmentation's backbone and head as a Segmenter, and what its weights are.

    The entry's name is 'mmseg:' and the path of a config, which is Python and is run. `checkpoint`: 'none' (random
    weights from `seed`) or a file of mmsegmentation's. The digest covers the config's model too. Attention runs fused.
    Windows are as large as the images that the backbone was built for, side by side; where the config's own overlap,
    the source says so. Raises RequestError, one line, for whatever cannot be had or is no Segmenter.
    """
    config = entry.name.removeprefix(MMSEG_PREFIX)
    if checkpoint in ("pretrained", "embedded"):
        raise RequestError(f"model '{entry.name}' comes without weights; give mmsegmentation's file as the checkpoint")
    if reason := missing_operators():
        raise RequestError(f"model '{entry.name}' needs mmcv with compiled operators ({reason}): {INSTALL}")
    settings = read_settings(Path(config))
    if checkpoint == "none":
        model = build(config, settings, seed)
        kind, source, weights = "random", f"random:seed={seed}", state_dict_sha256(model.state_dict())
        remark = ""
    else:
        path, choice = split_choice(checkpoint)
        state, wrapper, others = read_state_dict(path, choice)
        if PATCH_BIAS in state:  # the release of today makes patches without one, unless told
            settings["backbone"].setdefault("patch_bias", True)
        model = build(config, settings, seed)
        check_fit(model.state_dict(), state, f"checkpoint '{path}' does not fit '{config}'", "give the config's own")
        model.load_state_dict(state)
        kind, source, weights = (
            "trained",
            f"{path}[{wrapper}]" if wrapper else str(path),
            Contents(files_of(path)).sha256(wrapper if choice or others else ""),
        )
        remark = say_choice_of(path, wrapper, others)
    described = json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(f"{weights} {described}".encode()).hexdigest()
    segmenter = as_segmenter(model, settings)
    source = f"{source} by {config}{windows_of(settings, segmenter.window)}"
    return segmenter, WeightsInfo(kind, source, digest, remark)


def missing_operators() -> str:
    """Why mmsegmentation's models cannot be imported, in one line; '' where they can."""
    try:
        import mmcv.ops  # noqa: F401
        import mmseg.models  # noqa: F401
    except (ImportError, AssertionError) as error:  # it asserts that it knows mmcv's release
        return one_line(error)
    return ""


def read_settings(path: Path) -> dict[str, Any]:
    """The `model` of a config. RequestError unless it is a Segmenter as `as_segmenter` takes it."""
    if not path.is_file():
        remedy = f"write {MMSEG_PREFIX}PATH of one of mmsegmentation's configs"
        raise RequestError(f"config '{path}' does not exist; {remedy}")
    try:
        settings = Config.fromfile(path)["model"].to_dict()
    except Exception as error:  # it is a program
        raise RequestError(f"config '{path}' cannot be read: {type(error).__name__}: {one_line(error)}") from error
    for field, value in REQUIRED.items():
        found = look_up(settings, field)
        if found != value:
            raise RequestError(f"config '{path}' is not supported: {field} is {found!r}, not {value!r}")
    for field in ("mean", "std"):
        if len(settings["data_preprocessor"].get(field) or ()) != 3:
            raise RequestError(f"config '{path}' is not supported: data_preprocessor.{field} is not three numbers")
    return settings


def build(config: str, settings: Mapping[str, Any], seed: int) -> nn.Module:
    """mmsegmentation's model with weights from `seed`; the caller's random state is left alone."""
    from mmseg.registry import MODELS

    settings = {**copy.deepcopy(settings), "data_preprocessor": None}  # images come prepared
    for part in (settings, settings["backbone"]):  # what training started from is not fetched
        part |= {"pretrained": None, "init_cfg": None}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model = MODELS.build(settings)
            for part in (model.backbone, model.decode_head):  # the whole would print a report of it
                part.init_weights()
        except Exception as error:  # whatever a config makes of its parts
            raise RequestError(f"config '{config}' cannot be built: {one_line(error)}") from error
    return model


def as_segmenter(model: nn.Module, settings: Mapping[str, Any]) -> Segmenter:
    """mmsegmentation's EncoderDecoder by the interface of ours, sharing its weights."""
    from suite.backbones.mmseg_vit import for_segmenter, use_fused_attention

    head, backbone = cast(nn.Module, model.decode_head), cast(Any, model.backbone)
    use_fused_attention(head)
    prepared = settings["data_preprocessor"]
    return Segmenter(
        for_segmenter(backbone),
        cast(Any, MaskHead(head)),
        {
            "input_size": (3, *backbone.img_size),
            "mean": tuple(value / 255 for value in prepared["mean"]),
            "std": tuple(value / 255 for value in prepared["std"]),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        },
    )


def windows_of(settings: Mapping[str, Any], window: tuple[int, int]) -> str:
    """What the config says of windows, where it is not `window`s side by side, as here; '' where it is."""
    test = settings.get("test_cfg") or {}
    if test.get("mode") != "slide":
        return ", meant for whole images"
    size, stride = tuple(test["crop_size"]), tuple(test["stride"])
    return "" if size == stride == window else f", meant for windows of {size} every {stride} pixels"
