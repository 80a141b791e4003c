"""Statistics of per-sample outcomes: pure functions of counts and arrays, nothing of ours imported."""

from suite.stats.intervals import (
    bootstrap_mean_interval,
    bootstrap_sums,
    paired_agreement,
    percentile_interval,
    wilson_interval,
)

__all__ = [
    "bootstrap_mean_interval",
    "bootstrap_sums",
    "paired_agreement",
    "percentile_interval",
    "wilson_interval",
]
