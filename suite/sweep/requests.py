"""A request taken apart into single runs: one for each entry of `runs`, one for each of its `models`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.contract.baseline import BASELINE
from suite.errors import RequestError
from suite.models.registry import list_models
from suite.sweep.spec import LISTS, current_keys, is_wildcard

OF_METHODS = ("model", "out", "cells", "reducer_options", "reducer_weights", "draw_seeds", *LISTS)
"""What of a request is not asked of a model that is to be seen unreduced."""


def requests_of(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys and values of each entry of `runs`, those beside it where it leaves them out; without `runs`, the one.

    `out` beside `runs` is the folder of all, and no entry's. RequestError for what is no list of runs.
    """
    shared = {key: value for key, value in current_keys(dict(values)).items() if key not in ("runs", "out")}
    if (runs := values.get("runs")) is None:
        return [shared]
    if not isinstance(runs, list | tuple) or not runs:
        raise RequestError(f"runs={runs!r} is no list of runs; write keys and values of each behind a '-'")
    for number, run in enumerate(runs):
        if not isinstance(run, Mapping) or "runs" in run:
            raise RequestError(f"runs.{number}={run!r} is no run; write its keys and values, such as task: imagenet")
        if run.get("out") and run["out"] != folder_name(str(run["out"])):
            raise RequestError(
                f"runs.{number}: out={run['out']!r} is no name of a folder; it will lie in the folder of all"
            )
    return [_with_defaults(current_keys(dict(run)), shared) for run in runs]


def _with_defaults(run: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """A run's own keys, and of the shared ones those whose place none of them takes."""
    taken: set[str] = {"model", "models"} if run.keys() & {"model", "models"} else set()
    taken |= set(LISTS) if "cells" in run else set()
    taken |= {"cells"} if run.keys() & set(LISTS) else set()
    return {**{key: value for key, value in shared.items() if key not in taken}, **run}


@dataclass(frozen=True)
class OneRun:
    """Keys and values of one run. named: its model outright. suffix: what the name of its folder ends in."""

    values: dict[str, Any]
    named: bool
    suffix: str = ""


def by_model(request: Mapping[str, Any]) -> Iterator[OneRun]:
    """The request once for each of its models; the unreduced model alone for each of its `floor_models` that is not
    among them, and for each of its models on images that are decoded at each of its `floor_sides`.

    RequestError for no list of names or sides, and for one that stands beside a `model`.
    """
    request = dict(request)
    models, floors = request.pop("models", None), request.pop("floor_models", None)
    sides = _sides_of(request.pop("floor_sides", None))
    asked = _names_of("models", models) if models is not None else None
    if asked is not None and request.get("model"):
        raise RequestError(f"model={request['model']!r} stands beside models={models!r}; leave one of them out")
    own = request.get("out")
    alone = {key: value for key, value in request.items() if key not in OF_METHODS} | {"reducers": [BASELINE]}
    own_model: dict[str | None, bool] = {request.get("model"): True}
    for model, named in (asked or own_model).items():
        of = {} if model is None else {"model": model}
        apart = {"out": f"{own}-{folder_name(model or '')}"} if own and len(asked or {}) > 1 else {}
        yield OneRun({**request, **of, **apart}, named)
        out = {key: value for key, value in {"out": own, **apart}.items() if value}
        for side in sides:
            yield OneRun({**alone, **of, **out, "image_size": side}, named, f"-{side}px")
    for model, named in (_names_of("floor_models", floors) if floors is not None else {}).items():
        if model not in (asked or [request.get("model")]):
            yield OneRun({**alone, "model": model}, named)


def _sides_of(value: Any) -> list[int]:
    """Pixels, of a list of them or of its text; none of None. RequestError for anything else."""
    sides = value.split(",") if isinstance(value, str) else value
    sides = [sides] if isinstance(sides, int) else sides or []
    if not isinstance(sides, list | tuple) or not all(re.fullmatch(r"\s*[1-9]\d*\s*", str(side)) for side in sides):
        raise RequestError(f"floor_sides={value!r} is no list of sides in pixels; write for example 176,160")
    return list(dict.fromkeys(map(int, sides)))


def _names_of(key: str, value: Any) -> dict[str, bool]:
    """`expand_models` of a list of names, or of its text. RequestError for anything else."""
    patterns = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple) or not patterns or not all(isinstance(name, str) for name in patterns):
        raise RequestError(f"{key}={value!r} is no list of names; write for example deit_tiny*,deit_small*")
    return expand_models(patterns)


def folder_name(text: str) -> str:
    """What a folder can be called by: 'microsoft/git-base-coco' -> 'microsoft-git-base-coco'."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")


def expand_models(patterns: Sequence[str]) -> dict[str, bool]:
    """Names of models -> whether they were named outright. RequestError for a wildcard that no model's name matches."""
    names: dict[str, bool] = {}
    for pattern in patterns:
        if not is_wildcard(pattern):
            names[pattern] = True
            continue
        matching = [name for name, _ in list_models(pattern)]
        if not matching:
            raise RequestError(f"no model matches {pattern!r}; `list models` shows what there is")
        for name in matching:
            names.setdefault(name, False)
    return names
