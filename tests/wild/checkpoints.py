"""Checkpoints as training scripts, libraries and attackers write them, of timm's `test_vit` on 64-pixel images."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import struct
import tarfile
import types
import zipfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path, PureWindowsPath

import numpy as np
import timm
import torch
from torch import Tensor, nn

MODEL, SIDE = "test_vit", 64
State = Mapping[str, Tensor]


def make_model(seed: int = 1, **options: object) -> nn.Module:
    """A model whose every tensor is noise, so that none can be left out or mistaken without a trace."""
    torch.manual_seed(seed)
    model = timm.create_model(MODEL, **{"img_size": SIDE, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def prefixed(state: State, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


# ---- what stands beside the weights


def deit_original(folder: Path) -> Path:
    """DeiT's and MAE's main.py save `args`, an argparse.Namespace, with the optimizer and the scaler."""
    model = timm.create_model(MODEL, img_size=SIDE)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, SIDE, SIDE)).sum().backward()
    optimizer.step()
    args = argparse.Namespace(lr=5e-4, output_dir=Path("out/run 1"), device=torch.device("cuda:0"), dist_url="env://")
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 299, "args": args, "scaler": {}}
    torch.save(saved, folder / "deit.pth")
    return folder / "deit.pth"


HARMLESS: dict[str, object] = {
    "argparse.Namespace": argparse.Namespace(lr=1.0, nested=argparse.Namespace(path=Path("a"))),
    "types.SimpleNamespace": types.SimpleNamespace(a=1),
    "PosixPath": Path("/data/imagenet"),
    "PureWindowsPath": PureWindowsPath("C:\\runs"),
    "numpy float": np.float32(1.5),
    "numpy integer": np.int64(3),
    "numpy bool": np.bool_(True),
    "numpy text": np.str_("top1"),
    "numpy array": np.arange(6.0).reshape(2, 3),
    "numpy array of text": np.array(["a", "bc"]),
    "numpy array of objects": np.array([{"a": 1}, None, "b"], dtype=object),
    "numpy dtype": np.dtype("float16"),
    "OrderedDict": collections.OrderedDict(a=1),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "Counter": collections.Counter("aab"),
    "torch.device": torch.device("cuda:1"),
    "torch.Size": torch.Size([1, 2]),
    "torch.dtype": torch.bfloat16,
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "slice": slice(1, 2),
    "range": range(3),
    "complex": 1j,
    "bytes": b"abc",
    "timedelta": timedelta(seconds=5),
    "type": int,
}
"""What training scripts were seen to keep in their checkpoints besides weights."""


# ---- where the weights stand

PLACES: dict[str, Callable[[State], object]] = {
    "DistributedDataParallel": lambda state: {"state_dict": prefixed(state, "module.")},
    "torch.compile": lambda state: prefixed(state, "_orig_mod."),
    "torch.compile of DistributedDataParallel": lambda state: {"model": prefixed(state, "_orig_mod.module.")},
    "Lightning": lambda state: {"state_dict": {**prefixed(state, "model."), "criterion.weight": torch.ones(3)}},
    "Lightning of a compiled net": lambda state: {"state_dict": prefixed(state, "net._orig_mod.")},
    "a backbone with its head beside it": lambda state: {
        "model": {(k if k.startswith("head.") else f"backbone.{k}"): v for k, v in state.items()}
    },
    "an encoder and fc": lambda state: {
        (k.replace("head.", "fc.") if k.startswith("head.") else f"encoder.{k}"): v for k, v in state.items()
    },
    "peft, merged": lambda state: prefixed(state, "base_model.model."),
    "AveragedModel": lambda state: {**prefixed(state, "module."), "n_averaged": torch.tensor(7)},
    "containers in containers": lambda state: {"state": {"net": {"module": prefixed(state, "student.model.")}}},
    "a list": lambda state: [{"epoch": 3}, {"state_dict": dict(state)}],
    "modules in modules": lambda state: nested(state),
    "numpy arrays": lambda state: {"model": {k: v.numpy() for k, v in state.items()}},
    "parameters": lambda state: {"model": {k: nn.Parameter(v) for k, v in state.items()}},
}
"""Of a state dict, what a script that somebody uses saves."""


def nested(state: State) -> dict:
    """Dictionaries by module, as Flax and Haiku keep parameters."""
    found: dict = {}
    for key, value in state.items():
        *parts, last = key.split(".")
        place = found
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return found


# ---- several models in one file

SEVERAL: dict[str, tuple[Callable[[State, State], object], str, str]] = {
    "timm, DeiT": (lambda a, b: {"model": a, "model_ema": b}, "model_ema", "model"),
    "timm": (lambda a, b: {"state_dict": a, "state_dict_ema": b}, "state_dict_ema", "state_dict"),
    "DINO": (
        lambda a, b: {
            "student": {**prefixed(a, "module.backbone."), "module.head.mlp.0.weight": torch.ones(2)},
            "teacher": {**prefixed(b, "backbone."), "head.mlp.0.weight": torch.ones(2)},
        },
        "teacher",
        "student",
    ),
    "Lightning, EMA in the module": (
        lambda a, b: {"state_dict": {**prefixed(a, "model."), **prefixed(b, "model_ema.module.")}},
        "model_ema",
        "state_dict.model",
    ),
    "ema_pytorch": (
        lambda a, b: {**prefixed(a, "online_model."), **prefixed(b, "ema_model."), "step": torch.tensor(1)},
        "ema_model",
        "online_model",
    ),
}
"""Of a model's weights and their averages: what is saved, and the names of the averaged ones and of the others."""


# ---- what would run code


class Opens:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return (open, (self.path, "w"))


class OpensWhenSet:
    """Makes a file when its state is set."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __setstate__(self, state: dict) -> None:
        open(state["path"], "w").close()


class StoredElsewhere(pickle.Pickler):
    """Gives tensors the id of a storage as torch.save does, with a payload in it."""

    payload: object = None

    def persistent_id(self, thing: object) -> object:
        return ("storage", self.payload, "0", "cpu", 1) if isinstance(thing, Tensor) else None


def zip_of(path: Path, pickled: bytes) -> Path:
    """A file of torch.save's format around any pickle."""
    torch.save({"a": torch.ones(1)}, path)
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w") as forged:
        for name, data in members.items():
            forged.writestr(name, pickled if name.endswith("data.pkl") else data)
    return path


def persistent_id(path: Path, state: State, ran: Path) -> None:
    file = io.BytesIO()
    pickler = StoredElsewhere(file, 2)
    pickler.payload = Opens(ran)
    pickler.dump({"model": torch.ones(1)})
    zip_of(path, file.getvalue())


def first_format(path: Path, state: State, ran: Path) -> None:
    """torch 0.1's: a tar of pickles."""
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(Opens(ran), 2)
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))


def called_by_name(path: Path, state: State, ran: Path) -> None:
    """Protocol 0's way of naming a function, in a file of torch.save's format: no class of ours has to exist."""
    zip_of(path, b"cbuiltins\nopen\n(V" + str(ran).encode() + b"\nVw\ntR.")


def through_a_stand_in(path: Path, state: State, ran: Path) -> None:
    """What is let through, Namespace, made the argument of what is not."""
    text = struct.pack("<I", len(str(ran))) + str(ran).encode()
    zip_of(path, b"\x80\x02cargparse\nNamespace\n)\x81}X\x04\x00\x00\x00pathcio\nopen\nX" + text + b"\x85Rsb.")


def object_array(path: Path, state: State, ran: Path) -> None:
    torch.save({"model": dict(state), "curve": np.array([1, Opens(ran)], dtype=object)}, path)


def numpy_archive(path: Path, state: State, ran: Path) -> None:
    np.savez(path, weight=np.array([Opens(ran)], dtype=object))


def a_part(path: Path, state: State, ran: Path) -> None:
    """The second of two files that an index names."""
    torch.save({"a": torch.ones(1)}, path.with_name("one.bin"))
    torch.save({"model": dict(state), "hook": Opens(ran)}, path.with_name("two.bin"))
    path.write_text('{"weight_map": {"a": "one.bin", "b": "two.bin"}}')


def _saved(build: Callable[[State, Path], object], **options: object) -> Callable[[Path, State, Path], None]:
    return lambda path, state, ran: torch.save(build(state, ran), path, **options)


HARMFUL: dict[str, tuple[str, Callable[[Path, State, Path], None]]] = {
    "at the top": ("a.pth", _saved(lambda state, ran: Opens(ran))),
    "beside the weights": ("a.pth", _saved(lambda state, ran: {"model": dict(state), "hook": Opens(ran)})),
    "among the tensors": ("a.pth", _saved(lambda state, ran: {**state, "head.bias": Opens(ran)})),
    "deep in containers": ("a.pth", _saved(lambda state, ran: {"model": dict(state), "a": [{"b": (1, [Opens(ran)])}]})),
    "as a key": ("a.pth", _saved(lambda state, ran: {"model": dict(state), Opens(ran): 1})),
    "in a Namespace": (
        "a.pth",
        _saved(lambda state, ran: {"model": dict(state), "args": argparse.Namespace(lr=1, hook=Opens(ran))}),
    ),
    "in a path": ("a.pth", through_a_stand_in),
    "in an array of objects": ("a.pth", object_array),
    "when a state is set": ("a.pth", _saved(lambda state, ran: {"model": dict(state), "x": OpensWhenSet(ran)})),
    "in the id of a storage": ("a.pth", persistent_id),
    "before zip files": ("a.pth", _saved(lambda state, ran: Opens(ran), _use_new_zipfile_serialization=False)),
    "torch's first format": ("a.tar", first_format),
    "a later protocol": ("a.pt", _saved(lambda state, ran: {"hook": Opens(ran)}, pickle_protocol=4)),
    "a bare pickle": ("a.bin", lambda path, state, ran: path.write_bytes(pickle.dumps(Opens(ran)))),
    "by name": ("a.ckpt", called_by_name),
    "called safetensors": ("a.safetensors", lambda path, state, ran: path.write_bytes(pickle.dumps(Opens(ran)))),
    "in a NumPy archive": ("a.npz", numpy_archive),
    "in a part of several": ("a.bin.index.json", a_part),
}
"""Where a pickle that runs code can be put: how such a file is called, and what writes it."""
