"""The command that measures one row of a run again: with what the run was asked for, and the row's method and rate."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from reports.text.wording import EMBEDDED, known
from suite.contract.baseline import BASELINE
from suite.contract.program import PROGRAM
from suite.rates.rate import is_target

OF_THE_RUN = ("task", "data", "model", "checkpoint", "limit", "batch_size", "image_size", "precision", "scored_in")
"""Keys of a spec that decide a row, each the name of a flag."""


def command_of(spec: Mapping[str, Any], row: Any, weights: str | None) -> str:
    """What to type; "" where the run does not say what it was asked for.

    spec: of run.json. row: of the frame. weights: the source of what the row's method has learned.
    """
    if not spec.get("task"):
        return ""
    words = [f"--{key.replace('_', '-')}={spec[key]}" for key in OF_THE_RUN if spec.get(key) not in (None, "")]
    words += [f"--task-option={name}={json.dumps(value)}" for name, value in (spec.get("task_options") or {}).items()]
    words += [f"--runtime={','.join(spec['runtime'])}"] if spec.get("runtime") else []
    words += [] if spec.get("speed", True) else ["--no-speed"]
    return shlex.join([*PROGRAM.split(), "run", *words, *_of_row(row, weights)])


def _of_row(row: Any, weights: str | None) -> list[str]:
    """The method with what it has learned and its options, and the rate as it was asked for."""
    if row.reducer == BASELINE:
        return [f"--reducers={BASELINE}"]
    source = EMBEDDED if (weights or "").startswith(f"{EMBEDDED}:") else weights
    given = source or ("none" if row.training else "")
    if ".py:" in row.reducer:
        words = [f"--reducers={row.reducer}", *([f"--reducer-weights={row.reducer}={source}"] if source else [])]
    else:
        words = [f"--reducers={row.reducer}{f'@{given}' if given else ''}"]
    options = json.loads(row.options) if row.options else {}
    words += [f"--reducer-option={row.reducer}.{name}={json.dumps(value)}" for name, value in options.items()]
    if known(row.rate) and row.rate:
        words.append(f"--{row.rate}" if is_target(row.rate) else f"--rates={row.rate}")
    return words
