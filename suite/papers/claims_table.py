"""The view of what a method claims, what others measured of it, and what is measured here, as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from reports.text.wording import NO_DATA
from suite.papers.claims import Claim, Figure

HEADERS = ("Model", "Weights", "GFLOPs", "Claimed", "By others", "Spread", "Here")
NOTE = (
    "Claimed: of the method's own paper or repository. By others: of other papers, leaderboards, and of the paper "
    "itself where others quote it; table names in brackets. One row: figures whose costs differ by no more than 3 % "
    "(1 FLOP = 1 multiply-accumulate; counted where it is not printed), so that some of a spread may be of cost, of "
    "checkpoints, or of how a method was tuned. Spread: points from the lowest to the highest published figure. Here: "
    "cells of --from at that cost."
)


def claim_rows(claims: Sequence[Claim]) -> list[list[str]]:
    """A row a claim, under HEADERS."""
    return [
        [
            claim.model,
            "trained for it" if claim.trained else "as they are",
            _range(claim.gmacs, 2),
            _listed(claim.claimed),
            _listed(claim.others),
            NO_DATA if claim.spread != claim.spread else f"{claim.spread:.2f}",
            ", ".join(f"{score:.2f}" for score in claim.here) or NO_DATA,
        ]
        for claim in claims
    ]


def _listed(figures: Sequence[Figure]) -> str:
    """'78.89–79.12 (diffrate-1, dtem-1)'; a score that several tables print counts once."""
    if not figures:
        return NO_DATA
    scores, tables = [one.score for one in figures], dict.fromkeys(one.where for one in figures)
    return f"{_range((min(scores), max(scores)), 2)} ({', '.join(tables)})"


def _range(ends: tuple[float, float], decimals: int) -> str:
    low, high = (f"{end:.{decimals}f}" for end in ends)
    return low if low == high else f"{low}–{high}"
