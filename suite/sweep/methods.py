"""A method at a rate: a reducer with its options and what it has learned, as a cell asks for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from suite.attachment.reducer_weights import read_reducer_weights
from suite.models.several import split_choice
from suite.models.shipped import weights_path
from suite.models.weights_file import file_sha256
from suite.rates.rate import Rate, rate_text
from suite.reducers import make_reducer
from suite.reducers.base import Reducer
from suite.sweep.spec import CellSpec

NO_WEIGHTS = "none"


@dataclass(frozen=True)
class MethodAtRate:
    """A method at a rate, as asked. `named`: what the model cannot do of it is refused, not left out. `timed`: see
    `CellSpec`.

    rate: None of the unreduced model, and of a method that has a schedule of its own. weights: source (see
    `weights_path`) and hash of what was trained with the method.
    """

    reducer: str
    rate: Rate | None
    options: dict[str, Any]
    named: bool
    weights: tuple[str, str] | None = None
    timed: bool = True

    @property
    def slot(self) -> str:
        # the file, not its hash: what is learned anew takes the place of what was
        what = [self.reducer, self.options, rate_text(self.rate), *([self.weights[0]] if self.weights else [])]
        return json.dumps(what, sort_keys=True)

    def make(self) -> Reducer:
        """The reducer, ready to be attached; a plan that it learned is known to it."""
        reducer = make_reducer(self.reducer, **self.options)
        if self.weights:
            read_reducer_weights(reducer, weights_path(self.weights[0])).prepare(reducer)
        return reducer


def method_of(cell: CellSpec) -> MethodAtRate:
    """What a cell measures. Its weights are a source, 'none' or empty; OSError for a file that is not there."""
    trained = cell.weights not in ("", NO_WEIGHTS)
    weights = (cell.weights, file_sha256(split_choice(str(weights_path(cell.weights)))[0])) if trained else None
    return MethodAtRate(cell.reducer, cell.rate, cell.options, not cell.optional, weights, cell.timed)
