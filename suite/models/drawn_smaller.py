"""Pictures that are drawn smaller and enlarged: what a method that shrinks images is where a model draws."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suite.backbones.branched import ReducedDenoiser


def smaller_noise(denoiser: nn.Module, noise: Tensor) -> Tensor:
    """What is drawn from in place of noise (B, C, H, W): its lowest frequencies, as standard normal as it is itself.

    A picture and what is drawn smaller in its place are alike in what is coarse, which follows from these. Equal to
    `noise` where no attached method makes images smaller. Each sample by itself: it does not depend on its batch.
    """
    own = int(noise.shape[-2]), int(noise.shape[-1])
    size = denoiser.drawn_size(own) if isinstance(denoiser, ReducedDenoiser) else own
    if size == own:
        return noise
    down, across = (
        (waves(few, noise.device).T @ waves(many, noise.device)[:few]).to(noise.dtype)
        for few, many in zip(size, own, strict=True)
    )
    return torch.stack([down @ one @ across.T for one in noise])


def waves(count: int, device: torch.device) -> Tensor:
    """(count, count) float64: the orthonormal cosines of the DCT-II, a frequency a row."""
    steps = torch.arange(count, dtype=torch.float64, device=device)
    table = torch.cos(math.pi / count * (steps + 0.5) * steps[:, None]) * math.sqrt(2 / count)
    table[0] = math.sqrt(1 / count)
    return table


def enlarged(pictures: Tensor, drawn_from: Tensor, noise: Tensor) -> Tensor:
    """Pictures (B, 3, h, w) in [-1, 1], drawn from smaller noise, as large as if drawn from `noise`; bicubic."""
    if drawn_from.shape == noise.shape:
        return pictures
    height, width = (
        own * all // part
        for own, all, part in zip(pictures.shape[-2:], noise.shape[-2:], drawn_from.shape[-2:], strict=True)
    )
    return F.interpolate(pictures, (height, width), mode="bicubic", align_corners=False).clamp(-1, 1)
