"""What the configuration beside a weights file says of a model that its tensors do not: heads, activation, colours.

transformers writes config.json and preprocessor_config.json, timm a config.json. They are data: nothing of them is run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
from timm.layers import GELU, GELUTanh
from torch import nn

from suite.errors import RequestError
from suite.models.weights_file import one_line

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
APPROXIMATE = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}  # by transformers' names


def follow_description(model: nn.Module, folder: Path, library: str) -> tuple[list[Path], list[str]]:
    """Makes `model` what the files in `folder` say, as far as that can be set, and checks the rest.

    library: whose names its tensors had. Returns the files that were followed, and what was set.
    RequestError for a model with other heads or another activation.
    """
    if not isinstance(model, timm.models.VisionTransformer) or not (folder / CONFIG).is_file():
        return [], []
    if not library.startswith("transformers"):
        of_timm = read_description(folder / CONFIG).get("pretrained_cfg")
        about = of_timm if isinstance(of_timm, dict) else {}
        set_ = _follow_colours(model, about.get("mean"), about.get("std"), CONFIG)
        return ([folder / CONFIG] if set_ else []), set_
    about = _transformers_config(folder)
    heads = cast(Any, model.blocks[0]).attn.num_heads
    if about.num_attention_heads != heads:
        raise RequestError(
            f"'{folder / CONFIG}' is of a model with {about.num_attention_heads} attention heads, not {heads}; name "
            "one with as many"
        )
    files, set_ = (
        [folder / CONFIG],
        [*_follow_activation(model, about.hidden_act, folder), *_follow_norms(model, about)],
    )
    if (folder / PREPROCESSOR).is_file():
        prepared = read_description(folder / PREPROCESSOR)
        files.append(folder / PREPROCESSOR)
        set_ += _follow_colours(model, prepared.get("image_mean"), prepared.get("image_std"), PREPROCESSOR)
    return files, set_


def read_description(file: Path) -> dict[str, Any]:
    """What a file of JSON beside the weights says; RequestError for one that is broken."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"'{file}', beside the checkpoint, cannot be read as JSON: {one_line(error)}") from error
    return content if isinstance(content, dict) else {}


def _transformers_config(folder: Path) -> Any:
    """The part on images, with transformers' defaults for what the file leaves out."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        about = getattr(config, "vision_config", config)
        assert isinstance(about.num_attention_heads, int)
    except Exception as error:  # checks of transformers' own, of many types
        raise RequestError(
            f"'{folder / CONFIG}' is no configuration of a Vision Transformer ({one_line(error)}); give the weights "
            "file without it"
        ) from error
    return about


def _follow_activation(model: nn.Module, name: Any, folder: Path) -> list[str]:
    """GELU, exact or approximated by tanh."""
    places = [(parent, key, child) for parent in model.modules() for key, child in parent.named_children()]
    places = [place for place in places if isinstance(place[2], nn.GELU | GELU | GELUTanh)]
    if not places:
        return []
    if name not in APPROXIMATE:
        raise RequestError(
            f"'{folder / CONFIG}' is of a model with activation {name!r}, not GELU; name one that has it"
        )
    changed = False
    for parent, key, child in places:
        approximate = "tanh" if isinstance(child, GELUTanh) else getattr(child, "approximate", "none")
        if approximate != APPROXIMATE[name]:
            setattr(parent, key, nn.GELU(approximate=APPROXIMATE[name]))
            changed = True
    return [f"activation {name} by {CONFIG}"] if changed else []


def _follow_norms(model: nn.Module, about: Any) -> list[str]:
    """What LayerNorms add to the variance."""
    epsilon = getattr(about, "layer_norm_eps", None)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm) and module.eps != epsilon]
    if not norms or not isinstance(epsilon, float):
        return []
    for norm in norms:
        norm.eps = epsilon
    return [f"LayerNorm epsilon {epsilon:g} by {CONFIG}"]


def _follow_colours(model: nn.Module, mean: Any, deviation: Any, file: str) -> list[str]:
    """Mean and deviation by which images are normalised."""
    asked = {"mean": mean, "std": deviation}
    if not all(isinstance(value, list | tuple) and len(value) == 3 for value in asked.values()):
        return []
    own = getattr(model, "pretrained_cfg", {})
    own = dict(own) if isinstance(own, Mapping) else own.to_dict()
    close = all(math.isclose(a, b, abs_tol=1e-3) for key in asked for a, b in zip(asked[key], own.get(key, (0, 0, 0))))
    if close:
        return []
    own |= {key: tuple(float(part) for part in value) for key, value in asked.items()}
    cast(Any, model).default_cfg = cast(Any, model).pretrained_cfg = own
    return [f"images of mean {own['mean']} and deviation {own['std']} by {file}"]
