"""Statistics of per-sample outcomes: pure functions of counts and arrays, nothing of ours imported."""

from suite.stats.curves import Floats, concordance, hypervolume, mean_cost_change, mean_gain, shared
from suite.stats.intervals import (
    bootstrap_sums,
    mean_interval,
    paired_agreement,
    percentile_interval,
    wilson_interval,
)
from suite.stats.jackknife import Statistic, jackknife_interval, pseudo_values, standard_error
from suite.stats.multiplicity import holm
from suite.stats.paired import (
    FEWEST,
    PairedScores,
    largest_share,
    mcnemar,
    paired_score_interval,
    paired_scores,
    paired_share_exceeds,
    paired_share_interval,
    resamples_for,
    swap_test,
)
from suite.stats.power import (
    bound_power,
    mcnemar_power,
    no_better,
    samples_to_bound,
    samples_to_bound_mean,
    samples_to_find,
    samples_to_find_mean,
    samples_to_see,
    smallest_difference,
    smallest_normal_difference,
)
from suite.stats.sequential import look_levels, look_sizes

__all__ = [
    "Floats",
    "bootstrap_sums",
    "bound_power",
    "concordance",
    "FEWEST",
    "holm",
    "hypervolume",
    "jackknife_interval",
    "largest_share",
    "look_levels",
    "look_sizes",
    "mcnemar",
    "mcnemar_power",
    "mean_cost_change",
    "mean_gain",
    "mean_interval",
    "no_better",
    "paired_agreement",
    "paired_score_interval",
    "paired_scores",
    "paired_share_exceeds",
    "paired_share_interval",
    "PairedScores",
    "percentile_interval",
    "pseudo_values",
    "resamples_for",
    "samples_to_bound",
    "samples_to_bound_mean",
    "samples_to_find",
    "samples_to_find_mean",
    "samples_to_see",
    "shared",
    "smallest_difference",
    "smallest_normal_difference",
    "standard_error",
    "Statistic",
    "swap_test",
    "wilson_interval",
]
