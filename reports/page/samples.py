"""Per-sample outcomes as a page holds them: compact, and cut to what fits where a data set is large."""

from __future__ import annotations

from typing import Any

import numpy as np

from reports.page.outcomes import CAPTIONS, LABELS, Outcomes
from reports.page.packing import finite, pack_json
from reports.page.pairs import Pairs

BUDGET = 5_000_000  # characters, packed
DIGITS = 4  # of p and of interval ends, beyond what is shown


def comparison_data(outcomes: Outcomes, pairs: Pairs, places: dict[str, int]) -> dict[str, Any]:
    """Numbers of all pairs and, of as many samples as fit, what every cell made of them.

    places: key of a cell -> its place among the page's cells. Scores and intervals are as people read them.
    """
    scale = outcomes.metric.scale
    return {
        "kind": outcomes.kind,
        "cells": [places[key] for key in outcomes.keys],
        "label": outcomes.metric.label,
        "test": pairs.test,
        "interval": pairs.interval,
        "n": len(outcomes.ids),
        "value": _rounded(scale * pairs.value),
        "low": _rounded(scale * pairs.low),
        "high": _rounded(scale * pairs.high),
        "p": [float(f"{p:.{DIGITS}g}") for p in finite(pairs.p.tolist())],
        "onlyA": pairs.only_a.tolist(),
        "onlyB": pairs.only_b.tolist(),
    }


def packed_samples(outcomes: Outcomes, budget: int = BUDGET) -> tuple[str, int]:
    """The samples in the order of how much cells differ on them, packed, and how many they are.

    Where all are more than `budget` characters, the latter half is left out until the rest fits.
    """
    order = np.argsort(-outcomes.interest, kind="stable")
    while True:
        packed = pack_json(sample_data(outcomes, order))
        if len(packed) <= budget or len(order) <= 1:
            return packed, len(order)
        order = order[: len(order) // 2]


def sample_data(outcomes: Outcomes, order: np.ndarray) -> dict[str, Any]:
    """ids, truth and, per sample, what each cell said and scored; texts stand once, in `texts`."""
    data: dict[str, Any] = {"ids": [outcomes.ids[i] for i in order]}
    if outcomes.kind == CAPTIONS and outcomes.said is not None and outcomes.truth is not None:
        texts: dict[str, int] = {}
        said = [[texts.setdefault(cell[i], len(texts)) for cell in outcomes.said] for i in order]
        truth = [[texts.setdefault(text, len(texts)) for text in outcomes.truth[i]] for i in order]
        data |= {"said": said, "truth": truth, "texts": list(texts)}
    elif outcomes.said is not None:
        data["said"] = np.array(outcomes.said).T[order].tolist()
        data["truth"] = None if outcomes.truth is None else [outcomes.truth[i] for i in order]
    if outcomes.kind == LABELS:  # right is what the truth holds
        return data
    return data | {"score": outcomes.shown.T[order].tolist()}


def _rounded(values: np.ndarray) -> list[float | None]:
    rounded: list[float | None] = finite(np.round(values, DIGITS).tolist())
    return rounded
