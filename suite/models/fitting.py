"""A file's weights into a model: found, renamed, joined and resampled where that changes nothing or is asked for.

Every name and shape must match in the end, and what was done on the way is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from suite.errors import RequestError
from suite.models.candidates import Candidate, choose, find_candidates, largest_mapping, prefer
from suite.models.contents import Contents
from suite.models.described import follow_description
from suite.models.foreign_names import State
from suite.models.registry import ModelEntry
from suite.models.several import say_choice
from suite.models.weights_file import WeightsInfo, check_fit, one_line
from suite.tokens.grouping import full_precision

KERNEL, POSITIONS = "patch_embed.proj.weight", "pos_embed"
HEADS = ("head.", "head_dist.", "aux_head.")
ANY_HEAD = re.compile(r"(heads?|fc|classifier|mlp_head|cls_head|linear)\d*[._]")
HINTS = {
    "fc_norm.": "its classifier reads the mean of the patches; name a model that does, such as mae_vit_base_patch16",
    "dist_token": "it has a distillation token; name a distilled model",
    "reg_token": "it has registers; name a model with as many",
}
# What libraries put on layers, by the names that their tensors then have.
PUT_ON = {
    r"(lora|hada|lokr|ia3|vera|b?oft)_": (
        "it is an adapter alone, or has one that is not merged: merge_and_unload() and save the model"
    ),
    r"parametrizations\.|\.weight_([guv]|orig|mask)$": (
        "its layers are normed, pruned or parametrised: make that permanent, as by remove_parametrizations or "
        "prune.remove, and save it"
    ),
    r"absmax|zero_point|quant_|_packed_params|weight_scale|\.(q?scales?|qweight)$": (
        "it is quantised; give the weights before"
    ),
}
# What a linear layer is made of, in this order, where a file has it in parts or by another name.
MADE_OF = {
    "qkv": (("to_qkv",), ("q", "kv"), ("to_q", "to_kv"), ("q", "k", "v"), ("q_proj", "k_proj", "v_proj"),
            ("query", "key", "value"), ("to_q", "to_k", "to_v")),
    "q": (("q_proj",), ("query",)),
    "kv": (("k", "v"), ("k_proj", "v_proj"), ("key", "value")),
    "proj": (("out_proj",), ("to_out.0",)),
    "fc1": (("gate_proj", "up_proj"),),
}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """What a candidate comes to: a state dict of the model with so many `classes`, and what was done to it."""

    candidate: Candidate
    state: State
    classes: int
    notes: tuple[str, ...]


def load_into(
    model: nn.Module, contents: Contents, entry: ModelEntry, choice: str = "", any_classes: bool = False
) -> WeightsInfo:
    """Loads what a file has for the model, cast to the model's dtype, and says what that is.

    choice: the user's, of a file with several models. any_classes: a head of another number of classes takes the place
    of the model's. RequestError, one line, for what does not fit.
    """
    candidates = choose(find_candidates(contents, model.state_dict()), choice, contents)
    fits, errors = _try(model, candidates, contents, entry, any_classes)
    if not fits and not choice:
        fits, _ = _try(model, [largest_mapping(contents)], contents, entry, any_classes)
    if not fits:
        raise errors[prefer(candidates, entry.wrapper)[0].place]
    best, why = prefer([fit.candidate for fit in fits], entry.wrapper)
    fit = next(fit for fit in fits if fit.candidate is best)
    described, told = follow_description(model, contents.path.parent, best.library)
    contents.files += tuple(described)
    if fit.classes != getattr(model, "num_classes", fit.classes):
        with torch.random.fork_rng(devices=[]):  # the caller's random state is left alone
            cast(Any, model).reset_classifier(fit.classes)
    try:
        model.load_state_dict(fit.state)
    except RuntimeError as error:  # tensors of kinds that cannot be copied, such as those that lie on several machines
        raise RequestError(f"checkpoint '{contents.path}' cannot be loaded: {one_line(error)}") from error
    source = f"{contents.path}[{best.container}]" if best.container else str(contents.path)
    remark = ""
    if len(fits) > 1:
        remark = say_choice(contents.path, best.name, [one.candidate.name for one in fits if one is not fit], why)
    sha256 = contents.sha256(best.place if choice or len(fits) > 1 else "")
    return WeightsInfo("trained", ", ".join((source, *fit.notes, *told)), sha256, remark)


def _try(
    model: nn.Module, candidates: list[Candidate], contents: Contents, entry: ModelEntry, any_classes: bool
) -> tuple[list[Fit], dict[str, RequestError]]:
    """Those that fit, and what is wrong with the others, by their places."""
    fits, errors = [], {}
    for candidate in candidates:
        try:
            fits.append(_fit(model, candidate, contents, entry, any_classes))
        except RequestError as error:
            errors[candidate.place] = error
    return fits, errors


def _fit(model: nn.Module, candidate: Candidate, contents: Contents, entry: ModelEntry, any_classes: bool) -> Fit:
    """RequestError unless the candidate has all that the model needs, and nothing else."""
    misfit = f"checkpoint '{contents.path}' does not fit the model"
    own, state = model.state_dict(), entry.renamed(candidate.state)
    notes = [f"prefix '{candidate.prefix}' stripped"] if candidate.prefix else []
    notes += [f"'{candidate.wrapped}' taken out of names"] if candidate.wrapped else []
    notes += [f"names of {candidate.library}"] if candidate.library else []
    state, resampled = _as_timm_has_it(model, own, state, misfit)
    state, joined = join_layers(own, state)
    present = classes = int(getattr(model, "num_classes", 0))
    if any_classes and _has_other_classes(model, own, state):
        own, classes = _with_its_classes(own, state)
    check_fit(own, state, misfit, _remedy(own, state))
    for key, value in own.items():
        theirs = state[key]
        if theirs.layout != torch.strided or theirs.is_meta:
            raise RequestError(
                f"{misfit}: '{key}' is {'empty' if theirs.is_meta else theirs.layout}; give dense weights"
            )
        if value.is_floating_point() and not theirs.is_floating_point():
            raise RequestError(f"{misfit}: '{key}' holds {theirs.dtype}; give weights that are not quantised")
        if not theirs.isfinite().all():
            raise RequestError(
                f"checkpoint '{contents.path}' is of training that diverged: '{key}' is not finite; give an earlier one"
            )
    if classes != present:
        notes.append(f"{classes} classes instead of {present}")
    outside = candidate.outside
    if outside:
        more = ", ..." if len(outside) > 3 else ""
        notes.append(f"{len(outside)} tensors outside the model left out ({', '.join(outside[:3])}{more})")
    return Fit(candidate, state, classes, (*notes, *resampled, *joined))


def _as_timm_has_it(model: nn.Module, own: State, state: State, misfit: str) -> tuple[State, list[str]]:
    """After timm's own conversions, which resample position embeddings for another image size."""
    if not isinstance(model, timm.models.VisionTransformer):
        return state, []
    kernels = [x[KERNEL].shape[2:] for x in (state, own) if KERNEL in x and x[KERNEL].ndim == 4]
    if len(kernels) == 2 and kernels[0] != kernels[1]:  # timm would resample the patches of another model
        sides = ["{} x {}".format(*kernel) for kernel in kernels]
        raise RequestError(
            f"{misfit}: '{KERNEL}' is for patches of {sides[0]} pixels, and the model's have {sides[1]}; name a model "
            "of that patch size"
        )
    if lost := next((key for key in state if "pre_logits" in key), ""):  # timm would leave it out
        raise RequestError(f"{misfit}: '{lost}' is of a layer before the classifier, which the model does not have")
    # resampled in the type that they have, which in a file of half precision would be rounded once more
    wide = {key: full_precision(value) for key, value in state.items() if key == POSITIONS}
    try:
        found = checkpoint_filter_fn({**state, **wide}, model, adapt_layer_scale=True)
    except Exception as error:
        check_fit(own, state, misfit, _remedy(own, state))  # names the keys, where they are what is wrong
        raise RequestError(f"{misfit}: {one_line(error)}") from error
    counts = [x[POSITIONS].shape[1] for x in (state, found) if POSITIONS in x and x[POSITIONS].ndim == 3]
    resampled = len(counts) == 2 and counts[0] != counts[1]
    notes = ["the image tower alone"] if any(key.startswith("visual.") for key in state) else []
    notes += [f"position embeddings resampled from {counts[0]} to {counts[1]}"] if resampled else []
    return found, notes


def join_layers(own: Mapping[str, Tensor], state: State) -> tuple[State, list[str]]:
    """With every linear layer of `own` that the file has in parts made whole, and what was done.

    Queries, keys and values without a bias have one of zeros, which is the same.
    """
    state = dict(_apart(own, state))
    made: State = {}
    used: set[str] = set()
    for key in own:
        stem, layer, kind = _split(key)
        for parts in MADE_OF.get(layer, ()) if key not in state else ():
            weights, names = ([f"{stem}{part}.{end}" for part in parts] for end in ("weight", kind))
            if all(name in state for name in weights) and any(name in state for name in names):
                zeros = {name: state[weight].new_zeros(len(state[weight])) for name, weight in zip(names, weights)}
                made[key] = torch.cat([state.get(name, zeros[name]) for name in names])
                used |= {*names, *weights}
        q, v = f"{stem}q_bias", f"{stem}v_bias"
        if key not in state and (layer, kind) == ("qkv", "bias") and q in state and v in state:
            made[key] = torch.cat([state[q], torch.zeros_like(state[q]), state[v]])
            used |= {q, v, f"{stem}k_bias"}
    notes = ["layers made of their parts (q, k, v)"] if made else []
    state = {**{key: value for key, value in state.items() if key not in used}, **made}
    bare = [key for key in own if key not in state and key.endswith(("qkv.bias", "kv.bias", "attn_pool.q.bias"))]
    if bare and not any(key.endswith("qkv.bias") for key in state):
        state |= {key: torch.zeros(own[key].shape) for key in bare}
        notes.append("no bias of q, k and v: zeros")
    return state, notes


def _split(key: str) -> tuple[str, str, str]:
    """'blocks.0.attn.', 'qkv', 'weight'."""
    match = re.fullmatch(r"(.*\.)?([^.]+)\.(weight|bias)", key)
    return (match[1] or "", match[2], match[3]) if match else (key, "", "")


def _apart(own: Mapping[str, Tensor], state: State) -> list[tuple[str, Tensor]]:
    """With what torch's MultiheadAttention keeps in one by the names of the layers that the model has for it."""
    found = []
    for key, value in state.items():
        match = re.fullmatch(r"(.*\.)in_proj_(weight|bias)", key)
        if match and f"{match[1]}qkv.weight" in own:
            found.append((f"{match[1]}qkv.{match[2]}", value))
        elif match and f"{match[1]}kv.weight" in own:
            third = len(value) // 3
            found += [(f"{match[1]}q.{match[2]}", value[:third]), (f"{match[1]}kv.{match[2]}", value[third:])]
        else:
            found.append((key, value))
    return found


def _has_other_classes(model: nn.Module, own: State, state: State) -> bool:
    """Whether the file has a head that would stand in the place of the model's."""
    head, present = state.get("head.weight"), own.get("head.weight")
    width = present.shape[-1] if present is not None else getattr(model, "num_features", None)
    fits = head is not None and head.ndim == 2 and head.shape[1] == width and len(head) > 0
    return hasattr(model, "reset_classifier") and fits


def _with_its_classes(own: State, state: State) -> tuple[State, int]:
    """What the file is checked by: the parameters of a model with as many classes as the file has, and these."""
    head = state["head.weight"]
    heads = {"head.weight": head, "head.bias": head[:, 0], **{k: v for k, v in own.items() if k.startswith(HEADS)}}
    return {**own, **{key: value.new_empty((len(head), *value.shape[1:])) for key, value in heads.items()}}, len(head)


def _width(own: Mapping[str, Tensor]) -> int:
    """Of a token, 0 where the model is no Vision Transformer of timm's."""
    return own["norm.weight"].shape[0] if "norm.weight" in own else 0


def _remedy(own: Mapping[str, Tensor], state: State) -> str:
    missing, strangers = [key for key in own if key not in state], [key for key in state if key not in own]
    head, width = state.get("head.weight"), _width(own)
    for pattern, hint in PUT_ON.items():
        if any(re.search(pattern, name) for name in strangers):
            return hint
    if missing and set(missing) == {key for key in own if key.startswith(HEADS)}:
        other = next((key for key in strangers if ANY_HEAD.match(key)), "")
        if other:
            return f"its classifier is not one linear layer ('{other}'), which no model here has"
        return "it was saved without a classifier, as pre-training leaves it; give a file that was fine-tuned"
    if width and head is not None and head.ndim == 2 and head.shape[1] == 2 * width:
        return "its classifier reads the class token beside the mean of the patches, which no model here does"
    for key, hint in HINTS.items():
        if any(name.startswith(key) for name in strangers):
            return hint
    differing = [key for key in own if key in state and own[key].shape != state[key].shape]
    if strangers and not missing and not differing:
        return "save it without these, where the model does its work without them"
    if differing and not missing and all(key.startswith(HEADS) for key in differing):
        if width and head is not None and (head.ndim != 2 or head.shape[1] != width):
            return f"its classifier reads {head.shape[-1]} features, and the model's has {width}"
        return "leave the number of classes out, or give a file with as many"
    return "name the model that it was saved from"
