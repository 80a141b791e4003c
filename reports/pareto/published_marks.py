"""Which published figures belong on a plot: those of its models, its methods and its score, in its unit of FLOPs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.groups import Group
from reports.pareto.points import FLOPS, Plot
from reports.published import load_published
from reports.published.models import printed_names
from suite.contract.baseline import BASELINE
from suite.errors import RequestError

TASKS = {"imagenet": "classification", "coco-caption": "captioning", "ade20k": "segmentation"}
METHODS = {"evit with inattentive token fusion": "evit", "tofu mlerp": "tofu"}  # where lower case does not do it
PAPERS = {"tps": "dtps"}  # other names of files
MORE = {"dtem": "counts element-wise operations too, about 1 % more GFLOPs"}  # files whose counts are not quite ours
MOST = 5  # papers that markers tell apart
TWICE = "1 MAC = 2 FLOPs"  # what a row's note says of such a count


@dataclass(frozen=True)
class Mark:
    """One published point. x: GFLOPs, 1 multiply-add each; y: the score. reducer: by our name.

    paper, terms: who printed it, and on which terms the methods were trained, as the key says it.
    """

    paper: str
    terms: str
    reducer: str
    x: float
    y: float


def published_marks(names: Sequence[str], parts: Iterable[Group], plot: Plot) -> tuple[list[Mark], list[str]]:
    """The points of the named papers (`dtem`, a file's stem, or `dtem-1`, its Table 1) for a plot of these groups.

    Only figures against FLOPs: published speeds and memory are other machines'. Returns the marks, and a note for
    each paper of which something, or everything, was left off.

    Raises:
        RequestError: nothing is published under a name, or there are more than five.
    """
    parts, rows = list(parts), load_published()
    if len(set(names)) > MOST:
        raise RequestError(f"--published names {len(set(names))} papers: more than {MOST} cannot be told apart")
    chosen = {name: _named(rows, name) for name in dict.fromkeys(names)}
    if plot.x != FLOPS.x:
        return [], [f"{plot.name}: no published points, for they are of other machines"] if chosen else []
    marks, notes = [], []
    for name, table in chosen.items():
        found, left_off = _marks(table, parts)
        marks += found
        notes += [f"{plot.name}: published {name}: {reason}" for reason in left_off]
    return marks, notes


def _named(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a file, or of one table in it. RequestError for a name that there is not."""
    stem, dash, number = name.partition("-")
    stem = PAPERS.get(stem, stem)
    found = rows[rows["file"] == PAPERS.get(name, name)]
    if found["primary"].any():  # what others printed of it is theirs
        found = found[found["primary"]]
    if found.empty and dash:
        found = rows[(rows["file"] == stem) & rows["table"].str.match(rf"Table {re.escape(number)}(\D|$)")]
    if found.empty:
        tables = {
            f"{file}-{match[1]}"
            for file, table in zip(rows["file"], rows["table"], strict=True)
            if (match := re.match(r"Table (\d+)", table))
        }
        known = ", ".join(sorted({*rows["file"], *tables}))
        raise RequestError(f"published {name!r}: no such file or table; known: {known}")
    return found


def _marks(table: pd.DataFrame, parts: list[Group]) -> tuple[list[Mark], list[str]]:
    group, methods = parts[0], {BASELINE, *(name for part in parts for name in part.frame.reducer)}
    models = {name for part in parts for name in printed_names(part.model)}
    score = group.headline.name
    rows = table[(table["task"] == TASKS.get(group.task)) & table["model"].isin(models)]
    if score not in table or rows.empty:
        there = ", ".join(sorted(set(table["model"])))
        return [], [f"nothing of {group.task} with {' or '.join(sorted({p.model for p in parts}))}; it has {there}"]
    rows, notes = rows[rows["gflops"].notna() & rows[score].notna()], []
    reducers = rows["method"].map(_reducer)
    absent = sorted(set(rows["method"][~reducers.isin(methods)]))
    notes += [f"not in these runs: {', '.join(absent)}"] if absent else []
    rows, reducers = rows[reducers.isin(methods)], reducers[reducers.isin(methods)]
    halved = rows["note"].str.contains(TWICE, regex=False)
    notes += ["its count of 2 a multiply-add was halved"] if halved.any() else []
    notes += [MORE[file] for file in sorted(set(rows["file"])) if file in MORE]
    gflops = rows["gflops"].where(~halved, rows["gflops"] / 2)
    source = _source(rows)
    return [Mark(*source, *row) for row in zip(reducers, gflops, rows[score], strict=True)], notes


def _reducer(method: str) -> str:
    """'ToMe (r=12)' -> 'tome'."""
    name = re.sub(r"\s*\(.*\)$", "", method).lower()
    return METHODS.get(name, name)


def _source(rows: pd.DataFrame) -> tuple[str, str]:
    """('DTEM, Table 1', 'modular, off-the-shelf')."""
    sources = dict.fromkeys(source.split(" (")[0].removesuffix(" official README") for source in rows["source"])
    tables = dict.fromkeys(table for table in rows["table"] if table.startswith("Table"))
    terms = sorted({term.split(" (")[0] for term in rows["training"]} - {"base model", ""})
    named = [" / ".join(sources), *([" / ".join(tables)] if len(sources) == 1 and tables else [])]
    return ", ".join(named), ", ".join(terms)
