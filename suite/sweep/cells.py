"""The cells that a spec asks for: those that it lists, or all combinations of its lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from suite.contract.baseline import BASELINE
from suite.errors import RequestError, unknown
from suite.models.several import split_choice
from suite.models.shipped import EMBEDDED, shipped_weights, weights_path
from suite.rates.rate import Rate
from suite.rates.schedule import check_form
from suite.reducers import list_reducers, make_reducer, reducer_class, reducer_options
from suite.sweep.methods import NO_WEIGHTS, MethodAtRate, method_of
from suite.sweep.spec import OF_A_RUN, CellSpec, RunSpec, is_wildcard

TRAINING_FREE = "training-free"
SEED = "seed"  # the option of what draws at random


def expand(spec: RunSpec) -> tuple[list[MethodAtRate], list[str]]:
    """The methods at their rates that the cells of a spec are of, and a line for each cell that is left out.

    RequestError for cells that are not of one run, and what `list_cells` refuses.
    """
    cells, skipped = list_cells(spec)
    check_one_run(cells)
    methods = map(method_of, cells)
    return list({method.slot: method for method in methods}.values()), skipped


def list_cells(spec: RunSpec) -> tuple[list[CellSpec], list[str]]:
    """Every cell that is asked for, the unreduced model first, and a line for each that is left out.

    What is listed has to be defined: RequestError for a cell that is not, unless it is optional. Of lists, a method
    that is not defined for a rate is left out of that rate; RequestError if it is thereby left out of all rates and was
    named, or if no method at all takes a rate.
    """
    cells = spec.cells or cells_of_names(spec)
    check_names(spec.reducer_options, cells, "reducer_options")
    cells = with_draws(with_weights(spec, cells), spec.draw_seeds)
    found, skipped = take_defined(cells) if spec.cells else combine(cells, [*spec.rates, *spec.flops])
    return [CellSpec(reducer=BASELINE, **shared_keys(spec)), *found], skipped


def cells_of_names(spec: RunSpec) -> list[CellSpec]:
    """A cell without a rate for each reducer that the spec names, with its options and the weights behind its name."""
    found = []
    for (name, weights), named in expand_names(spec.reducers).items():
        options = spec.reducer_options.get(name, {})
        optional = not (named or name in spec.reducer_options or name in spec.reducer_weights)
        found.append(CellSpec(reducer=name, weights=weights, options=options, optional=optional, **shared_keys(spec)))
    return found


def shared_keys(spec: RunSpec) -> dict[str, Any]:
    return {key: getattr(spec, key) for key in OF_A_RUN}


def take_defined(cells: Sequence[CellSpec]) -> tuple[list[CellSpec], list[str]]:
    """Those whose reducer is defined for their rate, and a line for each of the rest. RequestError if one of these is
    not optional."""
    found, skipped = [], []
    for cell in cells:
        try:
            check_rate(cell)
        except RequestError as error:
            if not cell.optional:
                raise
            skipped.append(str(error))
            continue
        found.append(cell)
    return found, skipped


def check_rate(cell: CellSpec) -> None:
    """RequestError if the cell's reducer needs a rate, or takes none or another one."""
    reducer = method_of(cell).make()
    if cell.rate is None:
        if not reducer.has_fixed_schedule and cell.reducer != BASELINE:
            raise RequestError(f"cell of reducer {cell.reducer!r} has no rate; add one, such as rate: flops=-35%")
    elif cell.reducer == BASELINE:
        raise RequestError(f"cell of reducer {BASELINE!r}: nothing is reduced at rate {cell.rate}; leave the rate out")
    else:
        check_form(cell.rate, reducer)


def combine(cells: Sequence[CellSpec], rates: Sequence[Rate]) -> tuple[list[CellSpec], list[str]]:
    """Every one of the cells, which have no rates, at every rate that it is defined for."""
    found, skipped, refused = [], [], {}
    taken = dict.fromkeys(rates, False)
    for cell in cells:
        reducer, used = method_of(cell).make(), False
        if reducer.has_fixed_schedule:
            found.append(cell)
            continue
        for rate in taken:
            try:
                check_form(rate, reducer)
            except RequestError as error:
                refused[cell.reducer] = error
                skipped.append(str(error))
                continue
            found.append(cell.model_copy(update={"rate": rate}))
            used = taken[rate] = True
        if not cell.optional and not used and cell.reducer in refused:
            raise refused[cell.reducer]
    names = ", ".join(sorted({cell.reducer for cell in cells}))
    for rate, used in taken.items():
        if not used and refused:
            raise RequestError(f"rate {rate}: none of the reducers {names} is defined for it")
    return found, skipped


def check_one_run(cells: Sequence[CellSpec]) -> None:
    """RequestError for cells of several models, precisions or runtimes: a run's folder holds one of each."""
    for key in OF_A_RUN:
        values = dict.fromkeys(getattr(cell, key) for cell in cells)
        if len(values) > 1:
            said = ", ".join(value if isinstance(value, str) else "+".join(value) for value in values)
            raise RequestError(
                f"cells are of several values of {key} ({said}); one run holds one {key}: ask for each in "
                "a run of its own"
            )


def check_names(named: Iterable[str], cells: Iterable[CellSpec], key: str) -> None:
    """RequestError for a reducer that no cell is of."""
    names = {cell.reducer for cell in cells}
    for name in named:
        if name not in names:
            raise unknown(f"reducer in {key}", name, sorted(names))


def with_weights(spec: RunSpec, cells: Sequence[CellSpec]) -> list[CellSpec]:
    """The cells with the source (see `weights_path`) of what was trained with their reducer; '' or 'none': nothing.

    RequestError for what is not there. The embedded models come with weights for methods that mean nothing without;
    `NAME@none` leaves them out.
    """
    methods = {(cell.reducer, cell.weights): cell for cell in cells}
    learning = [name for (name, _), cell in methods.items() if learned(cell)]
    given = {}
    check_names([name for name in spec.reducer_weights if name], cells, "reducer_weights")
    for name, file in spec.reducer_weights.items():
        if not name and len(learning) != 1:
            which = f"{len(learning)} of the reducers learn something" if learning else "none of the reducers learns"
            raise RequestError(f"reducer weights {file!r}: {which}; write NAME={file} and name it in --reducers")
        given[name or learning[0]] = file
    for name, file in given.items():
        if (name, "") not in methods:
            raise RequestError(
                f"reducer weights {file!r}: {name!r} was named with weights of its own; write one of them"
            )
    found = []
    for cell in cells:
        source = cell.weights or given.get(cell.reducer, "")
        if not source and learned(cell) and shipped(spec, cell):
            source = EMBEDDED
        if source == EMBEDDED:
            if not shipped(spec, cell):
                raise RequestError(
                    f"no weights of {cell.reducer!r} come with model {cell.model!r}, checkpoint {spec.checkpoint!r}; "
                    "give a file"
                )
            source = f"{EMBEDDED}:{cell.model}/{cell.reducer}"
        if source not in ("", NO_WEIGHTS) and not split_choice(str(weights_path(source)))[0].is_file():
            raise RequestError(
                f"reducer weights {source!r} do not exist; give a .safetensors or weights-only .pth file"
            )
        found.append(cell.model_copy(update={"weights": source}))
    return found


def with_draws(cells: Sequence[CellSpec], seeds: int) -> list[CellSpec]:
    """The cells, those of methods that draw at random `seeds` times, with the option `seed` = 1, 2, ... from the second
    on. RequestError for several seeds where nothing draws."""
    drawing = [cell for cell in cells if draws(cell)]
    if seeds > 1 and not drawing:
        raise RequestError(f"draw_seeds={seeds}: none of the reducers draws at random; leave it out")
    repeats = [
        cell.model_copy(update={"options": {**cell.options, SEED: seed}, "timed": False})
        for cell in drawing
        for seed in range(1, seeds)
    ]
    return [*cells, *repeats]


def draws(cell: CellSpec) -> bool:
    """Whether the cell's reducer draws at random, by a seed that is left open."""
    return SEED in reducer_options(cell.reducer) and SEED not in cell.options


def learned(cell: CellSpec) -> str | None:
    """What the cell's reducer has to learn, with its options as they are."""
    return make_reducer(cell.reducer, **cell.options).learned


def shipped(spec: RunSpec, cell: CellSpec) -> bool:
    return spec.checkpoint == EMBEDDED and shipped_weights(cell.model, cell.reducer) is not None


def expand_names(patterns: tuple[str, ...]) -> dict[tuple[str, str], bool]:
    """Reducers and the weights written behind them, '' for none -> whether they were named outright.

    `NAME@WEIGHTS` is a reducer with what was trained with it: a file, 'embedded' or 'none'. RequestError for an unknown
    one.
    """
    names: dict[tuple[str, str], bool] = {}
    for pattern in patterns:
        if pattern == TRAINING_FREE:
            free = [name for name in list_reducers() if not reducer_class(name).learned]
            names |= {(name, ""): names.get((name, ""), False) for name in free}
            continue
        name, at, weights = (pattern, "", "") if ".py:" in pattern else pattern.partition("@")
        if at and not weights:
            raise RequestError(f"reducer {pattern!r}: write {name}@FILE, {name}@{EMBEDDED} or {name}@{NO_WEIGHTS}")
        if is_wildcard(name):
            matching = [known for known in list_reducers() if fnmatchcase(known, name)]
            if not matching:
                raise RequestError(f"no reducer matches {name!r}; known: {', '.join(list_reducers())}")
            for known in matching:
                names.setdefault((known, weights), False)
        else:
            reducer_class(name)
            names[name, weights] = True
    names.pop((BASELINE, ""), None)
    return names
