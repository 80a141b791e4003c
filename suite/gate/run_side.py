"""A side of a comparison that is a run's folder."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import load_frame, load_samples
from suite.contract.metric import TaskReport
from suite.errors import RequestError
from suite.gate.side import Entry, Side
from suite.gate.speed_ratio import TIMING
from suite.measure.runtimes import EAGER
from suite.store.folder import CellFolder, RunFolder
from suite.store.sealed import DamagedError
from suite.sweep.changes import read_contents


def run_side(out: Path, name: str) -> Side:
    """All cells of the run in `out`. RequestError if it is none, or has random weights: its scores mean nothing."""
    folder, frame = RunFolder(out), load_frame(out)
    run = folder.read_run()
    if (frame.weights_kind == "random").any():
        raise RequestError(f"{name!r} has random weights, so its scores mean nothing; run it with a checkpoint")
    about = frame.attrs["context"]
    shown = TaskReport.from_dict(run["shown"])
    entries = tuple(_entry(folder, row, about[row.Index]["reasons"], shown) for row in frame.itertuples())
    contents = {id: content.digest for id, content in read_contents(folder).items()}
    return Side(name, run["identity"], run["spec"], shown, entries, contents)


def _entry(folder: RunFolder, row: Any, unscored: dict[str, str], shown: TaskReport) -> Entry:
    cell = folder.cell(row.Index)
    flops = _stored(cell, "flops") or {}
    dispatched = flops.get("torch")
    return Entry(
        key=row.Index, reducer=row.reducer, options=row.options, training=row.training, rate=_text(row.rate),
        resolved_rate=_text(row.resolved_rate), status=row.status, reason=_line(row.reason), gmacs=_number(row.gmacs),
        reduction=_number(row.reduction), memory_mib=_number(row.peak_memory_mib),
        speed=_timing(_stored(cell, "speed"), row.runtime), whole_speed=_timing(_stored(cell, "whole_speed"), EAGER),
        dispatched_gmacs=None if dispatched is None else dispatched / 1e9, disputed=flops.get("disputed"),
        unscored=unscored,
        read=partial(read_outcomes, folder.path, row.Index, shown),
    )  # fmt: skip


def _stored(cell: CellFolder, name: str) -> dict[str, Any] | None:
    """A cell's JSON; None for what is damaged, for that cell has failed and says so."""
    try:
        return cell.read(name)
    except DamagedError:
        return None


def read_outcomes(out: Path, key: str, shown: TaskReport) -> pd.DataFrame:
    """The outcomes that scores are made of, by sample id."""
    samples = load_samples(out, key).set_index("id")
    kept = dict.fromkeys(name for metric in shown.metrics if metric.aggregate for name in metric.aggregate.columns)
    return samples[[name for name in kept if name in samples]]


def _timing(stored: dict[str, Any] | None, runtime: str) -> dict[str, Any] | None:
    """Of what was timed, that under one runtime."""
    speed = (stored or {"runtimes": {}})["runtimes"].get(runtime)
    return None if speed is None else {name: speed.get(name) for name in TIMING}


def _line(reason: str) -> str:
    """Without control characters, such as the colours that some errors' messages have."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[\x00-\x1f\x7f-\x9f]", " ", reason).split())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
