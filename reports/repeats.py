"""Cells that repeat another with other random draws: of the method itself, or of its training.

The one with the first seed stands for all of them in tables, figures and pages, with what the others came to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from suite.contract.metric import Metric
from suite.stats import student_interval

SEED = "seed"
"""The option of a method that its draws follow from."""
LEAST = 3
"""Seeds that an interval is made of."""


def mark_repeats(frame: pd.DataFrame, abouts: Mapping[str, dict[str, Any]], headline: Metric) -> None:
    """Fill `repeat_of`, and on the rows that others repeat `seeds`, their number, and their mean with its interval.

    abouts: what cell.json says, by key. Repeats differ in the method's option `seed` or in the seed of a training that
    was otherwise the same (`training` of `reducer_weights`), and in nothing else but scores and what follows from them.
    """
    alike: dict[str, list[tuple[tuple[int, int], str]]] = {}
    for key, about in abouts.items():
        options, weights = dict(about.get("options") or {}), about.get("reducer_weights") or {}
        seeds = int(options.pop(SEED, -1)), int(weights.get(SEED, -1))
        trained = weights.get("training") or weights.get("sha256")
        what = [about["reducer"], options, about.get("rate"), trained, about.get("batch_size"), about.get("precision")]
        alike.setdefault(json.dumps(what, sort_keys=True), []).append((seeds, key))
    for found in alike.values():
        first, *others = (key for _, key in sorted(found))
        if not others:
            continue
        frame.loc[others, "repeat_of"] = first
        values = frame.loc[[first, *others], headline.name].dropna()
        frame.loc[first, "seeds"], frame.loc[first, "seeds_mean"] = len(values), values.mean()
        if len(values) >= LEAST:
            frame.loc[first, ["seeds_low", "seeds_high"]] = student_interval(values)


def without_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand for themselves."""
    return frame[frame.repeat_of.fillna("") == ""]
