"""Segmenters known by name: the shapes of published ones on ADE20K, and those that come with the suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOME = "github.com/rstrudel/segmenter"  # where its authors give weights away, for messages
WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class PublishedSegmenter:
    """Shape of the encoder, timm's vit_*_patch16_384; the decoder has its width, and heads of 64 channels.

    image_size: side in pixels of the windows that an image is cut into.
    """

    width: int
    depth: int
    heads: int
    image_size: int = 512
    patch_size: int = 16
    num_classes: int = 150
    decoder_depth: int = 2


PUBLISHED_SEGMENTER: dict[str, PublishedSegmenter] = {
    "seg_tiny_mask_16": PublishedSegmenter(width=192, depth=12, heads=3),
    "seg_small_mask_16": PublishedSegmenter(width=384, depth=12, heads=6),
    "seg_base_mask_16": PublishedSegmenter(width=768, depth=12, heads=12),
    "seg_large_mask_16": PublishedSegmenter(width=1024, depth=24, heads=16, image_size=640),
}
# Name -> (module:function that builds the model, its weights file).
EMBEDDED_SEGMENTER: dict[str, tuple[str, Path]] = {
    "scenes_segmenter": (
        "suite.models.scenes_segmenter:build_scenes_segmenter",
        WEIGHTS / "scenes_segmenter.safetensors",
    ),
}
