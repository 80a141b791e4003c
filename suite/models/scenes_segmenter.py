"""The embedded segmentation model: a small Segmenter (`suite.backbones.segmenter`) for the embedded scenes.

Its encoder has the shape of the embedded classifier: 12 blocks, width 96, 14 x 14 patches and a class token.
"""

from __future__ import annotations

from suite.backbones.segmenter import Segmenter, build_segmenter
from suite.models.scenes_vit import SCENES_CLASSES, SCENES_SIDE

SCENES_LABELS = SCENES_CLASSES + 1  # of pixels: 0 = background, 1 + class of the object that is seen


def build_scenes_segmenter() -> Segmenter:
    """A `Segmenter` with random weights: (B, 3, 112, 112) to (B, 49, 112, 112). 1.6 M parameters.

    Inputs are RGB in [0, 1], normalised with mean = std = 0.5 and not resized; one scene is one window.
    """
    return build_segmenter(
        image_size=SCENES_SIDE,
        patch_size=8,
        width=96,
        depth=12,
        heads=3,
        num_classes=SCENES_LABELS,
        decoder_depth=2,
        decoder_heads=3,
    )
