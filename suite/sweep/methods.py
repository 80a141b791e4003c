"""What a spec asks for: every method at every rate, names, wildcards and weights resolved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from suite.attachment.reducer_weights import read_reducer_weights
from suite.errors import RequestError, unknown
from suite.models.shipped import EMBEDDED, shipped_weights, weights_path
from suite.models.weights_file import file_sha256
from suite.rates.rate import Rate, rate_text
from suite.rates.schedule import check_form
from suite.reducers import list_reducers, make_reducer, reducer_class
from suite.reducers.base import Reducer
from suite.sweep.spec import RunSpec

BASELINE, TRAINING_FREE, NO_WEIGHTS = "none", "training-free", "none"
Method = tuple[str, str | None]
"""A reducer's name, and the weights that were written behind it."""


@dataclass(frozen=True)
class MethodAtRate:
    """A method at a rate, as asked. `named`: the user wrote the method's name, not a wildcard.

    rate: None of the unreduced model, and of a method that has a schedule of its own. weights: source (see
    `weights_path`) and hash of what was trained with the method.
    """

    reducer: str
    rate: Rate | None
    options: dict[str, Any]
    named: bool
    weights: tuple[str, str] | None = None

    @property
    def slot(self) -> str:
        # the file, not its hash: what is learned anew takes the place of what was
        what = [self.reducer, self.options, rate_text(self.rate), *([self.weights[0]] if self.weights else [])]
        return json.dumps(what, sort_keys=True)

    def make(self) -> Reducer:
        """The reducer, ready to be attached; a plan that it learned is known to it."""
        made = make_reducer(self.reducer, **self.options)
        if self.weights:
            read_reducer_weights(made, weights_path(self.weights[0])).prepare(made)
        return made


def expand(spec: RunSpec) -> tuple[list[MethodAtRate], list[str]]:
    """Every (method, rate) that is asked for, the unreduced model first, and a line for each pair that is left out.

    A method that is not defined for a rate is left out of that rate; RequestError if it is thereby left out of all
    rates and was named, or if no method at all takes a rate.
    """
    rates: list[Rate] = list(dict.fromkeys([*spec.rates, *spec.flops]))
    found, skipped, refused = [MethodAtRate(BASELINE, None, {}, named=False)], [], {}
    taken = dict.fromkeys(rates, False)
    methods = expand_names(spec.reducers)
    names = {name for name, _ in methods}
    for name in spec.reducer_options:
        if name not in names:
            raise unknown("reducer in reducer_options", name, sorted(names))
    weights = learned_weights(spec, methods)
    for method, named in methods.items():
        name, options = method[0], spec.reducer_options.get(method[0], {})
        named = named or name in spec.reducer_options or name in spec.reducer_weights
        like, used = MethodAtRate(name, None, options, named, weights.get(method)), False
        reducer = like.make()
        if reducer.has_fixed_schedule:
            found.append(like)
            continue
        for rate in rates:
            try:
                check_form(rate, reducer)
            except RequestError as error:
                refused[name], _ = error, skipped.append(str(error))
                continue
            found.append(replace(like, rate=rate))
            used = taken[rate] = True
        if named and not used and name in refused:
            raise refused[name]
    for rate, used in taken.items():
        if not used and refused:
            raise RequestError(f"rate {rate}: none of the reducers {', '.join(sorted(names))} is defined for it")
    return list({method.slot: method for method in found}.values()), skipped


def learned_weights(spec: RunSpec, methods: Iterable[Method]) -> dict[Method, tuple[str, str]]:
    """Method -> source and hash of what was trained with it. RequestError for what is not there.

    The embedded models come with weights for methods that mean nothing without; `NAME@none` leaves them out.
    """
    methods = list(methods)
    learning = [name for name, _ in methods if learned(spec, name)]
    given = {}
    for name, file in spec.reducer_weights.items():
        if name and name not in {name for name, _ in methods}:
            raise unknown("reducer in reducer_weights", name, sorted({name for name, _ in methods}))
        if not name and len(learning) != 1:
            which = f"{len(learning)} of the reducers learn something" if learning else "none of the reducers learns"
            raise RequestError(f"reducer weights {file!r}: {which}; write NAME={file} and name it in --reducers")
        given[name or learning[0]] = file
    for name, file in given.items():
        if (name, None) not in methods:
            raise RequestError(
                f"reducer weights {file!r}: {name!r} was named with weights of its own; write one of them"
            )
    found = {}
    for name, asked in methods:
        source = asked or given.get(name)
        if source is None and learned(spec, name) and shipped(spec, name):
            source = EMBEDDED
        if source in (None, NO_WEIGHTS):
            continue
        if source == EMBEDDED:
            if not shipped(spec, name):
                raise RequestError(
                    f"no weights of {name!r} come with model {spec.model!r}, checkpoint {spec.checkpoint!r}; "
                    "give a file"
                )
            source = f"{EMBEDDED}:{spec.model}/{name}"
        path = weights_path(source)
        if not path.is_file():
            raise RequestError(
                f"reducer weights {source!r} do not exist; give a .safetensors or weights-only .pth file"
            )
        found[name, asked] = (source, file_sha256(path))
    return found


def learned(spec: RunSpec, reducer: str) -> str | None:
    """What a method has to learn, with its options as they are."""
    return make_reducer(reducer, **spec.reducer_options.get(reducer, {})).learned


def shipped(spec: RunSpec, reducer: str) -> bool:
    return spec.checkpoint == "embedded" and shipped_weights(spec.model, reducer) is not None


def expand_names(patterns: tuple[str, ...]) -> dict[Method, bool]:
    """Methods -> whether they were named outright. RequestError for an unknown one.

    `NAME@WEIGHTS` is a method with what was trained with it: a file, 'embedded' or 'none'.
    """
    names: dict[Method, bool] = {}
    for pattern in patterns:
        if pattern == TRAINING_FREE:
            free = [name for name in list_reducers() if not reducer_class(name).learned]
            names |= {(name, None): names.get((name, None), False) for name in free}
            continue
        name, at, weights = (pattern, "", "") if ".py:" in pattern else pattern.partition("@")
        if at and not weights:
            raise RequestError(f"reducer {pattern!r}: write {name}@FILE, {name}@{EMBEDDED} or {name}@{NO_WEIGHTS}")
        if any(mark in name for mark in "*?["):
            matching = [known for known in list_reducers() if fnmatchcase(known, name)]
            if not matching:
                raise RequestError(f"no reducer matches {name!r}; known: {', '.join(list_reducers())}")
            for known in matching:
                names.setdefault((known, weights or None), False)
        else:
            reducer_class(name)
            names[name, weights or None] = True
    names.pop((BASELINE, None), None)
    return names
