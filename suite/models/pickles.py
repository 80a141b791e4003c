"""Pickled checkpoints, read without running anything of theirs.

torch's `weights_only` unpickler makes tensors and plain containers and refuses all else. Training scripts put more
beside the weights: their arguments, paths, numpy's numbers. These are let through by name, and what is made in their
place is ours and does nothing: the classes of that name are never called. A file with any other name is refused.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from suite.errors import RequestError
from suite.models.pickle_protocols import rewrite


class Inert:
    """Stands for a value beside the weights, which nothing reads. It takes whatever it is made of, and forgets it."""

    def __new__(cls, *_: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class PlainDict:
    """Stands for classes of dictionaries; what it makes is one whose attributes nothing reads."""

    def __new__(cls, *held: Any) -> Any:
        return OrderedDict(held[0]) if held and isinstance(held[0], dict) else OrderedDict()


class PlainList:
    """Stands for classes of lists; what it makes is a list."""

    def __new__(cls, *_: Any) -> Any:
        return []


class DType:
    """Stands for numpy's dtype, made of a code such as 'f4'; its byte order comes with its state."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    @property
    def numeric(self) -> np.dtype | None:
        """None for what is no number: objects, records, text."""
        plain = re.fullmatch(r"b1|[iu][1248]|f[248]", str(self.code)) and self.order in ("<", ">", "=", "|")
        return np.dtype(self.order + self.code) if plain else None


class Array:
    """Stands for numpy's ndarray."""

    tensor: Tensor | None = None
    """The array, where it is one of numbers."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        if isinstance(dtype, DType) and dtype.numeric is not None and isinstance(data, bytes):
            values = np.frombuffer(data, dtype.numeric).reshape(shape, order="F" if by_columns else "C")
            self.tensor = torch.from_numpy(values.astype(dtype.numeric.newbyteorder("=")))


def new_array(*_: Any) -> Array:
    """In the place of the function that numpy's pickles call, whose state then follows."""
    return Array()


def array_of(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """In the place of the function that numpy's pickles of protocol 5 call."""
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def storage_of(data: Any) -> Any:
    """In the place of the function that pickle, without torch.save, calls for every tensor's memory."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1 and 2
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_INERT = (
    *("argparse.Namespace", "types.SimpleNamespace"),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"{module}.scalar" for module in _NUMPY),
    *(f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")),
    *("torch.torch_version.TorchVersion", "uuid.UUID", "decimal.Decimal", "fractions.Fraction"),
    *(f"builtins.{name}" for name in ("bool", "int", "float", "str", "list", "dict", "tuple", "bytes")),
    *(f"builtins.{name}" for name in ("frozenset", "range", "slice")),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")
    ),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "typing.Any"),
    *("mmengine.config.config.Config", "mmcv.utils.config.Config", "mmengine.logging.history_buffer.HistoryBuffer"),
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",  # a key of its older files
)
_DICTS = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    *("easydict.EasyDict", "addict.addict.Dict", "munch.Munch", "munch.DefaultMunch", "ml_collections.ConfigDict"),
    *("yacs.config.CfgNode", "fvcore.common.config.CfgNode", "detectron2.config.config.CfgNode"),
    *("mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict"),
)
_OTHER_PICKLES = re.compile(r"Unsupported operand \d+|Invalid magic number")  # later protocols; those that pickle wrote
STAND_INS: list[Any] = [
    *((Inert, name) for name in _INERT),
    *((PlainDict, name) for name in _DICTS),
    (PlainList, "collections.deque"),
    *((new_array, f"{module}._reconstruct") for module in _NUMPY),
    *((array_of, f"{module}.numeric._frombuffer") for module in ("numpy.core", "numpy._core")),
    *((storage_of, "torch.storage._load_from_bytes"), (Array, "numpy.ndarray"), (DType, "numpy.dtype")),
]


def load_pickle(path: Path) -> Any:
    """What torch.save wrote, or pickle, with stand-ins for harmless values. RequestError, one line, where refused."""
    try:
        with warnings.catch_warnings(), safe_globals(STAND_INS):
            warnings.simplefilter("ignore")  # remarks on pickle protocols, before the error that says it all
            try:
                with path.open("rb") as file:  # by its content, whatever it is called
                    return torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:
                if not _OTHER_PICKLES.search(str(error)):
                    raise
            return torch.load(rewrite(path), map_location="cpu", weights_only=True)
    except OSError:
        raise
    # A broken or hostile pickle can fail in any way: UnpicklingError, RuntimeError, EOFError, KeyError, ...
    except Exception as error:
        raise RequestError(f"checkpoint '{path}' is refused: {_reason(str(error))}") from error


def _reason(text: str) -> str:
    where = "where you trust it, load it as its authors do, torch.load(FILE, weights_only=False), and save"
    alone = f"{where} its state dict alone"
    if "TorchScript" in text:
        return f"it is a TorchScript program, and to load that could run code; {where} its state_dict()"
    if "legacy .tar" in text:
        return f"it is of torch's first format, which cannot be read without running code; {alone}"
    wanted = re.search(r"GLOBAL ([\w.]+)|<class '([\w.]+)'>|``(torch\.distributed[\w.]*)``", text)
    if wanted:
        name = next(filter(None, wanted.groups()))
        return f"it asks for {name}, and to unpickle that could run code; {alone}"
    return f"it is not a complete, plain file of tensors; {alone}"
