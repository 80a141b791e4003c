"""Runs that are to be seen in one figure and one table: which may, and what each is called."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from reports.frame import Group, groups, load_frame
from suite.contract.baseline import BASELINE
from suite.errors import RequestError, unknown

MOST = 5  # line patterns that can be told apart
TOLD_APART_BY = ("model", "weights", "precision", "batch_size", "image_size", "restore")


@dataclass(frozen=True, eq=False)
class Layer:
    """One run, or one model of it. letter: its short name among several, "" where there is but one."""

    label: str
    letter: str
    out: Path
    group: Group

    def marked(self, name: str) -> str:
        """The name of one of its methods."""
        return f"{name} {self.letter}".rstrip()


def layers_of(runs: Sequence[str | Path], reducers: Sequence[str] = ()) -> list[Layer]:
    """The runs in these folders, in this order. reducers: names and wildcards of the methods to see, default all.

    Raises:
        RequestError: a folder holds no run, runs are of different tasks or headline scores, or a name matches nothing.
    """
    found = [(Path(run), group) for run in dict.fromkeys(map(str, runs)) for group in groups(load_frame(run))]
    if not found:
        raise RequestError(f"run {', '.join(map(str, runs))}: no cell has begun; run it first")
    _check_alike(found)
    if reducers:
        found = _chosen(found, reducers)
    labels = _labels(found)
    if len(found) > MOST:
        raise RequestError(f"{len(found)} runs and models: more than {MOST} cannot be told apart in one picture")
    letters = string.ascii_uppercase if len(found) > 1 else [""]
    return [Layer(label, letter, out, group) for label, letter, (out, group) in zip(labels, letters, found)]


def _check_alike(found: list[tuple[Path, Group]]) -> None:
    """RequestError unless all are of one task and compared by one score."""
    (first, one), *others = found
    for out, group in others:
        what = [(g.task, g.headline.name) for g in (one, group)]
        if what[0] != what[1]:
            said = [f"{str(path)!r} is {task} by {score}" for path, (task, score) in zip((first, out), what)]
            raise RequestError(f"{said[0]}, {said[1]}: only runs of one task and score stand in one picture")


def _chosen(found: list[tuple[Path, Group]], reducers: Sequence[str]) -> list[tuple[Path, Group]]:
    """The groups with the wanted methods, and the unreduced model, alone."""
    names = sorted({name for _, group in found for name in group.frame.reducer} - {BASELINE})
    for pattern in reducers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown("reducer of these runs", pattern, names)
    kept = []
    for out, group in found:
        wanted = [name == BASELINE or any(fnmatchcase(name, p) for p in reducers) for name in group.frame.reducer]
        context = [about for about, yes in zip(group.context, wanted, strict=True) if yes]
        kept.append((out, replace(group, frame=group.frame[pd.Series(wanted, group.frame.index)], context=context)))
    return kept


def _labels(found: list[tuple[Path, Group]]) -> list[str]:
    """Folder names, as long as they must be to differ, with the model where several are shown."""
    paths = [out.resolve() for out, _ in found]
    depth = next((d for d in range(1, 9) if len({p.parts[-d:] for p in paths}) == len(set(paths))), 9)
    names = ["/".join(path.parts[-depth:]) for path in paths]
    several = {field for field in TOLD_APART_BY if len({str(getattr(group, field)) for _, group in found}) > 1}
    labels = []
    for name, (out, group) in zip(names, found, strict=True):
        alone = sum(other == out for other, _ in found) == 1
        fields = [field for field in TOLD_APART_BY if field in several and (field == "model" or not alone)]
        said = [str(getattr(group, field)) for field in fields]
        labels.append(" · ".join([name, *(text for text in said if text not in name)]))
    return labels
