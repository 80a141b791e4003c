"""What a weights file holds, whatever its format: tensors by name. No code of a file is run.

safetensors, files of torch.save, NumPy's .npz, several files with an index, and folders with one of these.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from suite.errors import RequestError, describe_error, what_ran_out
from suite.models.file_kinds import ARRAYS, SAFETENSORS, kind_of
from suite.models.label_names import label_names_in
from suite.models.pickles import Array, load_pickle
from suite.models.several import rank
from suite.models.weights_file import file_sha256, one_line

INDEX = ".index.json"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".npz", INDEX)
IN_FOLDERS = ("model.safetensors", "pytorch_model.bin", f"model.safetensors{INDEX}", f"pytorch_model.bin{INDEX}")
DEEPEST, MOST_NAMES = 16, 1_000_000  # a file of a few bytes can nest and name more than any memory holds


@dataclass
class Contents:
    """tensors: by the keys that lead to them, joined by dots. containers: the beginnings of names that lead to a
    mapping with tensors in it, '' or with a dot at the end. files: all that were read, the one that was named first.
    label_names: of the classes, where the file says them."""

    files: tuple[Path, ...]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    containers: list[str] = field(default_factory=list)
    names: int = 0
    label_names: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.files[0]

    def sha256(self, place: str = "") -> str:
        """Of the bytes of all files, and of what `place` leads to in them; of one file its own, in hexadecimal."""
        digests = [file_sha256(file) for file in self.files]
        if len(digests) == 1 and not place:
            return digests[0]
        lines = [f"{file.name} {digest}" for file, digest in zip(self.files[1:], digests[1:])]
        return hashlib.sha256("\n".join([digests[0], *lines, place]).encode()).hexdigest()

    def add(self, value: Any, before: str = "", above: tuple[int, ...] = ()) -> None:
        """Take in the tensors that `value` holds, under names that begin with `before`. above: ids of what holds it."""
        held = dict(_items(value))
        self.names += len(held)
        if self.names > MOST_NAMES:
            raise RequestError(f"checkpoint '{self.path}' names more than {MOST_NAMES} values; give its weights alone")
        self.label_names = self.label_names or label_names_in(held)
        tensors = {f"{before}{key}": one for key, one in held.items() if isinstance(one, Tensor)}
        self.tensors |= tensors
        self.containers += [before] if tensors else []
        for key, one in held.items():
            if len(above) < DEEPEST and id(one) not in (*above, id(value)):
                self.add(one, f"{before}{key}.", (*above, id(value)))


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    # of a class: a file can put anything in the place of an instance's methods
    pairs = (
        dict.items(value) if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    for key, held in pairs:
        if isinstance(key, str | int):
            yield str(key), held.tensor if isinstance(held, Array) else held


def read_contents(path: Path) -> Contents:
    """All tensors of a weights file, or of several with an index. RequestError, one line, for a missing, broken or
    refused file."""
    contents = Contents(files_of(path))
    for file in contents.files[len(contents.files) > 1 :]:
        contents.add(_load(file))
    if not contents.tensors:
        raise RequestError(
            f"checkpoint '{contents.path}' holds no state dict of tensors; give the file of a model's weights"
        )
    return contents


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that are meant by a path, the one that leads to the others first. Errors as `read_contents`."""
    path = _file_of(path)
    return path, *_shards_of(path)


def _file_of(path: Path) -> Path:
    """The file that is meant by a path: of a folder, the one that transformers writes; of a part, the index."""
    if path.is_dir():
        found = next((path / name for name in IN_FOLDERS if (path / name).is_file()), path)
        hint = f"give a file, or a folder with {', '.join(IN_FOLDERS[:2])}"
    else:
        part = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(\.\w+)", path.name)
        found = path.with_name(f"{part[1]}{part[3]}{INDEX}") if part else path
        hint = f"it lists the {int(part[2])} parts, of which '{path.name}' is one" if part else ""
    if not found.is_file():
        what = "is not a file" if found.exists() else "does not exist"
        raise RequestError(f"checkpoint '{found}' {what}; {hint or 'give a file, or pretrained, embedded or none'}")
    if not found.name.lower().endswith(SUFFIXES):
        raise RequestError(f"checkpoint '{found}' has suffix '{found.suffix}'; supported are {', '.join(SUFFIXES)}")
    return found


def _shards_of(path: Path) -> list[Path]:
    """The files that an index names, all beside it; none of another file."""
    if not path.name.endswith(INDEX):
        return []
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        strangers = [name for name in names if Path(name).name != name or not name.endswith(SUFFIXES[:-1])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"checkpoint '{path}' is no index of weights files ({describe_error(error)}); it needs a weight_map"
        ) from error
    if strangers:
        raise RequestError(f"checkpoint '{path}' names '{strangers[0]}'; it may name weights files beside it alone")
    if missing := [name for name in names if not path.with_name(name).is_file()]:
        raise RequestError(
            f"checkpoint '{path}' names '{missing[0]}', which is not beside it ({len(missing)} of {len(names)} files "
            "are missing); fetch them all"
        )
    return [path.with_name(name) for name in names]


def _load(file: Path) -> Any:
    try:
        kind = kind_of(file)
        if kind == SAFETENSORS:
            return safetensors.torch.load_file(file)
        return _load_arrays(file) if kind == ARRAYS else load_pickle(file)
    except RequestError:
        raise
    except Exception as error:  # a broken file can fail in any way, also by claiming more than any memory holds
        if what_ran_out(error) and not isinstance(error, MemoryError):
            raise
        raise RequestError(f"checkpoint '{file}' cannot be read: {one_line(error)}; is it complete?") from error


def _load_arrays(file: Path) -> dict[str, Tensor]:
    """The arrays of numbers in an .npz, their names with dots for slashes. ValueError for one of Python's objects."""
    with np.load(file, allow_pickle=False) as arrays:
        found = {name.replace("/", "."): arrays[name] for name in arrays.files}
    return {name: _tensor_of(array) for name, array in found.items() if array.dtype.kind in "biufV"}


def _tensor_of(array: np.ndarray) -> Tensor:
    if array.dtype == np.dtype("V2"):  # what NumPy makes of bfloat16, which it does not know
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


# Where training scripts put a state dict, from the outside in.
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_ema", "state_dict_ema", "net", "module", "teacher",
            "student")  # fmt: skip

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "student.", "teacher.")  # of all keys of a wrapped model


def read_state_dict(path: Path, choice: str = "") -> tuple[dict[str, Tensor], str, list[str]]:
    """The tensors of one state dict of a file by name, what leads to it ('' for nothing), and to others like it.

    choice: what holds it; else it is looked for under `WRAPPERS`, and of those like it the averaged one is taken.
    `PREFIXES` of all its names are taken off.
    RequestError as `read_contents`, and for a file that has none there.
    """
    contents = read_contents(path)
    known = [name for name in contents.containers if not name or name.split(".")[0] in WRAPPERS]
    order = sorted(known, key=lambda name: WRAPPERS.index(name.split(".")[0]) if name else len(WRAPPERS))
    within = f"{choice}." if choice else next(iter(order), None)
    if within not in contents.containers:
        held = ", ".join(name[:-1] or "the top" for name in contents.containers[:5])
        raise RequestError(
            f"checkpoint '{path}' has no state dict under {choice or ', '.join(WRAPPERS)}; it has tensors under "
            f"{held}: choose with {path.name}::NAME"
        )
    keys = set(_keys_under(contents, within)[1])
    like = [one for one in contents.containers if set(_keys_under(contents, one)[1]) == keys]
    if not choice:
        within = min(like, key=lambda one: (rank(one), one != within))
    prefix, names = _keys_under(contents, within)
    others = [] if choice else [one[:-1] for one in like if one != within]
    within += prefix
    return {key: contents.tensors[within + key] for key in names}, within[:-1], others


def _keys_under(contents: Contents, container: str) -> tuple[str, list[str]]:
    """The prefix that all names there have, and the names without it."""
    keys, prefix = [name.removeprefix(container) for name in contents.tensors if name.startswith(container)], ""
    while first := next((one for one in PREFIXES if all(key.startswith(one) for key in keys)), ""):
        prefix, keys = prefix + first, [key.removeprefix(first) for key in keys]
    return prefix, keys
