"""Scores of a run's cells over resamples of its samples: the same for all cells, so that differences are paired."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd

from reports.areas import AREAS, dense_areas, mean_iou
from reports.cells import read_manifest, read_samples
from reports.frame import AGREEMENT, Group
from suite.errors import RequestError
from suite.stats import Floats, bootstrap_sums
from suite.store.folder import CellFolder

RESAMPLES = 2000
OUTCOME = {"top1": "correct", "top5": "correct5"}  # shares of true outcomes; other means are in scores.parquet


def resampled_scores(out: Path, group: Group, resamples: int = RESAMPLES) -> dict[str, Floats]:
    """Cell key -> (resamples,) headline scores as people read them, of every finished cell of `group` in the run `out`.

    The draws depend on the ids of the samples alone: runs on the same samples draw the same ones. {} where the store
    holds no outcome per sample that the headline is made of, and of a single sample, which cannot be drawn otherwise.

    Raises:
        RequestError: cells of one group were scored on different samples.
    """
    name, done = group.headline.name, group.frame[group.frame.status == "done"]
    keys = list(done.index[done[name].notna()])
    manifest = read_manifest(out)
    if len(manifest) < 2:
        return {}
    seed = crc32("\n".join(manifest).encode())
    if name == "miou":
        return {key: group.headline.scale * _miou(out, key, manifest, seed, resamples) for key in keys}
    columns = {key: _per_sample(out, key, manifest, group) for key in keys}
    if not keys or any(column is None for column in columns.values()):
        return {}
    table = pd.DataFrame(columns)
    if table.isna().any(axis=None):
        raise RequestError(f"run {str(out)!r}: its cells hold different samples; run the same command again")
    means = bootstrap_sums(table.to_numpy(np.float64), seed, resamples) / len(table)
    return {key: group.headline.scale * means[:, i] for i, key in enumerate(keys)}


def _per_sample(out: Path, key: str, manifest: pd.Index, group: Group) -> pd.Series | None:
    """What each sample adds to the headline of a cell, by its place in the manifest; None if the store does not say."""
    name, folder = group.headline.name, out / "cells" / key
    if name == AGREEMENT.name:
        unreduced = group.frame.index[(group.frame.reducer == "none") & (group.frame.status == "done")]
        if not len(unreduced):
            return None
        own, full = (_column(out / "cells" / cell, manifest, "prediction").rename(None) for cell in (key, unreduced[0]))
        return own.eq(full).where(full.notna())
    if name in OUTCOME:
        return _column(folder, manifest, OUTCOME[name])
    rows = CellFolder(folder).read_scores()
    if rows is None or name not in rows:
        return None
    return pd.Series(rows[name].to_numpy(), manifest.get_indexer(rows["id"]))


def _column(folder: Path, manifest: pd.Index, name: str) -> pd.Series:
    samples, _ = read_samples(folder, manifest, ("id", name))
    return samples[name]


def _miou(out: Path, key: str, manifest: pd.Index, seed: int, resamples: int) -> Floats:
    """(resamples,) fractions. Classes that occur in neither mask of a resample are left out of its mean.

    Rare classes are, more often than among the samples, so resamples are moved to where their mean is the score.
    """
    samples, _ = read_samples(out / "cells" / key, manifest, ("id", "classes", *AREAS))
    count = 1 + max((max(classes, default=-1) for classes in samples["classes"]), default=-1)
    areas = dense_areas(samples, count)
    sums = bootstrap_sums(areas.reshape(len(areas), -1), seed, resamples)
    drawn = mean_iou(sums.reshape(resamples, len(AREAS), count))
    return drawn - np.nanmean(drawn) + mean_iou(areas.sum(axis=0))
