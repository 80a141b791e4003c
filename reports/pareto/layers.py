"""Runs that are to be seen in one figure and one table: which may, and what each is called."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain, count, islice, product
from pathlib import Path

import pandas as pd

from reports.frame import load_frame
from reports.groups import Group, groups, labels_of
from reports.marks.floor_rows import hosted
from reports.marks.marked import marked
from reports.pareto.by_runtime import further_runtimes, under
from suite.contract.baseline import BASELINE
from suite.errors import RequestError, unknown

MOST = 5  # line patterns that can be told apart


@dataclass(frozen=True, eq=False)
class Layer:
    """One run, or one model of it. letter: its short name among several, "" where there is but one."""

    label: str
    letter: str
    group: Group

    def marked(self, name: str) -> str:
        """The name of one of its methods."""
        return f"{name} {self.letter}".rstrip()


def layers_of(runs: Sequence[str | Path], reducers: Sequence[str] = ()) -> list[Layer]:
    """The runs in these folders, in this order. reducers: names and wildcards of the methods to see, default all.

    Raises:
        RequestError: a folder holds no run, runs are of different tasks or headline scores, or a name matches nothing.
    """
    frames = [marked(load_frame(run)) for run in dict.fromkeys(map(str, runs))]
    found = [group for frame in frames for group in hosted(list(groups(frame)))]
    if not found:
        raise RequestError(f"run {', '.join(map(str, runs))}: no cell has begun; run it first")
    _check_alike(found)
    if reducers:
        found = _chosen(found, reducers)
    if len(found) > MOST:
        raise RequestError(f"{len(found)} runs and models: more than {MOST} cannot be told apart in one picture")
    return stack(found)


def stack(parts: Sequence[Group]) -> list[Layer]:
    """Layers of groups that are of one task and compared by one score."""
    letters = islice(_letters(), len(parts)) if len(parts) > 1 else [""]
    return [Layer(*about) for about in zip(labels_of(parts), letters, parts, strict=True)]


def layers_under(layers: Sequence[Layer], runtime: str) -> list[Layer]:
    """The layers with the times of a runtime.

    Raises:
        RequestError: nothing was timed under it.
    """
    timed = {name for layer in layers for name in (*layer.group.seen("runtime"), *further_runtimes(layer.group))}
    if runtime not in timed:
        raise unknown("runtime of these runs", runtime, sorted(timed))
    return [replace(layer, group=under(layer.group, runtime)) for layer in layers]


def _letters() -> Iterator[str]:
    """A, ..., Z, AA, AB, ..."""
    return map("".join, chain.from_iterable(product(string.ascii_uppercase, repeat=length) for length in count(1)))


def _check_alike(found: Sequence[Group]) -> None:
    """RequestError unless all are of one task and compared by one score."""
    one, *others = found
    for group in others:
        what = [(g.task, g.headline.name) for g in (one, group)]
        if what[0] != what[1]:
            said = [f"{str(g.out)!r} is {task} by {score}" for g, (task, score) in zip((one, group), what)]
            raise RequestError(f"{said[0]}, {said[1]}: only runs of one task and score stand in one picture")


def _chosen(found: Sequence[Group], reducers: Sequence[str]) -> list[Group]:
    """The groups with the wanted methods, and the unreduced model, alone."""
    names = sorted({name for group in found for name in group.frame.reducer} - {BASELINE})
    for pattern in reducers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown("reducer of these runs", pattern, names)
    kept = []
    for group in found:
        wanted = [name == BASELINE or any(fnmatchcase(name, p) for p in reducers) for name in group.frame.reducer]
        context = [about for about, yes in zip(group.context, wanted, strict=True) if yes]
        kept.append(replace(group, frame=group.frame[pd.Series(wanted, group.frame.index)], context=context))
    return kept
