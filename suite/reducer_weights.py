"""What a reducer has learned, in a file of its own: apart from the backbone, read like any weights file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from suite.errors import RequestError
from suite.reducers.base import Reducer
from suite.weights_file import check_fit, read_state_dict


def save_reducer_weights(reducer: Reducer, path: Path, **about: Any) -> None:
    """Write what `reducer` has learned as safetensors; `about` (recipe, data, ...) goes into the file's metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in reducer.state_dict().items()}
    metadata = {"reducer": reducer.name, **{key: json.dumps(value) for key, value in about.items()}}
    safetensors.torch.save_file(state, path, metadata=metadata)


def load_reducer_weights(reducer: Reducer, path: Path, needed: bool = True) -> None:
    """Read into a reducer that is built for its backbone; keys of its authors' checkpoints are mapped.

    needed: False where nothing is reduced, so that nothing was built.

    RequestError, one line, for a reducer that learns nothing, and for a file that is refused or does not fit.
    """
    if reducer.learned is None:
        raise RequestError(f"reducer {reducer.name!r} learns nothing, so weights {str(path)!r} have no place in it")
    if not path.is_file():
        raise RequestError(f"reducer weights {str(path)!r} do not exist; give a .safetensors or weights-only .pth file")
    if not needed:
        return reducer.mark_trained()
    own, state = reducer.state_dict(), mapped(reducer, read_state_dict(path)[0])
    if not own:
        raise RequestError(
            f"reducer {reducer.name!r} learns nothing at this rate; weights {str(path)!r} go with another"
        )
    misfit = f"weights {str(path)!r} do not fit reducer {reducer.name!r}"
    check_fit(own, state, misfit, "were they trained for this model and as many stages?")
    reducer.load_state_dict(state)
    return None


def mapped(reducer: Reducer, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reducer's part of a whole model's checkpoint under the reducer's names; any other file as it is."""
    if not reducer.checkpoint_keys:
        return state
    found = {}
    for key, value in state.items():
        for pattern, name in reducer.checkpoint_keys.items():
            if match := re.fullmatch(rf"(?:module\.)?{pattern}", key):
                found[match.expand(name)] = value
    return found or state
