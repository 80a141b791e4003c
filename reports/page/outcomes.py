"""What every finished cell made of every sample, side by side: the ground of all paired comparisons of a page.

Kinds are known by what the metric is made of: `labels` (a class, right or wrong), `captions` (a text with a score per
image), `numbers` (a score per image, of what people cannot read, such as a feature) and `masks` (no mean of samples,
such as areas of classes). With random weights, or where the store does not
hold what the metric is made of, what counts is `agreement`: whether the prediction is the unreduced model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.cells import read_columns, read_manifest
from reports.frame import AGREEMENT
from reports.groups import Group
from suite.contract.baseline import BASELINE
from suite.contract.metric import Metric
from suite.store.folder import RunFolder

LABELS, CAPTIONS, NUMBERS, MASKS, SAME = "labels", "captions", "numbers", "masks", "agreement"
OF_MEANS = (CAPTIONS, NUMBERS)


@dataclass(frozen=True)
class Outcomes:
    """C finished cells on the n samples that all of them have, in the manifest's order.

    kind: see above. metric: what is compared. keys: of the cells. ids: of the samples; truth: their labels, or None.
    score: (C, n) float64, the sample's own score: 0 or 1 for labels and agreement, the metric's per image otherwise
    (NaN where an image has none). said: C lists of predictions, of what people can read; None for masks and
    numbers.
    tables: C tables of the columns that the metric is made of; None where `score` holds all that it is.
    """

    kind: str
    metric: Metric
    keys: list[str]
    ids: list[str]
    truth: list[Any] | None
    score: np.ndarray
    said: list[list[Any]] | None
    tables: list[pd.DataFrame] | None = None

    @cached_property
    def shown(self) -> np.ndarray:
        """(C, n) int64: a sample's score as a page shows it: 0 or 1, else tenths of what people read, -1: none."""
        scale = 10 * self.metric.scale if self.kind in (*OF_MEANS, MASKS) else 1
        return np.nan_to_num(np.rint(scale * self.score), nan=-1).astype(int)

    @cached_property
    def interest(self) -> np.ndarray:
        """(n,) how much the cells differ on a sample, where every pair of cells counts alike, however close it is."""
        score = np.nan_to_num(self.score)
        weight = np.zeros(len(self.ids))
        for place in range(len(score) - 1):
            apart = np.abs(score[place + 1 :] - score[place])
            total = apart.sum(axis=1, keepdims=True)
            weight += np.divide(apart, total, out=np.zeros_like(apart), where=total > 0).sum(axis=0)
        return weight


def same_samples(parts: Sequence[Group]) -> list[list[Group]]:
    """The groups in sets whose cells can be compared sample by sample: of one task with the same options, on samples
    of the same names and truths."""
    sets: dict[str, list[Group]] = {}
    for part in parts:
        folder = RunFolder(part.out)
        options = folder.read_run()["identity"].get("task_options")
        samples = [folder.read_ids(), folder.read_labels()] if folder.read_ids() else []
        sets.setdefault(repr((part.task, part.random_weights, options, samples)), []).append(part)
    return list(sets.values())


def load_outcomes(parts: Sequence[Group]) -> Outcomes | None:
    """The outcomes of the finished cells of groups on the same samples; None where fewer than two can be compared."""
    done = [(part, row.Index, row.reducer) for part in parts for row in part.frame.itertuples() if row.status == "done"]
    if len(done) < 2:
        return None
    random, manifest = any(part.random_weights for part in parts), read_manifest(parts[0].out)
    folders, metric = [part.folder_of(key) for part, key, _ in done], parts[0].shown.metrics[0]
    if (read := _read(folders, manifest, metric, random)) is None:
        return None
    kind, tables = read
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index)
    if common.empty:
        return None
    tables = [table.loc[common] for table in tables]
    ids = manifest[common].to_list()
    if kind == SAME:
        return _same(done, [table["prediction"].to_numpy() for table in tables], ids)
    about = {"keys": [key for _, key, _ in done], "ids": ids}
    truth = _references(parts[0].out, common)
    return _MAKE[NUMBERS if kind != MASKS and _is_unreadable(tables[0], truth) else kind](tables, metric, about, truth)


def _kind(metric: Metric) -> str:
    made_of = metric.aggregate
    return SAME if made_of is None else LABELS if made_of.binary else CAPTIONS if made_of.linear else MASKS


def _read(
    folders: list[Path], manifest: pd.Index, metric: Metric, random: bool
) -> tuple[str, list[pd.DataFrame]] | None:
    """The kind, and every cell's rows by position in the manifest: what was predicted, and what the metric is made of,
    where all cells hold that; None where they do not even hold predictions.
    """
    for kind in dict.fromkeys((SAME if random else _kind(metric), SAME)):
        columns = () if kind == SAME else metric.made_of.columns
        tables = [read_columns(folder, manifest, ("prediction", *columns)) for folder in folders]
        if all(table is not None for table in tables):
            return kind, [table for table in tables if table is not None]
    return None


def _same(cells: list[tuple[Group, str, str]], said: list[np.ndarray], ids: list[str]) -> Outcomes | None:
    """By agreement with the unreduced model of a cell's own group; cells without one are left out.

    cells: (group, key, reducer), said: what each predicted.
    """
    plain = {id(part): answers for (part, _, reducer), answers in zip(cells, said, strict=True) if reducer == BASELINE}
    kept = [(*cell, answers) for cell, answers in zip(cells, said, strict=True) if id(cell[0]) in plain]
    if len(kept) < 2:
        return None
    score = np.stack([answers == plain[id(part)] for part, *_, answers in kept]).astype(float)
    readable = any(part.random_weights for part, *_ in kept) and said[0].dtype != object
    words = [answers.tolist() for *_, answers in kept] if readable else None
    return Outcomes(SAME, AGREEMENT, [key for _, key, *_ in kept], ids, truth=None, score=score, said=words)


def _references(out: Path, rows: pd.Index) -> list[Any]:
    labels = RunFolder(out).read_labels()
    return [labels[row] for row in rows]


def _labels(tables: list[pd.DataFrame], metric: Metric, about: dict[str, Any], truth: list[Any]) -> Outcomes:
    said = [table["prediction"].tolist() for table in tables]
    return Outcomes(LABELS, metric, truth=truth, score=_scores(tables, metric), said=said, **about)


def _is_unreadable(table: pd.DataFrame, truth: list[Any]) -> bool:
    """Whether predictions are texts that are no answer to the truth: a class is a number, and captions are several."""
    in_words = not pd.api.types.is_numeric_dtype(table["prediction"])
    return in_words and not all(isinstance(of, list | tuple | np.ndarray) for of in truth)


def _numbers(tables: list[pd.DataFrame], metric: Metric, about: dict[str, Any], truth: list[Any]) -> Outcomes:
    return Outcomes(NUMBERS, metric, truth=None, score=_scores(tables, metric), said=None, **about)


def _captions(tables: list[pd.DataFrame], metric: Metric, about: dict[str, Any], truth: list[Any]) -> Outcomes:
    said = [table["prediction"].tolist() for table in tables]
    return Outcomes(
        CAPTIONS, metric, truth=[list(of) for of in truth], score=_scores(tables, metric), said=said, **about
    )


def _masks(tables: list[pd.DataFrame], metric: Metric, about: dict[str, Any], truth: list[Any]) -> Outcomes:
    return Outcomes(MASKS, metric, truth=None, score=_scores(tables, metric), said=None, tables=tables, **about)


def _scores(tables: list[pd.DataFrame], metric: Metric) -> np.ndarray:
    """(C, n) what the metric comes to on every sample alone."""
    alone = metric.made_of.statistic(1)
    return np.stack([alone(addends) for addends in metric.made_of.addends(*tables)])


_MAKE = {LABELS: _labels, CAPTIONS: _captions, NUMBERS: _numbers, MASKS: _masks}
