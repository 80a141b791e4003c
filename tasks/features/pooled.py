"""The pooled feature of an image: what a model gives its classifier."""

from __future__ import annotations

from typing import cast

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

NEEDED = ("forward_features", "forward_head")


def has_features(model: nn.Module) -> bool:
    """Whether the model says what its classifier is given, as timm's models do."""
    return all(hasattr(model, name) for name in NEEDED)


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """(B, C) features of images (B, 3, H, W), from one forward: the class token or the pooled patches, normed as the
    model norms them before its classifier."""
    timm_model = cast(VisionTransformer, model)  # or one with the same two methods
    return timm_model.forward_head(timm_model.forward_features(images), pre_logits=True)
