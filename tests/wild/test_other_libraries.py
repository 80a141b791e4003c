"""What docs/other_libraries.md tells people to write runs, and does what it says."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.unit.test_mmseg_models import COMPILED, StandIn

PAGE = (Path(__file__).parents[2] / "docs" / "other_libraries.md").read_text(encoding="utf-8")
TRAINER, BACKBONE = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.slow
def test_transformers_trainer_trains_and_saves_a_reducer_with_its_model(tmp_path):
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate, which is not installed")
    generator = torch.Generator().manual_seed(0)
    examples = [{"pixel_values": torch.randn(3, 32, 32, generator=generator), "labels": i % 3} for i in range(8)]
    names = {"folder": str(tmp_path), "examples": examples}
    exec(TRAINER, names)
    handle, trainer = names["handle"], names["trainer"]
    assert handle.token_counts == handle.planned_counts  # of the evaluation: as planned, and fewer than entered
    assert handle.token_counts[-1] < handle.layout.tokens
    untrained = names["attach"](
        names["timm"].create_model("vit_tiny_patch16_224", img_size=32, patch_size=8), "dtem", "r=2"
    )
    assert not torch.equal(handle.reducer.embeddings[0].weight, untrained.reducer.embeddings[0].weight)
    trainer.save_model(tmp_path / "saved")
    saved = import_module("safetensors.torch").load_file(tmp_path / "saved" / "model.safetensors")
    assert torch.equal(saved["reducer.embeddings.0.weight"], handle.reducer.embeddings[0].weight)


@pytest.mark.filterwarnings("ignore::UserWarning:mmseg", "ignore::UserWarning:mmcv")
@torch.no_grad()
def test_a_timm_model_with_a_reducer_is_a_backbone_of_mmsegmentation(monkeypatch):
    if not COMPILED:
        monkeypatch.setitem(sys.modules, "mmcv.ops", StandIn("mmcv.ops"))
    import_module("mmseg.models")
    names, images = {}, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exec(BACKBONE, names)
    models = names["MODELS"]
    try:
        for reducer, rate in (("none", None), ("tome", "r=2"), ("evit", "keep=0.7")):
            backbone = {"type": "ReducedViT", "model": "vit_tiny_patch16_224", "reducer": reducer, "rate": rate}
            head = {
                "type": "FCNHead",
                "in_channels": 192,
                "channels": 8,
                "num_classes": 5,
                "in_index": 0,
                "num_convs": 1,
            }
            torch.manual_seed(0)
            model = models.build(
                {"type": "EncoderDecoder", "backbone": {**backbone, "img_size": 64, "depth": 4}, "decode_head": head}
            ).eval()
            assert model.encode_decode(images, [{"img_shape": (64, 64)}] * 2).shape == (2, 5, 64, 64)
            handle, (features,) = model.backbone.handle, model.backbone(images)
            assert handle.token_counts == handle.planned_counts
            handle.detach()
            unreduced = model.backbone.vit.forward_features(images)[:, 1:].transpose(1, 2).reshape(features.shape)
            assert torch.equal(features, unreduced) == (reducer == "none")
    finally:
        models._module_dict.pop("ReducedViT")
