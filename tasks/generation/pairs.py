"""How far pictures are from those of the same samples that another model drew."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

AT_ONCE = 16  # pictures that are compared together
SCALES_NEED = 161  # pixels of a side: five scales with a window of 11 on the coarsest

Measure = Callable[[Tensor, Tensor], Tensor]
"""(B, 3, H, W) pairs in [0, 1] -> (B,)."""


def png(levels: np.ndarray) -> bytes:
    """(3, H, W) uint8 as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(levels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def read_png(data: bytes) -> np.ndarray:
    """(3, H, W) float64 in [0, 1] of a PNG file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float).transpose(2, 0, 1) / 255


def paired(rows: pd.DataFrame, further: Mapping[str, Measure]) -> pd.DataFrame | None:
    """Of rows that have the unreduced model's picture beside them: id, and how far each is from that. None without.

    mse: on [0, 1]. ssim: of windows of 11 pixels (Wang et al., 2004). ms_ssim: on five scales (Wang et al., 2003), of
    pictures that are large enough. Both are left out where torchmetrics is not installed. further: other measures.
    """
    if "unreduced_picture" not in rows:
        return None
    both = rows[rows["unreduced_picture"].notna()].reset_index(drop=True)
    if both.empty:
        return None
    found: dict[str, list[Tensor]] = {}
    for pictures, others in _batches(both):
        measures: dict[str, Measure] = {"mse": _squared, **similarities(min(pictures.shape[2:])), **further}
        for name, measure in measures.items():
            found.setdefault(name, []).append(measure(pictures, others).double())
    return pd.DataFrame({"id": both["id"], **{name: torch.cat(parts).numpy() for name, parts in found.items()}})


def _batches(both: pd.DataFrame) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(both), AT_ONCE):
        part = both.iloc[start : start + AT_ONCE]
        sides = (np.stack([read_png(data) for data in part[name]]) for name in ("picture", "unreduced_picture"))
        first, second = map(torch.from_numpy, sides)
        yield first, second


def _squared(first: Tensor, second: Tensor) -> Tensor:
    return ((first - second) ** 2).mean((1, 2, 3))


@cache
def similarities(side: int) -> dict[str, Measure]:
    """SSIM, and of pictures whose shorter side is long enough MS-SSIM; none where torchmetrics is not installed."""
    try:
        from torchmetrics.functional import image
    except ImportError:
        return {}

    def by(function: Callable[..., Tensor | tuple[Tensor, ...]]) -> Measure:
        def measure(first: Tensor, second: Tensor) -> Tensor:
            # a CPU convolves float64 ten times as slowly, and these differ by 2e-6
            value = function(first.float(), second.float(), data_range=1.0, reduction="none")
            return (value if isinstance(value, Tensor) else value[0]).reshape(len(first))

        return measure

    found = {"ssim": by(image.structural_similarity_index_measure)}
    if side >= SCALES_NEED:
        found["ms_ssim"] = by(image.multiscale_structural_similarity_index_measure)
    return found
