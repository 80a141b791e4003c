"""The run card: what ran, on what, and what a reader must know before believing any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import Group
from reports.text.headings import DISPUTED, REMARK, UNCOUNTED, circumstances, images
from reports.text.wording import NO_DATA, known, row_label
from suite.contract.baseline import BASELINE
from suite.store.folder import RunFolder

WARNINGS = ("Warning", "Untrained", "Unreadable", DISPUTED, UNCOUNTED, REMARK)
PACKAGES = ("torch", "timm", "transformers", "fvcore", "mmsegmentation", "pycocoevalcap")


def facts_of(out: Path, frame: pd.DataFrame, parts: list[Group]) -> list[tuple[str, str]]:
    """(term, text) of the run as a whole."""
    folder = RunFolder(out)
    run, machine = folder.read_run(), folder.read_environment() or {}
    spec, identity = run.get("spec") or {}, run.get("identity") or {}
    facts = {
        "Task": _one_of(frame.task) + _options(identity.get("task_options")),
        "Data": identity.get("data") or ("embedded" if "task" in identity else NO_DATA),
        "Model": _one_of(frame.model),
        "Weights": _weights(frame, identity),
        "Samples": " / ".join(dict.fromkeys(images(part) for part in parts)) or NO_DATA,
        "Methods": ", ".join(dict.fromkeys(frame.reducer[frame.reducer != BASELINE])) or "none",
        "Rates": ", ".join(dict.fromkeys(rate for rate in frame.rate if known(rate) and rate)) or "none",
        "Precision": f"{_one_of(frame.precision)}, batch size {_one_of(frame.batch_size)}",
        "Speed": " / ".join(dict.fromkeys(circumstances(part) for part in parts)),
        "Machine": _machine(machine),
        "Software": _software(machine),
    }
    if spec.get("limit"):
        facts["Samples"] += f" (limit {spec['limit']}, evenly spaced)"
    return [(term, text) for term, text in facts.items() if text]


def states_of(frame: pd.DataFrame) -> list[tuple[str, int]]:
    """How many cells are done, failed, unfinished; only what there is."""
    counts = frame.status.value_counts()
    return [(state, int(counts[state])) for state in ("done", "failed", "running") if counts.get(state)]


def failures_of(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """(cell, reason) of what failed or is not finished."""
    rows = frame[frame.status != "done"].itertuples()
    unfinished = "{} of {} images scored"
    return [(row_label(row), row.reason or unfinished.format(row.samples, row.expected)) for row in rows]


def cautions_of(tables: list[dict[str, Any]]) -> list[str]:
    """The notes below the tables that are warnings: what must not be believed, or not be ranked by."""
    said = [note for table in tables for note in table["notes"] if note.startswith(WARNINGS)]
    return list(dict.fromkeys(said))


def _one_of(values: pd.Series) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values)) or NO_DATA


def _options(options: dict[str, Any] | None) -> str:
    return f" ({', '.join(f'{name}={value}' for name, value in options.items())})" if options else ""


def _weights(frame: pd.DataFrame, identity: dict[str, Any]) -> str:
    sha = identity.get("weights")
    return _one_of(frame.weights) + (f", sha256 {sha[:12]}…" if isinstance(sha, str) else "")


def _machine(machine: dict[str, Any]) -> str:
    gpus = [str(gpu.get("name")) for gpu in machine.get("gpus") or []]
    parts = [*dict.fromkeys(gpus), str(machine.get("cpu") or "")]
    if machine.get("logical_cpus"):
        parts.append(f"{machine['logical_cpus']} CPUs")
    if machine.get("ram_bytes"):
        parts.append(f"{machine['ram_bytes'] / 2**30:.0f} GiB")
    return " · ".join(filter(None, [*parts, str(machine.get("os") or "")]))


def _software(machine: dict[str, Any]) -> str:
    packages = machine.get("packages") or {}
    parts = [f"Python {machine['python']}"] if machine.get("python") else []
    parts += [f"{name} {packages[name]}" for name in PACKAGES if packages.get(name)]
    git = machine.get("git") or {}
    if git.get("commit"):
        parts.append(f"commit {git['commit'][:10]}" + (" with changes" if git.get("dirty") else ""))
    return " · ".join(parts)
