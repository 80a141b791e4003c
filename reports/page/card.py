"""The run card: what ran, on what, and what a reader must know before believing any of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from reports.groups import Group
from reports.text.headings import AT_CHANCE, DISPUTED, DOMINATED, REMARK, UNCOUNTED, circumstances, images, once_each
from reports.text.wording import NO_DATA, known, row_label
from suite.contract.baseline import BASELINE
from suite.store.folder import RunFolder

WARNINGS = ("Warning", "Untrained", "Unreadable", AT_CHANCE, DOMINATED, DISPUTED, UNCOUNTED, REMARK)
PACKAGES = ("torch", "timm", "transformers", "fvcore", "mmsegmentation", "pycocoevalcap")


def facts_of(frame: pd.DataFrame, parts: Sequence[Group]) -> list[tuple[str, str]]:
    """(term, text) of all runs of a frame as a whole; what several say alike stands once."""
    folders = [RunFolder(out) for out in frame.attrs["runs"]]
    runs, machines = [folder.read_run() for folder in folders], [folder.read_environment() or {} for folder in folders]
    specs, identities = ([run.get(name) or {} for run in runs] for name in ("spec", "identity"))
    limits = [f"limit {spec['limit']}, evenly spaced" for spec in specs if spec.get("limit")]
    facts = {
        "Task": _alike(
            about["task"] + _options(of) for about, of in zip(frame.attrs["runs"].values(), identities, strict=True)
        ),
        "Data": _alike(of.get("data") or ("embedded" if "task" in of else NO_DATA) for of in identities),
        "Model": _one_of(frame.model),
        "Weights": _alike(_weights(frame, out, of) for out, of in zip(frame.attrs["runs"], identities, strict=True)),
        "Samples": _alike(map(images, parts)) or NO_DATA,
        "Methods": ", ".join(dict.fromkeys(frame.reducer[frame.reducer != BASELINE])) or "none",
        "Rates": ", ".join(dict.fromkeys(rate for rate in frame.rate if known(rate) and rate)) or "none",
        "Precision": f"{_one_of(frame.precision)}, batch size {_one_of(frame.batch_size)}",
        "Speed": _alike(map(circumstances, parts)),
        "Machine": _alike(map(_machine, machines)),
        "Software": _alike(map(_software, machines)),
    }
    if limits:
        facts["Samples"] += f" ({_alike(limits)})"
    return [(term, text) for term, text in facts.items() if text]


def states_of(frame: pd.DataFrame) -> list[tuple[str, int]]:
    """How many cells are done, failed, unfinished; only what there is."""
    counts = frame.status.value_counts()
    return [(state, int(counts[state])) for state in ("done", "failed", "running") if counts.get(state)]


def failures_of(parts: Sequence[Group], labels: Sequence[str]) -> list[tuple[str, str]]:
    """(cell, reason) of what failed or is not finished; of several groups, with the label of the cell's own."""
    unfinished = "{} of {} images scored"
    return [
        (
            f"{label}: {row_label(row)}" if len(parts) > 1 else row_label(row),
            row.reason or unfinished.format(row.samples, row.expected),
        )
        for part, label in zip(parts, labels, strict=True)
        for row in part.frame[part.frame.status != "done"].itertuples()
    ]


def cautions_of(tables: Sequence[dict[str, Any]], labels: Sequence[str]) -> list[str]:
    """The notes below the tables that are warnings: what must not be believed, or not be ranked by."""
    said = [[note for note in table["notes"] if note.startswith(WARNINGS)] for table in tables]
    return once_each(zip(labels, said, strict=True))


def _alike(texts: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(filter(None, texts)))


def _one_of(values: pd.Series) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values)) or NO_DATA


def _options(identity: dict[str, Any]) -> str:
    options = identity.get("task_options")
    return f" ({', '.join(f'{name}={value}' for name, value in options.items())})" if options else ""


def _weights(frame: pd.DataFrame, out: str, identity: dict[str, Any]) -> str:
    sha, context = identity.get("weights"), frame.attrs["context"]
    own = frame.weights[[context[key]["out"] == out for key in frame.index]]
    return _one_of(own) + (f", sha256 {sha[:12]}…" if isinstance(sha, str) else "")


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
