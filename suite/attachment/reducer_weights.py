"""What was trained with a method, in a file of its own: what it learned and, where they learned too, the backbone's
tensors; read like any weights file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from suite.errors import RequestError
from suite.models.contents import read_state_dict
from suite.models.several import split_choice
from suite.models.weights_file import check_fit
from suite.reducers.base import Reducer
from suite.store.files import atomic_path

BACKBONE = "backbone."


@dataclass(frozen=True)
class ReducerWeights:
    """The content of a file. own: the method's tensors by its names. backbone: tensors of the backbone, by theirs."""

    path: Path
    own: Mapping[str, Tensor]
    backbone: Mapping[str, Tensor]

    def prepare(self, reducer: Reducer) -> None:
        """Let a reducer that is not built yet take its plan. RequestError for a plan that is none."""
        try:
            reducer.prepare(self.own)
        except ValueError as error:
            raise RequestError(f"weights {str(self.path)!r} do not fit reducer {reducer.name!r}: {error}") from error

    def load_into(self, reducer: Reducer) -> None:
        """Into a reducer that is built for its backbone. RequestError, one line, for what does not fit."""
        if reducer.learned is None:
            return
        own = reducer.state_dict()
        if not own:
            raise RequestError(
                f"reducer {reducer.name!r} learns nothing at this rate; weights {str(self.path)!r} go with another"
            )
        misfit = f"weights {str(self.path)!r} do not fit reducer {reducer.name!r}"
        check_fit(own, self.own, misfit, "were they trained for this model and as many stages?")
        for name, value in own.items():
            if value.is_floating_point() and not self.own[name].is_floating_point():
                raise RequestError(f"{misfit}: '{name}' holds {self.own[name].dtype}, and is learned as {value.dtype}")
        reducer.load_state_dict(self.own)


def write_tensors(path: Path, state: Mapping[str, Tensor], **about: Any) -> None:
    """A safetensors file that says `about` of itself: whole or not there at all, and the same bytes for the same."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with atomic_path(path) as file:  # one entry, for safetensors writes several in any order
        safetensors.torch.save_file(tensors, file, metadata={"about": json.dumps(about, sort_keys=True)})


def read_reducer_weights(reducer: Reducer, path: Path) -> ReducerWeights:
    """What a file holds for `reducer`, of several in it 'FILE::NAME'; keys of its authors' checkpoints are mapped.

    RequestError, one line, for a file that is refused, is another method's, or holds nothing that the method could use.
    """
    path, choice = split_choice(str(path))
    if not path.is_file():
        raise RequestError(f"reducer weights {str(path)!r} do not exist; give a .safetensors or weights-only .pth file")
    of = about(path).get("reducer", reducer.name)
    if of != reducer.name:
        raise RequestError(
            f"weights {str(path)!r} are of reducer {of!r}, not of {reducer.name!r}; give them to that one"
        )
    whole, place, others = read_state_dict(path, choice)
    if others:
        raise RequestError(
            f"weights {str(path)!r} are there twice, under {' and '.join((place, *others))}; choose with "
            f"{path.name}::NAME"
        )
    state = mapped(reducer, whole)
    if diverged := next((key for key, value in state.items() if not value.isfinite().all()), ""):
        raise RequestError(f"weights {str(path)!r} are of training that diverged: '{diverged}' is not finite")
    backbone = {key.removeprefix(BACKBONE): value for key, value in state.items() if key.startswith(BACKBONE)}
    if reducer.learned is None and not backbone:
        raise RequestError(f"reducer {reducer.name!r} learns nothing, so weights {str(path)!r} have no place in it")
    return ReducerWeights(path, {k: v for k, v in state.items() if not k.startswith(BACKBONE)}, backbone)


def about(path: Path) -> dict[str, Any]:
    """What a file of `write_tensors` says of itself; nothing of other files. RequestError for what it cannot have
    said."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safetensors.safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get("about", "{}")
    except (OSError, safetensors.SafetensorError):  # the one who reads the tensors says so
        return {}
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("recipe", {}), dict):
        raise RequestError(
            f"weights {str(path)!r} say of themselves {said[:60]!r}, which training does not write; train again, or "
            "save them without metadata"
        )
    return found


def mapped(reducer: Reducer, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reducer's part of a whole model's checkpoint under the reducer's names; any other file as it is."""
    if not reducer.checkpoint_keys:
        return state
    found = {}
    for key, value in state.items():
        for pattern, name in reducer.checkpoint_keys.items():
            if match := re.fullmatch(rf"(?:module\.)?{pattern}", key):
                found[match.expand(name)] = value
        if key.startswith(BACKBONE):
            found[key] = value
    return found if any(not key.startswith(BACKBONE) for key in found) else state
