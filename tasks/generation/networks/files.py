"""Files of weights that scores need: where they are looked for, and what is said where they are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from suite.errors import RequestError
from tasks.reading.user_cache import user_cache


def network_folder(option: str | None) -> Path:
    """The folder of the option, or the usual one. RequestError for one that is named and is not there."""
    if option is None:
        return user_cache("generation")
    if not Path(option).is_dir():
        raise RequestError(f"networks '{option}' is no folder; name the one that holds the scores' networks")
    return Path(option)


def lacking(folder: Path, names: Sequence[str], what: str) -> str:
    """'' where one of the files is there, else what to do."""
    if any((folder / name).exists() for name in names):
        return ""
    return f"put {' or '.join(names)} ({what}) into {folder}"


def read_weights(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The state dict of the first of the files that is there: tensors alone, for a pickle with more may run code.

    RequestError for one that cannot be read.
    """
    path = next(folder / name for name in names if (folder / name).is_file())
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes of the reader
        raise RequestError(f"'{path}' cannot be read as tensors alone: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(state, Mapping):
        raise RequestError(f"'{path}' holds a {type(state).__name__} in place of tensors by their names")
    return dict(state)


def fill(network: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Load weights that must be all that the network has. RequestError for those of another."""
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise RequestError(f"{path} is of another network: {' '.join(str(error).split())[:200]}") from error
    network.eval().requires_grad_(False)
