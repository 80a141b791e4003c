"""The embedded model: a 12-block, class-token Vision Transformer for the embedded scenes, DeiT-like but narrow."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer

SCENES_CLASSES = 48
SCENES_SIDE = 112
SCENES_MEAN = SCENES_STD = (0.5, 0.5, 0.5)


def build_scenes_vit(num_classes: int = SCENES_CLASSES, img_size: int = SCENES_SIDE) -> VisionTransformer:
    """A `VisionTransformer` with random weights: input (B, 3, 112, 112), 14 x 14 patches + class token = 197 tokens.

    Inputs are RGB in [0, 1], normalised with mean = std = 0.5 and not resized. Width 96, 3 heads, 1.4 M parameters.
    """
    model = VisionTransformer(
        img_size=img_size,
        patch_size=8,
        embed_dim=96,
        depth=12,
        num_heads=3,
        num_classes=num_classes,
    )
    describe_scenes_model(model, num_classes)
    return model


def describe_scenes_model(model: Any, num_classes: int) -> None:
    """Write how its images are prepared where timm's models have it."""
    model.default_cfg = {
        "input_size": (3, SCENES_SIDE, SCENES_SIDE),
        "mean": SCENES_MEAN,
        "std": SCENES_STD,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "num_classes": num_classes,
    }
    model.pretrained_cfg = model.default_cfg
