"""What is known of a model's weights, and whether a state dict is the one of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from suite.errors import RequestError


@dataclass(frozen=True)
class WeightsInfo:
    """Which weights a model carries. `sha256` identifies them: of the file, or of the state dict without one.

    Of a captioner, it also covers what else its captions depend on: words, preparation of images.
    """

    kind: str  # "trained" | "random"
    source: str  # "pretrained:<name>", "embedded:<name>", "random:seed=0" or the file or folder, and how it was adapted
    sha256: str
    remark: str = ""  # how they were chosen, where a file has several

    @property
    def notes(self) -> list[str]:
        """What the user should know of weights that are no download and do not come with the suite."""
        if self.kind == "random" or self.source.startswith(("pretrained:", "embedded:")):
            return []
        return [f"weights: {self.source}", *([f"weights: {self.remark}"] if self.remark else [])]


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], misfit: str, remedy: str) -> None:
    """RequestError, beginning with `misfit`, unless `state` has the keys and shapes of `own`."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        raise RequestError(f"{misfit}: {_some('missing', missing)}, {_some('unexpected', unexpected)}; {remedy}")
    differing = [
        f"'{key}' has shape {tuple(state[key].shape)}, the model needs {tuple(value.shape)}"
        for key, value in own.items()
        if value.shape != state[key].shape
    ]
    if differing:
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise RequestError(f"{misfit}: {'; '.join(differing[:3])}{more}; {remedy}")


def _some(what: str, keys: list[str]) -> str:
    names = f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
    return f"{len(keys)} keys {what}{names}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_dict_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in the order of the names: equal weights give equal digests."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def one_line(error: BaseException) -> str:
    """The text of an error of another library, on one line of bounded length."""
    text = " ".join(str(error).split())
    return (text[:200] + "...") if len(text) > 200 else text or type(error).__name__
