"""How alike a block's candidate pairs are by keys and by a learned embedding, and whether the two rank them alike."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau
from torch import Tensor

from suite.attachment.handle import Handle
from suite.tokens.grouping import full_precision


def candidate_similarities(metric: Tensor, protected: int) -> Tensor:
    """Cosine of every pair that the bipartite split lets merge, (B, N, D) -> (B, |A|·|B|).

    A: tokens at even positions, B: those at odd ones, without the `protected` first.
    """
    metric = F.normalize(full_precision(metric), dim=-1, eps=1e-12)
    first = protected % 2  # what is protected may end at either parity
    a, b = metric[:, protected + first :: 2], metric[:, protected + 1 - first :: 2]
    return (a @ b.transpose(1, 2)).flatten(1)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b of two rankings (n,); NaN where one of them ranks nothing (fewer than two pairs, all equal)."""
    return float(kendalltau(first, second, variant="b", method="asymptotic").statistic) if len(first) > 1 else np.nan


def correlations(handle: Handle, images: Tensor) -> np.ndarray:
    """Tau of every image in every block, (B, depth); NaN in blocks where nothing is merged.

    handle: DTEM at a rate, in evaluation, not attached. images: (B, 3, H, W). The tokens are those that each block
    really sees: those that the blocks before it left, merged by the embedding.
    """
    found = np.full((len(images), handle.layout.depth), np.nan)

    def note(reducer: object, arguments: tuple, merged: object) -> None:
        _, tokens, signals, _ = arguments
        rankings = [
            candidate_similarities(metric, tokens.num_prefix).cpu().double().numpy()
            for metric in (signals.keys, signals.extra)
        ]
        found[:, signals.block] = [rank_correlation(keys, own) for keys, own in zip(*rankings)]

    hook = handle.reducer.register_forward_hook(note)
    try:
        with torch.inference_mode(), handle:
            handle.encode(handle.model, images)
    finally:
        hook.remove()
        handle.forget()
    return found
