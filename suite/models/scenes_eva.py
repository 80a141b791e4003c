"""The embedded model of rotary position embedding: for the embedded scenes, DINOv3-like but narrow."""

from __future__ import annotations

from functools import partial

from timm.layers import LayerNorm
from timm.models.eva import Eva

from suite.models.scenes_vit import SCENES_CLASSES, SCENES_SIDE, describe_scenes_model


def build_scenes_eva(num_classes: int = SCENES_CLASSES, img_size: int = SCENES_SIDE) -> Eva:
    """An `Eva` with random weights: 14 x 14 patches, a class token, 4 registers. Images as for `build_scenes_vit`.

    Positions are known by rotations alone: those of DINOv3 (arXiv 2508.10104), two halves, temperature 100. Width 96, 3
    heads, 12 blocks with LayerScale, no bias on queries, keys and values; 1.4 M parameters.
    """
    model = Eva(
        img_size=img_size,
        patch_size=8,
        embed_dim=96,
        depth=12,
        num_heads=3,
        num_classes=num_classes,
        global_pool="token",
        qkv_bias=False,
        init_values=1.0,
        num_reg_tokens=4,
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_type="dinov3",
        rope_temperature=100.0,
        rope_rotate_half=True,
        norm_layer=partial(LayerNorm, eps=1e-6),
    )
    describe_scenes_model(model, num_classes)
    return model
