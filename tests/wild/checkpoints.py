"""Checkpoints as training scripts, libraries and attackers write them, of timm's `test_vit` on 64-pixel images."""

from __future__ import annotations

import argparse
import collections
import decimal
import fractions
import io
import json
import pickle
import random
import struct
import tarfile
import types
import uuid
import zipfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from suite.errors import RequestError
from suite.models.load import load_model
from suite.models.registry import CLASSIFIER, ModelEntry

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


def images(side: int = SIDE) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def refusal(file: Path | str, model: str = MODEL, **options) -> str:
    """What is said where a file is refused."""
    with pytest.raises(RequestError) as caught:
        load_model(model, str(file), **{"image_size": SIDE, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    "deque": collections.deque([1, 2], maxlen=3),
    "UUID": uuid.UUID(int=7),
    "Decimal": decimal.Decimal("0.1"),
    "Fraction": fractions.Fraction(1, 3),
    "state of random": random.Random(0).getstate(),
    "state of numpy's random numbers": np.random.RandomState(0).get_state(),
    "numpy records": np.zeros(2, dtype=[("a", "f4"), ("b", "i8")]),
    "numpy date": np.array(["2024-01-01"], dtype="datetime64[D]"),
    "type": int,
}
"""What training scripts were seen to keep in their checkpoints besides weights."""


# ---- where the weights stand


def by_module(state: State) -> dict:
    """Dictionaries in dictionaries, as Flax and Haiku keep parameters."""
    found: dict = {}
    for key, value in state.items():
        *parts, last = key.split(".")
        place = found
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return found


def in_itself(state: State) -> dict:
    found: dict = {"model": dict(state)}
    found["trainer"] = {"all": [found]}
    return found


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
    "compiled blocks": lambda state: {k.replace("blocks.0.", "blocks.0._orig_mod."): v for k, v in state.items()},
    "activation checkpointing within FSDP": lambda state: {
        f"_fsdp_wrapped_module.{k.replace('blocks.', 'blocks._fsdp_wrapped_module._checkpoint_wrapped_module.')}": v
        for k, v in state.items()
    },
    "a container in itself": in_itself,
    "peft, merged": lambda state: prefixed(state, "base_model.model."),
    "AveragedModel": lambda state: {**prefixed(state, "module."), "n_averaged": torch.tensor(7)},
    "containers in containers": lambda state: {"state": {"net": {"module": prefixed(state, "student.model.")}}},
    "a list": lambda state: [{"epoch": 3}, {"state_dict": dict(state)}],
    "modules in modules": by_module,
    "numpy arrays": lambda state: {"model": {k: v.numpy() for k, v in state.items()}},
    "numpy arrays by columns, of the other byte order": lambda state: {
        k: np.asfortranarray(v.numpy()).astype(">f4", order="K") for k, v in state.items()
    },
    "parameters": lambda state: {"model": {k: nn.Parameter(v) for k, v in state.items()}},
}
"""Of a state dict, what a script that somebody uses saves."""


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


# ---- several files


def shards(folder: Path, state: State) -> Path:
    """Two files and their index, as transformers and accelerate write large models."""
    names = list(state)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    index = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        safetensors.torch.save_file({name: state[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder / "model.safetensors.index.json"


# ---- other libraries' models


def noisy(model: nn.Module, seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def small(**options) -> ModelEntry:
    shape = {"img_size": 56, "patch_size": 14, "embed_dim": 64, "depth": 3, "num_heads": 2, "mlp_ratio": 3.0}
    build = "timm.models.vision_transformer:VisionTransformer"
    return ModelEntry("small", CLASSIFIER, build, {**shape, "num_classes": 0, **options})


def flax_arrays(
    model: VisionTransformer, prefix: str, big_vision: bool, stacked: bool = False
) -> dict[str, np.ndarray]:
    """Random arrays by the names and shapes of big_vision's, or of the older vision_transformer repository's files."""
    rng, width, heads = np.random.default_rng(0), 64, 2
    hidden = model.blocks[0].mlp.fc1.out_features

    def attention(name: str) -> dict[str, tuple[int, ...]]:
        ends = {"kernel": (width, heads, width // heads), "bias": (heads, width // heads)}
        qkv = {f"{name}/{one}/{end}": ends[end] for one in ("query", "key", "value") for end in ends}
        return {**qkv, f"{name}/out/kernel": (heads, width // heads, width), f"{name}/out/bias": (width,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}/scale": (width,), f"{name}/bias": (width,)}

    def mlp(name: str) -> dict[str, tuple[int, ...]]:
        first = {f"{name}/Dense_0/kernel": (width, hidden), f"{name}/Dense_0/bias": (hidden,)}
        return {**first, f"{name}/Dense_1/kernel": (hidden, width), f"{name}/Dense_1/bias": (width,)}

    a, b, c = (0, 0, 1) if big_vision else (1, 3, 2)
    positions = "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"
    shapes = {"embedding/kernel": (14, 14, 3, width), "embedding/bias": (width,), **norm("Transformer/encoder_norm")}
    shapes[positions] = tuple(model.pos_embed.shape)
    if model.cls_token is not None:
        shapes["cls"] = (1, 1, width)
    if model.attn_pool is not None:
        pool = "MAPHead_0"
        shapes |= {f"{pool}/probe": (1, 1, width), **attention(f"{pool}/MultiHeadDotProductAttention_0")}
        shapes |= {**norm(f"{pool}/LayerNorm_0"), **mlp(f"{pool}/MlpBlock_0")}
    else:
        shapes |= {"head/kernel": (width, 5), "head/bias": (5,)}
    block = {
        **norm("LayerNorm_0"),
        **attention(f"MultiHeadDotProductAttention_{a}"),
        **mlp(f"MlpBlock_{b}"),
        **norm(f"LayerNorm_{c}"),
    }
    for name, shape in block.items():
        if stacked:
            shapes[f"Transformer/encoderblock/{name}"] = (len(model.blocks), *shape)
        else:
            shapes |= {f"Transformer/encoderblock_{i}/{name}": shape for i in range(len(model.blocks))}
    return {prefix + name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
