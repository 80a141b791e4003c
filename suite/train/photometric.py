"""Photometric distortion of images, as detectors and segmenters are trained with it."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

BRIGHTNESS, GAIN, HUE = 32, (0.5, 1.5), 18 * 256 / 180


def distorted(image: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue changed at random, each half of the time.

    (3, H, W) RGB in [0, 255], float32; so is what it returns. Source: Liu et al., SSD (ECCV 2016), as
    mmsegmentation has it: brightness by up to 32, contrast and saturation by 0.5 to 1.5, hue by up to 18 degrees of
    180, and contrast before or after the colours.
    """
    early = random.random() < 0.5
    if coin():
        image = (image + random.uniform(-BRIGHTNESS, BRIGHTNESS)).clamp(0, 255)
    if early:
        image = contrasted(image)
    image = recoloured(image)
    return image if early else contrasted(image)


def contrasted(image: Tensor) -> Tensor:
    return (image * random.uniform(*GAIN)).clamp(0, 255) if coin() else image


def recoloured(image: Tensor) -> Tensor:
    """Saturation and hue."""
    gain = random.uniform(*GAIN) if coin() else 1.0
    turn = round(random.uniform(-HUE, HUE)) if coin() else 0
    if gain == 1.0 and turn == 0:
        return image
    pixels = Image.fromarray(image.round().byte().permute(1, 2, 0).numpy())
    hue, saturation, value = np.moveaxis(np.array(pixels.convert("HSV")), 2, 0)
    hue = (hue.astype(np.int64) + turn) % 256
    saturation = (saturation * gain).clip(0, 255)
    changed = Image.merge("HSV", [Image.fromarray(part.astype(np.uint8)) for part in (hue, saturation, value)])
    return torch.from_numpy(np.array(changed.convert("RGB"))).permute(2, 0, 1).float()


def coin() -> bool:
    return random.random() < 0.5
