"""mmsegmentation's own Segmenter: ours computes the same from its weights, and it runs through the same reducers.

Its models import only where mmcv has compiled operators. A Segmenter uses none of them, so where they are missing a
stand-in lets the import pass, and what runs is mmsegmentation's own code all the same.
"""

import importlib.util
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from suite import RequestError, attach
from suite.backbones import family_of
from suite.backbones.published_segmenter import PUBLISHED_SEGMENTER, PublishedSegmenter
from suite.backbones.segmenter import RESTORE, build_segmenter
from suite.checkpoint import load_model
from suite.measure.flops import count_flops, count_module
from suite.segmenter_files import from_mmseg
from suite.weights_file import check_fit

COMPILED = importlib.util.find_spec("mmcv._ext") is not None
NAME, SHAPE = "seg_test_mask_16", PublishedSegmenter(width=128, depth=4, heads=2, image_size=64, num_classes=5)


class StandIn(ModuleType):
    """Has whatever is imported from it; none of it does anything."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.fixture
def operators(monkeypatch):
    """For the length of a test mmcv has operators, or something in their place; mmsegmentation's models stay imported."""
    if not COMPILED:
        monkeypatch.setitem(sys.modules, "mmcv.ops", StandIn("mmcv.ops"))
    return importlib.import_module("mmseg.models")


@pytest.fixture(autouse=True)
def tiny_name(monkeypatch):
    monkeypatch.setitem(PUBLISHED_SEGMENTER, NAME, SHAPE)


def settings(shape=SHAPE, **changes) -> dict:
    """`model` of a config, as mmsegmentation's own Segmenters have it."""
    norm = {"type": "LN", "eps": 1e-6, "requires_grad": True}
    side = (shape.image_size, shape.image_size)
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [127.5] * 3,
            "std": [127.5] * 3,
            "bgr_to_rgb": True,
        },
        "pretrained": "https://nowhere.invalid/start.pth",
        "backbone": {
            "type": "VisionTransformer",
            "img_size": side,
            "embed_dims": shape.width,
            "num_layers": shape.depth,
            "num_heads": shape.heads,
            "drop_path_rate": 0.1,
            "final_norm": True,
            "norm_cfg": norm,
        },
        "decode_head": {
            "type": "SegmenterMaskTransformerHead",
            "in_channels": shape.width,
            "channels": shape.width,
            "num_classes": shape.num_classes,
            "num_layers": 2,
            "num_heads": shape.width // 64,
            "embed_dims": shape.width,
            "dropout_ratio": 0.0,
        },
        "test_cfg": {"mode": "slide", "crop_size": side, "stride": side},
        **changes,
    }


def write(folder, model: dict) -> str:
    (folder / "config.py").write_text(f"model = {model!r}\n")
    return f"mmseg:{folder / 'config.py'}"


def built(model: dict):
    """mmsegmentation's model with weights in which nothing is 0 or 1."""
    from mmseg.registry import MODELS

    torch.manual_seed(0)
    made = MODELS.build({**model, "pretrained": None, "data_preprocessor": None})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def saved(made, path: Path) -> str:
    """As mmengine's runner saves it."""
    torch.save({"meta": {"epoch": 0}, "state_dict": made.state_dict()}, path)
    return str(path)


def images(shape=SHAPE, count=2):
    torch.manual_seed(1)
    return torch.randn(count, 3, shape.image_size, shape.image_size)


def refused(match: str, *what) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        load_model(*what)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("patch_bias", [True, False])
@pytest.mark.parametrize("width", [128, 384])
def test_our_segmenter_on_mmsegmentations_weights_computes_what_mmsegmentation_does(
    operators, tmp_path, monkeypatch, width, patch_bias
):
    shape = PublishedSegmenter(width=width, depth=12, heads=width // 64, image_size=96, num_classes=150)
    monkeypatch.setitem(PUBLISHED_SEGMENTER, NAME, shape)
    model = settings(shape)
    model["backbone"]["patch_bias"] = patch_bias
    theirs, x = built(model), images(shape)
    ours, info = load_model(NAME, saved(theirs, tmp_path / "theirs.pth"))
    assert info.source == f"{tmp_path / 'theirs.pth'}[state_dict]"
    with torch.inference_mode():
        features, expected = theirs.backbone(x)[-1], theirs._forward(x)
        encoded = ours.backbone.forward_features(x)[:, 1:].transpose(1, 2).reshape(features.shape)
        assert (encoded - features).abs().max() < 1e-5 * features.abs().max()
        assert (ours.grid_logits(x) - expected).abs().max() < 1e-5 * expected.abs().max()


CONFIGS = {
    "seg_tiny_mask_16": "segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py",
    "seg_small_mask_16": "segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py",
    "seg_base_mask_16": "segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py",
    "seg_large_mask_16": "segmenter_vit-l_mask_8xb1-160k_ade20k-512x512.py",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_published_shapes_are_those_of_mmsegmentations_own_configs(operators, name):
    from mmengine import Config
    from mmseg.registry import MODELS

    folder = Path(importlib.util.find_spec("mmseg").origin).parent / ".mim" / "configs" / "segmenter"
    config = Config.fromfile(folder / CONFIGS[name])
    config.model.update(pretrained=None, data_preprocessor=None)
    shape = PUBLISHED_SEGMENTER[name]
    assert config.model.backbone.num_heads == shape.heads
    with torch.device("meta"):
        theirs, ours = MODELS.build(config.model), build_segmenter(**asdict(shape))
    state = from_mmseg(theirs.state_dict())
    check_fit(ours.state_dict(), state, name, "")
