"""Models known by name beside timm's: what they are built of, and how their authors' weights files are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from suite.backbones.lv_vit import LVViT
from suite.backbones.mae import MaeViT
from suite.backbones.t2t_vit import T2TViT


@dataclass(frozen=True)
class Published:
    """model(**shape) is the architecture; crop_pct its evaluation's crop, of images in ImageNet's mean and deviation.

    home: where its authors give weights away, for messages. prefixes: beginnings of their parameter names that differ
    -> ours. wrapper: where a file has several state dicts, the one that their evaluation uses ('' for the usual order).
    """

    model: Callable[..., nn.Module]
    shape: Mapping[str, Any]
    crop_pct: float
    home: str
    prefixes: Mapping[str, str] = field(default_factory=dict)
    wrapper: str = ""

    def build(self, **options: Any) -> nn.Module:
        """With random weights; `options` (num_classes, img_size) override the shape."""
        model = self.model(**{**self.shape, **options})
        model.default_cfg = model.pretrained_cfg = {
            "input_size": (3, 224, 224),
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "crop_pct": self.crop_pct,
            "interpolation": "bicubic",
            "num_classes": model.num_classes,
        }
        return model

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state dict by our names, from one by the authors' or by ours."""
        return {self._name(key): value for key, value in state.items()}

    def _name(self, key: str) -> str:
        old = next((prefix for prefix in self.prefixes if key.startswith(prefix)), "")
        return self.prefixes[old] + key.removeprefix(old) if old else key


def _lv_vit(**shape: Any) -> Published:
    return Published(LVViT, shape, crop_pct=0.9, home="github.com/zihangJiang/TokenLabeling")


def _t2t_vit(**shape: Any) -> Published:
    home, prefixes = "github.com/yitu-opensource/T2T-ViT", {"tokens_to_token.": "patch_embed."}
    return Published(T2TViT, shape, crop_pct=0.9, home=home, prefixes=prefixes, wrapper="state_dict_ema")


def _mae(**shape: Any) -> Published:
    return Published(MaeViT, shape, crop_pct=0.875, home="github.com/facebookresearch/mae (fine-tuned)")


PUBLISHED: dict[str, Published] = {
    "lvvit_s": _lv_vit(embed_dim=384, depth=16, num_heads=6),
    "t2t_vit_14": _t2t_vit(embed_dim=384, depth=14, num_heads=6),
    "t2t_vit_t_14": _t2t_vit(embed_dim=384, depth=14, num_heads=6, stem="transformer"),
    "mae_vit_base_patch16": _mae(patch_size=16, embed_dim=768, depth=12, num_heads=12),
    "mae_vit_large_patch16": _mae(patch_size=16, embed_dim=1024, depth=24, num_heads=16),
    "mae_vit_huge_patch14": _mae(patch_size=14, embed_dim=1280, depth=32, num_heads=16),
}
