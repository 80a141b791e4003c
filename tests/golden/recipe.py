"""Deterministic weights and images behind the reference outputs; numpy only.

Every draw comes from PCG64(SEED + offset) in float64 and is cast to float32 at the end. Weights (offset 0) are drawn
from one generator in plain string order of their timm names. Images: offset 1 (noise), offset 3 (smooth).
"""

import hashlib

import numpy as np

SEED = 20260
QKV_STD = 0.08
OTHER_STD = 0.02
TINY = "deit_tiny_patch16_224"
SHAPES = {  # width, depth, classes, side of a patch and of the image
    TINY: (192, 12, 1000, 16, 224),
    "deit_small_patch16_224": (384, 12, 1000, 16, 224),
    "vit_mini_patch8_64": (48, 4, 10, 8, 64),
    "vit_5x5_c48": (48, 4, 10, 8, 40),
    "vit_7x7_c64": (64, 6, 10, 8, 56),
}
SHARPER = ("vit_5x5_c48", "vit_7x7_c64")  # qkv of twice the deviation, so that attention is not flat


def rng(offset):
    return np.random.Generator(np.random.PCG64(SEED + offset))


def shapes(model):
    d, depth, classes, patch, image = SHAPES[model]
    out = {
        "cls_token": (1, 1, d), "pos_embed": (1, (image // patch) ** 2 + 1, d),
        "patch_embed.proj.weight": (d, 3, patch, patch), "patch_embed.proj.bias": (d,),
        "norm.weight": (d,), "norm.bias": (d,), "head.weight": (classes, d), "head.bias": (classes,),
    }  # fmt: skip
    per_block = {
        "norm1.weight": (d,), "norm1.bias": (d,), "norm2.weight": (d,), "norm2.bias": (d,),
        "attn.qkv.weight": (3 * d, d), "attn.qkv.bias": (3 * d,), "attn.proj.weight": (d, d), "attn.proj.bias": (d,),
        "mlp.fc1.weight": (4 * d, d), "mlp.fc1.bias": (4 * d,), "mlp.fc2.weight": (d, 4 * d), "mlp.fc2.bias": (d,),
    }  # fmt: skip
    return out | {f"blocks.{block}.{name}": shape for block in range(depth) for name, shape in per_block.items()}


def weights(model):
    """{timm name: float32 array}; loads into timm's model with strict=True."""
    generator, out = rng(0), {}
    wanted, qkv_std = shapes(model), QKV_STD * (1 + (model in SHARPER))
    for name in sorted(wanted):  # blocks.1. < blocks.10. < blocks.2.
        z = generator.standard_normal(size=wanted[name])
        if name.endswith(".weight") and z.ndim == 1:  # LayerNorm gain
            out[name] = (1.0 + 0.1 * z).astype(np.float32)
        else:
            out[name] = ((qkv_std if name.endswith("attn.qkv.weight") else OTHER_STD) * z).astype(np.float32)
    return out


def noise(model=TINY):
    *_, side = SHAPES[model]
    return rng(1).standard_normal((2, 3, side, side)).astype(np.float32)


def smooth(model=TINY):
    *_, patch, side = SHAPES[model]
    generator, cells = rng(3), side // patch
    field = generator.standard_normal((2, 3, cells, cells))
    for axis in (2, 3):
        for _ in range(2):  # binomial blur, periodic
            field = 0.25 * np.roll(field, 1, axis) + 0.5 * field + 0.25 * np.roll(field, -1, axis)
    field = field - field.mean(axis=(2, 3), keepdims=True)
    field = field / field.std(axis=(2, 3), keepdims=True)
    place = (np.arange(side) + 0.5) / patch - 0.5  # bilinear, half-pixel centres, clamped border
    low = np.clip(np.floor(place).astype(int), 0, cells - 1)
    high = np.clip(low + 1, 0, cells - 1)
    t = np.clip(place - low, 0.0, 1.0)
    rows = field[:, :, low, :] * (1 - t)[None, None, :, None] + field[:, :, high, :] * t[None, None, :, None]
    image = rows[:, :, :, low] * (1 - t)[None, None, None, :] + rows[:, :, :, high] * t[None, None, None, :]
    return (image + 0.05 * generator.standard_normal(image.shape)).astype(np.float32)


def digest(arrays):
    """sha256 over sorted names: name bytes, then little-endian float32 bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def canonical_partition(owner):
    """(B, N0) owner map with labels numbered by first appearance (-1 = dropped): equal for equal groupings."""
    out = np.full(owner.shape, -1, dtype=np.int64)
    for sample, row in enumerate(owner):
        seen = {}
        for token, place in enumerate(row):
            if place >= 0:
                out[sample, token] = seen.setdefault(int(place), len(seen))
    return out
