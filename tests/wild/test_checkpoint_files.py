"""Files of weights of other formats and pickle protocols than torch.save's: read without running anything, or named."""

from __future__ import annotations

import collections
import gzip
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.serialization import safe_globals

from suite.models.load import load_model
from suite.models.pickle_protocols import rewrite
from suite.models.pickles import storage_of
from tests.wild.checkpoints import HARMLESS, MODEL, SIDE, Opens, images, make_model, refusal

Write = Callable[[Path, object], None]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return make_model()


@torch.no_grad()
def gives_the_logits_of(model: nn.Module, file: Path) -> bool:
    return torch.equal(load_model(MODEL, str(file), image_size=SIDE)[0](images()), model(images()))


def saved(protocol: int, zipped: bool) -> Write:
    return lambda path, thing: torch.save(thing, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)


def pickled(protocol: int) -> Write:
    return lambda path, thing: path.write_bytes(pickle.dumps(thing, protocol)) and None


PROTOCOLS: dict[str, Write] = {
    **{f"torch.save, protocol {number}": saved(number, True) for number in (2, 3, 4, 5)},
    **{f"before zip files, protocol {number}": saved(number, False) for number in (2, 3, 4, 5)},
    **{f"pickle, protocol {number}": pickled(number) for number in (2, 3, 4, 5)},
}


class WithAttributes:
    """A dictionary with attributes that stand before its methods."""

    def __reduce__(self) -> tuple:
        return (collections.OrderedDict, (), {"items": 1, "get": 2, "keys": 3}, None, iter({"a": 1}.items()))


class Settings(dict):
    """A dictionary with attributes, as libraries of settings make them."""

    frozen: bool


@pytest.mark.parametrize("way", PROTOCOLS)
def test_pickles_of_any_protocol_from_the_second_are_read(tmp_path, trained, way):
    state = trained.state_dict()
    beside = [
        *HARMLESS.values(),
        {"a", 1},
        frozenset("ab"),
        bytearray(b"ab"),
        "a" * 300,
        "\ud800",
        2**70,
        -1,
        ("a", "a"),
    ]
    PROTOCOLS[way](tmp_path / "a.pkl", {"beside": beside, "model": dict(state), "class_to_idx": WithAttributes()})
    assert gives_the_logits_of(trained, tmp_path / "a.pkl")
    PROTOCOLS[way](tmp_path / "b.pth", {key: value.numpy() for key, value in state.items()})
    assert gives_the_logits_of(trained, tmp_path / "b.pth")


def test_what_is_rewritten_is_the_same_thing(tmp_path):
    shared = [1.5, "a", None]
    thing = {"a": shared, "b": shared, "b c": ("a", "a", b"\xff" * 300, b""), 3: {"x": torch.arange(3)}, "y": "ä\nb"}
    for write in (write for name, write in PROTOCOLS.items() if not name.endswith("2")):
        write(tmp_path / "a.pth", thing)
        with safe_globals([(storage_of, "torch.storage._load_from_bytes")]):
            read = torch.load(rewrite(tmp_path / "a.pth"))
        assert torch.equal(read[3].pop("x"), torch.arange(3))
        assert read == {**thing, 3: {}}
        assert read["a"] is read["b"]


class InMemory:
    """What pickle, without torch.save, calls for a tensor's memory: a pickle within the pickle."""

    def __init__(self, thing: object, protocol: int) -> None:
        self.held = pickle.dumps(thing, protocol)

    def __reduce__(self) -> tuple:
        return (torch.storage._load_from_bytes, (self.held,))


HIDDEN: dict[str, Callable[[Opens], object]] = {
    "beside": lambda opens: {"hook": opens},
    "in a set": lambda opens: {"a": {opens}},
    "in a frozen set, as a key": lambda opens: {frozenset([opens]): 1},
    "in a tensor's memory": lambda opens: InMemory(opens, 2),
    "in a tensor's memory, of a later protocol": lambda opens: InMemory(opens, 4),
    "in an array": lambda opens: np.array([opens], dtype=object),
}


@pytest.mark.parametrize("place", HIDDEN)
@pytest.mark.parametrize("way", PROTOCOLS)
def test_what_runs_code_runs_nothing_in_any_protocol(tmp_path, trained, way, place):
    ran = tmp_path / "ran"
    PROTOCOLS[way](tmp_path / "a.pkl", [dict(trained.state_dict()), HIDDEN[place](Opens(ran))])
    assert "open" in refusal(tmp_path / "a.pkl") or "memory" in place
    assert not ran.exists()


@pytest.mark.parametrize(
    "forged",
    [
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x0b1/0 or 'ran'\x85R.",
        b"\x80\x04\x8c\x04x\ncb\x8c\x04eval\x93.",  # a line break, which would be another operation of protocol 2
        b"\x80\x04\x93.",
        b"\x80\x04}N}\x92.",
        b"\x80\x05\x97.",
        b"\x80\x04\x8d" + b"\xff" * 8 + b".",
        b"\x80\x04h\x07.",
        b"(S'a'\ni__main__\nX\n.",
        b"\x80\x04",
    ],
)
def test_forged_pickles_are_refused_in_one_line(tmp_path, forged):
    (tmp_path / "a.pkl").write_bytes(forged)
    refusal(tmp_path / "a.pkl")


SETTINGS = ["easydict.EasyDict", "yacs.config.CfgNode", "mmengine.config.config.ConfigDict", "addict.addict.Dict"]


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_libraries_are_dictionaries(tmp_path, trained, name):
    arrays = {key: value.numpy() for key, value in trained.state_dict().items()}
    settings = Settings(lr=0.1, model=arrays)
    settings.frozen = True
    module, _, kind = name.rpartition(".")
    written = pickle.dumps({"cfg": settings}, 2)
    (tmp_path / "a.pkl").write_bytes(
        written.replace(f"c{__name__}\nSettings\n".encode(), f"c{module}\n{kind}\n".encode())
    )
    assert gives_the_logits_of(trained, tmp_path / "a.pkl")


def test_a_file_is_what_it_holds_and_not_what_it_is_called(tmp_path, trained):
    state = {key: value.contiguous() for key, value in trained.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "a.PTH")
    torch.save(state, tmp_path / "b.safetensors")
    np.savez(tmp_path / "c.npz", **{key: value.numpy() for key, value in state.items()})
    (tmp_path / "c.npz").rename(tmp_path / "c.bin")
    for name in ("a.PTH", "b.safetensors", "c.bin"):
        assert gives_the_logits_of(trained, tmp_path / name), name


def test_what_is_no_weights_file_is_named_with_what_to_do(tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "real.pth")
    real = (tmp_path / "real.pth").read_bytes()
    with tarfile.open(tmp_path / "packed.tar", "w") as tar:
        tar.add(tmp_path / "real.pth", "in/real.pth")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w") as archive:
        archive.write(tmp_path / "real.pth", "in/real.pth")
    for name, content, said in (
        ("lfs.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("page.safetensors", b"\n<!doctype html><title>404</title>", "a web page; download the file itself"),
        ("gz.pth", gzip.compress(real), "packed by gzip; unpack it"),
        ("keras.bin", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("none.pth", b"", "is empty; fetch it again"),
        ("cut.pth", real[:3000], "is it complete?"),
        ("packed.tar", None, "a tar archive of 'in/real.pth'; unpack it and give that"),
        ("packed.pth", None, "a zip archive of 'in/real.pth'; unpack it and give that"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert said in refusal(tmp_path / name), name


def test_weights_of_a_training_that_diverged_are_refused(tmp_path, trained):
    for value in (float("nan"), float("inf")):
        state = {**trained.state_dict(), "blocks.1.mlp.fc1.bias": torch.full((192,), value)}
        torch.save(state, tmp_path / "a.pth")
        assert "diverged: 'blocks.1.mlp.fc1.bias' is not finite" in refusal(tmp_path / "a.pth")


def renamed(state, end):
    return {**state, **{key.replace("qkv.weight", f"qkv.{end}"): value for key, value in state.items()}}


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda state: {**state, "total_ops": torch.zeros(1)}, "save it without these"),
        (lambda state: {**state, "head.weight": torch.ones(7, 9), "head.bias": torch.ones(7)}, "reads 9 features"),
        (
            lambda state: {key.replace("head.", "head.mlp.0."): value for key, value in state.items()},
            "not one linear layer ('head.mlp.0.weight')",
        ),
        (lambda state: {key: value for key, value in state.items() if key != "head.bias"}, "name the model"),
        (lambda state: {"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.ones(4, 64)}, "merge_and_unload()"),
        (lambda state: renamed(state, "weight_g"), "make that permanent"),
        (lambda state: renamed(state, "parametrizations.weight.original0"), "make that permanent"),
        (lambda state: renamed(state, "weight_mask"), "make that permanent"),
        (lambda state: renamed(state, "weight.absmax"), "it is quantised"),
    ],
)
def test_the_remedy_is_for_what_does_not_fit(tmp_path, trained, change, remedy):
    torch.save(change(trained.state_dict()), tmp_path / "a.pth")
    assert remedy in refusal(tmp_path / "a.pth")
