"""What a spec asks for: every method at every rate, names, wildcards and weights resolved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from suite.errors import RequestError, unknown
from suite.reducers import list_reducers, make_reducer, reducer_class
from suite.reducers.base import Reducer
from suite.schedule import check_form, parse_rate
from suite.spec import RunSpec
from suite.weights_file import file_sha256

BASELINE, TRAINING_FREE = "none", "training-free"


@dataclass(frozen=True)
class Ask:
    """One method at one rate, as asked. `named`: the user wrote the method's name, not a wildcard.

    weights: file and hash of what the method has learned.
    """

    reducer: str
    rate: str
    options: dict[str, Any]
    named: bool
    weights: tuple[str, str] | None = None

    @property
    def slot(self) -> str:
        # the file, not its hash: what is learned anew takes the place of what was
        what = [self.reducer, self.options, self.rate, *([self.weights[0]] if self.weights else [])]
        return json.dumps(what, sort_keys=True)

    def make(self) -> Reducer:
        return make_reducer(self.reducer, **self.options)


def expand(spec: RunSpec) -> tuple[list[Ask], list[str]]:
    """Every (method, rate) that is asked for, the unreduced model first, and a line for each pair that is left out.

    A method that is not defined for a rate is left out of that rate; RequestError if it is thereby left out of all
    rates and was named, or if no method at all takes a rate.
    """
    rates = [*spec.rates, *(f"flops={target}" for target in spec.flops)]
    parsed = {rate: parse_rate(rate) for rate in rates}
    asks, skipped, refused = [Ask(BASELINE, "", {}, named=False)], [], {}
    taken = dict.fromkeys(rates, False)
    names = expand_names(spec.reducers)
    for name in spec.reducer_options:
        if name not in names:
            raise unknown("reducer in reducer_options", name, names)
    weights = learned_weights(spec, names)
    for name, named in names.items():
        options = spec.reducer_options.get(name, {})
        named = named or name in spec.reducer_options or name in weights
        reducer, used = make_reducer(name, **options), False
        if reducer.planned:
            asks.append(Ask(name, "", options, named, weights.get(name)))
            continue
        for rate, value in parsed.items():
            try:
                check_form(value, reducer)
            except RequestError as error:
                refused[name], _ = error, skipped.append(str(error))
                continue
            asks.append(Ask(name, rate, options, named, weights.get(name)))
            used = taken[rate] = True
        if named and not used and name in refused:
            raise refused[name]
    for rate, used in taken.items():
        if not used and refused:
            raise RequestError(f"rate {rate}: none of the reducers {', '.join(names)} is defined for it")
    return list({ask.slot: ask for ask in asks}.values()), skipped


def learned_weights(spec: RunSpec, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Reducer -> file and hash of what it has learned. RequestError for a file or a reducer that is not there."""
    learning = [name for name in names if reducer_class(name).learned]
    found = {}
    for name, file in spec.reducer_weights.items():
        if name and name not in names:
            raise unknown("reducer in reducer_weights", name, names)
        if not name and len(learning) != 1:
            which = f"{len(learning)} of the reducers learn something" if learning else "none of the reducers learns"
            raise RequestError(f"reducer weights {file!r}: {which}; write NAME={file} and name it in --reducers")
        if not Path(file).is_file():
            raise RequestError(f"reducer weights {file!r} do not exist; give a .safetensors or weights-only .pth file")
        found[name or learning[0]] = (file, file_sha256(Path(file)))
    return found


def expand_names(patterns: tuple[str, ...]) -> dict[str, bool]:
    """Reducer names -> whether they were named outright. RequestError for an unknown one."""
    names: dict[str, bool] = {}
    for pattern in patterns:
        if pattern == TRAINING_FREE:
            names |= {name: names.get(name, False) for name in list_reducers() if not reducer_class(name).learned}
        elif any(mark in pattern for mark in "*?["):
            matching = [name for name in list_reducers() if fnmatchcase(name, pattern)]
            if not matching:
                raise RequestError(f"no reducer matches {pattern!r}; known: {', '.join(list_reducers())}")
            for name in matching:
                names.setdefault(name, False)
        else:
            reducer_class(pattern)
            names[pattern] = True
    names.pop(BASELINE, None)
    return names
