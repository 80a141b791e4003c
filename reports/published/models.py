"""Models as papers print them, and what they are called here."""

from __future__ import annotations


def _each(names: str, model: str) -> dict[str, str]:
    return dict.fromkeys(names.split(", "), model)


AUGREG = "augreg_in21k_ft_in1k"
SWAG = "!SWAG's checkpoints have no loader here"
# "name@side": images of that side; "!...": why there is no such model here.
MODELS = {
    **_each("DeiT-T, DeiT-Ti, DeiT-Ti/16", "deit_tiny_patch16_224"),
    **_each("DeiT-S, DeiT-S/16, ViT-S (DeiT)", "deit_small_patch16_224"),
    **_each("DeiT-B, ViT-B (DeiT)", "deit_base_patch16_224"),
    **_each("MAE-B, ViT-B (MAE), ViT-B MAE, ViT-B/16 MAE, ViT-B-MAE", "mae_vit_base_patch16"),
    **_each("MAE-L, ViT-L (MAE), ViT-L MAE, ViT-L/16 MAE, ViT-L-MAE", "mae_vit_large_patch16"),
    **_each("ViT-H (MAE), ViT-H MAE, ViT-H/14 MAE", "mae_vit_huge_patch14"),
    **_each("ViT-S AugReg, ViT-S/16 AugReg (timm), ViT-S-21K", f"vit_small_patch16_224.{AUGREG}"),
    **_each("ViT-B AugReg, ViT-B/16 AugReg (timm)", f"vit_base_patch16_224.{AUGREG}"),
    **_each("ViT-L AugReg, ViT-L/16 AugReg, ViT-L/16 AugReg (timm)", f"vit_large_patch16_224.{AUGREG}"),
    "ViT-L/16 @384 AugReg (timm)": f"vit_large_patch16_384.{AUGREG}",
    "ViT-S": "vit_small_patch16_224.augreg_in1k",
    "ViT-B-DINO": "vit_base_patch16_224.dino",
    "DINOv2-B/14": "vit_base_patch14_dinov2@224",
    "LV-ViT-S": "lvvit_s",
    **_each("Stable Diffusion v1.5, Stable Diffusion", "stable-diffusion-v1-5"),
    "Seg-S-Mask/16": "seg_small_mask_16",
    "Seg-L-Mask/16 (640x640)": "seg_large_mask_16",
    **_each("ViT-B/16 @384 SWAG, ViT-L/16 @512 SWAG, ViT-H/14 @518 SWAG", SWAG),
}


def printed_names(model: str) -> set[str]:
    """How papers call `model`. Tags (`.augreg_in1k`) are compared where both sides have one."""
    base, _, tag = model.partition(".")
    named = {printed: name.partition(".") for printed, name in MODELS.items() if name[0] != "!" and "@" not in name}
    return {printed for printed, (own, _, its) in named.items() if own == base and (not tag or not its or tag == its)}
