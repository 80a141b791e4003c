"""Statistics of per-sample outcomes: pure functions of counts and arrays, nothing of ours imported."""

from suite.stats.curves import concordance, hypervolume, mean_cost_change, mean_gain, shared
from suite.stats.intervals import (
    bootstrap_mean_interval,
    bootstrap_sums,
    paired_agreement,
    percentile_interval,
    wilson_interval,
)
from suite.stats.multiplicity import holm
from suite.stats.paired import (
    Resampled,
    Statistic,
    mcnemar,
    paired_bootstrap,
    paired_share_interval,
    resamples_for,
    swap_test,
    unseen_share,
)
from suite.stats.power import (
    mcnemar_power,
    samples_to_bound,
    samples_to_bound_mean,
    samples_to_find,
    samples_to_find_mean,
    smallest_difference,
    smallest_normal_difference,
)

__all__ = [
    "bootstrap_mean_interval",
    "bootstrap_sums",
    "concordance",
    "holm",
    "hypervolume",
    "mcnemar",
    "mcnemar_power",
    "mean_cost_change",
    "mean_gain",
    "paired_agreement",
    "paired_bootstrap",
    "paired_share_interval",
    "percentile_interval",
    "Resampled",
    "resamples_for",
    "samples_to_bound",
    "samples_to_bound_mean",
    "samples_to_find",
    "samples_to_find_mean",
    "shared",
    "smallest_difference",
    "smallest_normal_difference",
    "Statistic",
    "swap_test",
    "unseen_share",
    "wilson_interval",
]
