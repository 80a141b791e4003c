"""What a method would reach that chose among its rates by the image: a bound, for that choice knows the answer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.groups import groups
from reports.page.outcomes import load_outcomes
from reports.pareto.points import FLOPS, series_of, valid_points
from reports.text.wording import is_untrained
from suite.stats import Floats
from suite.stats.aggregates import Mean, Share

ORACLE = "oracle"
DEFINED = "per image the best of the method's rates up to the row's cost, the cheapest of equals"


def mark_oracle(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with `oracle` and `oracle_gmacs` filled: of every method at several rates, what `best_by_image` says.

    Only of headlines that are means over samples; n/a stays for others, such as mIoU, and for random weights.
    """
    marked = frame.copy()
    for part in groups(frame):
        made_of = part.headline.aggregate
        if part.random_weights or made_of is None or made_of.kind not in (Share.kind, Mean.kind):
            continue
        if (outcomes := load_outcomes([part])) is None or outcomes.metric != part.headline:
            continue
        place = {key: number for number, key in enumerate(outcomes.keys)}
        for (_, _, training), rows in series_of(valid_points(part, FLOPS)[0]).items():
            rows = rows[rows.index.isin(place)].sort_values("gmacs", kind="stable")
            if len(rows) > 1 and not is_untrained(training):
                score = np.nan_to_num(outcomes.score[[place[key] for key in rows.index]])
                found = best_by_image(score, rows.gmacs.to_numpy(), part.headline.sign)
                marked.loc[rows.index, [ORACLE, f"{ORACLE}_gmacs"]] = np.stack(found, axis=1)
    return marked


def best_by_image(score: Floats, cost: Floats, sign: int = 1) -> tuple[Floats, Floats]:
    """(mean score, mean cost), (k,) each, of a choice for every image among the first 1, 2, ..., k of the rates.

    The choice is the rate with the best score on the image, and of equals the cheapest: what no choice by the image can
    surpass. The means are those of the chosen rates.

    Args:
        score: (k, n) of k rates on n images. cost: (k,) ascending. sign: 1 where more is better, -1 where less is.
    """
    chosen = np.zeros(score.shape[1], dtype=int)
    means = []
    for rate in range(len(score)):
        better = sign * score[rate] > sign * np.take_along_axis(score, chosen[None], axis=0)[0]
        chosen = np.where(better, rate, chosen)
        means.append((np.take_along_axis(score, chosen[None], axis=0).mean(), cost[chosen].mean()))
    scores, costs = np.array(means).T
    return scores, costs
