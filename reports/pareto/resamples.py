"""Scores of a run's cells over resamples of its samples: the same for all cells, so that differences are paired."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd

from reports.cells import read_columns, read_manifest, read_samples
from reports.frame import AGREEMENT
from reports.groups import Group
from suite.contract.baseline import BASELINE
from suite.contract.metric import Metric
from suite.errors import RequestError
from suite.stats import Floats, bootstrap_sums
from suite.stats.aggregates import Aggregate

RESAMPLES = 2000


def resampled_scores(group: Group, resamples: int = RESAMPLES) -> dict[str, Floats]:
    """Cell key -> (resamples,) headline scores as people read them, of every finished cell of `group`.

    The draws depend on the ids of the samples alone: runs on the same samples draw the same ones. {} where the store
    holds no outcome per sample that the headline is made of, and of a single sample, which cannot be drawn otherwise.

    Raises:
        RequestError: cells of one group were scored on different samples.
    """
    out, metric, done = group.out, group.headline, group.frame[group.frame.status == "done"]
    keys, manifest = list(done.index[done[metric.name].notna()]), read_manifest(out)
    if len(manifest) < 2 or not keys:
        return {}
    seed = crc32("\n".join(manifest).encode())
    if metric.name == AGREEMENT.name:
        columns = {key: _agreement(key, manifest, group) for key in keys}
        return _resampled_means(columns, out, metric, seed, resamples)
    made_of = metric.aggregate
    if made_of is None:
        return {}
    read = {key: read_columns(group.folder_of(key), manifest, made_of.columns) for key in keys}
    tables = {key: table for key, table in read.items() if table is not None}
    if len(tables) < len(read):
        return {}
    addends = zip(tables.items(), made_of.addends(*tables.values()), strict=True)
    if made_of.linear:
        columns = {key: pd.Series(added[:, 0], table.index) for (key, table), added in addends}
        return _resampled_means(columns, out, metric, seed, resamples)
    return {key: metric.scale * _resampled(made_of, added, seed, resamples) for (key, _), added in addends}


def _resampled_means(
    columns: Mapping[str, pd.Series | None], out: Path, metric: Metric, seed: int, resamples: int
) -> dict[str, Floats]:
    """Of means of one number per sample; {} where the store does not say it of every cell."""
    if any(column is None for column in columns.values()):
        return {}
    table = pd.DataFrame(columns)
    if table.isna().any(axis=None):
        raise RequestError(f"run {str(out)!r}: its cells hold different samples; run the same command again")
    means = bootstrap_sums(table.to_numpy(np.float64), seed, resamples) / len(table)
    return {key: metric.scale * means[:, i] for i, key in enumerate(columns)}


def _resampled(made_of: Aggregate, addends: np.ndarray, seed: int, resamples: int) -> Floats:
    """(resamples,) scores that are no means of samples.

    What is rare is rarer still among resamples (classes of mIoU), so these are moved to where their mean is the score.
    """
    drawn = made_of.statistic(len(addends))(bootstrap_sums(addends, seed, resamples))
    moved: Floats = drawn - np.nanmean(drawn) + made_of.score(addends)
    return moved


def _agreement(key: str, manifest: pd.Index, group: Group) -> pd.Series | None:
    """Whether each sample's prediction is the unreduced model's."""
    unreduced = group.frame.index[(group.frame.reducer == BASELINE) & (group.frame.status == "done")]
    if not len(unreduced):
        return None
    samples = [read_samples(group.folder_of(cell), manifest, ("prediction",))[0] for cell in (key, unreduced[0])]
    own, full = (table["prediction"].rename(None) for table in samples)
    return own.eq(full).where(full.notna())
