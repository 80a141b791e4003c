"""How far pictures are from those of the same samples that another model drew."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor


def png(levels: np.ndarray) -> bytes:
    """(3, H, W) uint8 as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(levels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def read_png(data: bytes) -> np.ndarray:
    """(3, H, W) float64 in [0, 1] of a PNG file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float).transpose(2, 0, 1) / 255


def paired(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Of rows that have the unreduced model's beside them: id, and how far each picture is from that one. None without.

    mse: on [0, 1]. ssim: of windows of 11 pixels (Wang et al., 2004), left out where torchmetrics is not installed.
    feature_distance: 1 - cosine. changed: the judge takes it for something else.
    """
    if "unreduced_picture" not in rows:
        return None
    both = rows[rows["unreduced_picture"].notna()]
    if both.empty:
        return None
    pictures, others = (np.stack([read_png(data) for data in both[name]]) for name in ("picture", "unreduced_picture"))
    features, known = (np.stack(both[name].tolist()).astype(float) for name in ("features", "unreduced_features"))
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(known, axis=1)
    found = {
        "id": both["id"],
        "mse": ((pictures - others) ** 2).mean((1, 2, 3)),
        "feature_distance": (1 - (features * known).sum(1) / norms.clip(min=1e-12)).clip(min=0),
        "changed": (both["prediction"] != both["unreduced_prediction"]).to_numpy(bool),
    }
    if (ssim := ssim_function()) is not None:
        found["ssim"] = ssim(torch.from_numpy(pictures), torch.from_numpy(others)).numpy()
    return pd.DataFrame(found)


@cache
def ssim_function() -> Callable[[Tensor, Tensor], Tensor] | None:
    """(B, 3, H, W) pairs in [0, 1] -> (B,); None where torchmetrics is not installed."""
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        return None

    def ssim(first: Tensor, second: Tensor) -> Tensor:
        value = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
        return value if isinstance(value, Tensor) else value[0]

    return ssim
