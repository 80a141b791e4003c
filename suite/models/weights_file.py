"""Weights files: what is read, what is refused, and how a state dict gets into a model.

A weights file is data and never code: safetensors, or a pickle read by `torch.load(weights_only=True)`, which
refuses everything but tensors and plain containers.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from suite.errors import RequestError

PICKLED_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# Where training scripts put the state dict; the first that is there is used, and named in WeightsInfo.source.
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_ema", "state_dict_ema")


@dataclass(frozen=True)
class WeightsInfo:
    """Which weights a model carries. `sha256` identifies them: of the file, or of the state dict without one.

    Of a captioner, it also covers what else its captions depend on: words, preparation of images.
    """

    kind: str  # "trained" | "random"
    source: str  # "pretrained:<name>", "embedded:<name>", "random:seed=0" or the file (with its wrapper) or folder
    sha256: str


def read_state_dict(path: Path, wrapper: str = "") -> tuple[dict[str, Tensor], str]:
    """The tensors of a weights file by name, and the wrapper they were in ('' for none); no code of it is run.

    wrapper: the one to prefer where a file has several.
    Raises RequestError for a missing, broken or refused file.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise RequestError(f"checkpoint '{path}' {what}; give a file, or pretrained, embedded or none")
    if path.suffix != ".safetensors" and path.suffix not in PICKLED_SUFFIXES:
        raise RequestError(
            f"checkpoint '{path}' has suffix '{path.suffix}'; supported are .safetensors, {', '.join(PICKLED_SUFFIXES)}"
        )
    try:
        loaded = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise RequestError(f"checkpoint '{path}' cannot be read: {one_line(error)}; is it complete?") from error
    return _unwrap(loaded, path, (wrapper, *WRAPPERS))


def _load_pickle(path: Path) -> Any:
    remedy = "re-save its state dict as safetensors where you trust it"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickle protocols, before the error that says it all
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    # A broken or hostile pickle can fail in any way: UnpicklingError, RuntimeError, EOFError, KeyError, ...
    except Exception as error:
        wanted = re.search(r"(?:GLOBAL|global|class):? (?:GLOBAL )?([\w.]+\.\w+)", str(error))
        what = f"it asks for {wanted[1]}" if wanted else "it is not a complete, plain file of tensors"
        raise RequestError(
            f"checkpoint '{path}' is refused: {what}, and to unpickle that could run code; {remedy}"
        ) from error


def _unwrap(loaded: Any, path: Path, wrappers: Sequence[str]) -> tuple[dict[str, Tensor], str]:
    wrapper = ""
    if isinstance(loaded, Mapping):
        wrapper = next((key for key in wrappers if isinstance(loaded.get(key), Mapping)), "")
        loaded = loaded[wrapper] if wrapper else loaded
    if not isinstance(loaded, Mapping) or not loaded:
        raise RequestError(f"checkpoint '{path}' holds a {type(loaded).__name__} instead of a state dict of tensors")
    stray = next((key for key, value in loaded.items() if not isinstance(value, Tensor)), None)
    if stray is not None:
        raise RequestError(
            f"checkpoint '{path}' has '{stray}' of type {type(loaded[stray]).__name__} among its tensors; "
            f"save the state dict alone or under one of {', '.join(WRAPPERS)}"
        )
    return {str(key): value for key, value in loaded.items()}, wrapper


def load_into(
    model: nn.Module,
    state: dict[str, Tensor],
    path: Path,
    renamed: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> str:
    """Loads `state`, cast to the model's dtype; every key and shape must match after timm's own conversions.

    renamed: from its authors' parameter names to ours, applied once the prefixes of wrappers are gone.
    Returns what was changed on the way, to be told with the source ('' for nothing).
    """
    # Wrapping by DistributedDataParallel or torch.compile adds a prefix to every key.
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    state, note = renamed(state), ""
    if isinstance(model, timm.models.VisionTransformer):
        own, kernel = model.state_dict(), "patch_embed.proj.weight"
        kernels = [x[kernel].shape[2:] for x in (state, own) if kernel in x and x[kernel].ndim == 4]
        if len(kernels) == 2 and kernels[0] != kernels[1]:
            _check_fit(own, state, path)  # timm would resample the patches of another model without a word
        grids = [x["pos_embed"].shape[1] for x in (state, own) if "pos_embed" in x and x["pos_embed"].ndim == 3]
        if len(grids) == 2 and grids[0] != grids[1]:
            note = f", position embeddings resampled from {grids[0]} to {grids[1]}"
        try:
            state = checkpoint_filter_fn(state, model, adapt_layer_scale=True)
        except Exception as error:
            _check_fit(own, state, path)  # names the keys, where they are what is wrong
            raise RequestError(f"checkpoint '{path}' does not fit the model: {one_line(error)}") from error
    _check_fit(model.state_dict(), state, path)
    model.load_state_dict(state)
    return note


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], misfit: str, remedy: str) -> None:
    """RequestError, beginning with `misfit`, unless `state` has the keys and shapes of `own`."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        raise RequestError(f"{misfit}: {_some('missing', missing)}, {_some('unexpected', unexpected)}; {remedy}")
    for key, value in own.items():
        if value.shape != state[key].shape:
            raise RequestError(
                f"{misfit}: '{key}' has shape {tuple(state[key].shape)}, the model needs {tuple(value.shape)}"
            )


def _check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    misfit = f"checkpoint '{path}' does not fit the model"
    check_fit(own, state, misfit, "name the model that it was saved from")


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
