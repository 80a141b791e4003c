"""Classes told by their names: what a text encoder makes of prompts is the classifier of an image encoder.

Source: A. Radford et al., "Learning transferable visual models from natural language supervision" (CLIP), ICML 2021:
the embeddings of a class' prompts are normalised, averaged and normalised again, and logits are scaled cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.errors import RequestError

OPEN_CLIP = "open_clip:"
DEFAULT_PROMPTS = ("a photo of a {}.",)
AT_ONCE = 256  # prompts


@dataclass(frozen=True)
class TextClassifier:
    """weight (K, D) float32, a row of length 1 a class; scale: what cosines are multiplied by."""

    weight: Tensor
    scale: float

    def logits(self, features: Tensor) -> Tensor:
        """(B, K) from the embeddings of images (B, D), in their dtype and on their device."""
        return self.scale * F.normalize(features, dim=1) @ self.weight.to(features).T


def read_prompts(path: str | None) -> tuple[str, ...]:
    """The lines of a file, each with one {} for the name of a class; None: `DEFAULT_PROMPTS`. RequestError for a file
    that cannot be read, or a line without."""
    if path is None:
        return DEFAULT_PROMPTS
    lines = read_lines("prompts", path)
    for number, line in enumerate(lines, start=1):
        if line.count("{}") != 1:
            raise RequestError(
                f"prompts '{path}', line {number}: {line!r} has not one {{}}; write 'a photo of a {{}}.'"
            )
    return lines


def read_lines(option: str, path: str) -> tuple[str, ...]:
    """Lines that are not empty. RequestError for a file that cannot be read or has none."""
    try:
        lines = tuple(line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{option} '{path}' cannot be read: {error}; name a text file") from error
    if not lines:
        raise RequestError(f"{option} '{path}' has no line; write one or more")
    return lines


def text_classifier(source: str, names: Sequence[str], prompts: Sequence[str]) -> TextClassifier:
    """What the text encoder of `source` makes of the prompts for every name.

    source: a CLIP or SigLIP model of transformers, by its id or folder, or 'open_clip:NAME' or
    'open_clip:NAME:WEIGHTS', as open_clip names them. RequestError for one that cannot be loaded.
    """
    encoder = _OpenClip(source) if source.startswith(OPEN_CLIP) else _Transformers(source)
    texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
    with torch.no_grad():
        parts = [encoder.encode(texts[i : i + AT_ONCE]).float() for i in range(0, len(texts), AT_ONCE)]
    each = F.normalize(torch.cat(parts), dim=1).unflatten(0, (len(names), len(prompts)))
    return TextClassifier(F.normalize(each.mean(dim=1), dim=1), encoder.scale)


class _Transformers:
    """The text side of a model of transformers, tokenised as it was trained: SigLIP's texts are padded to 64."""

    def __init__(self, source: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self.model: Any = AutoModel.from_pretrained(source).eval()
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, KeyError) as error:
            raise _cannot_be_loaded(source, error) from error
        if not hasattr(self.model, "get_text_features"):
            raise RequestError(f"text encoder '{source}' is a {type(self.model).__name__}; name a CLIP or SigLIP model")
        padded = "siglip" in self.model.config.model_type
        self.padding = {"padding": "max_length" if padded else True}
        self.longest: int = self.model.config.text_config.max_position_embeddings
        self.scale = self.model.logit_scale.detach().exp().item()

    def encode(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts, truncation=True, max_length=self.longest, return_tensors="pt", **self.padding)
        found = self.model.get_text_features(**tokens)
        features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
        return features


class _OpenClip:
    """The text side of a model of open_clip."""

    def __init__(self, source: str) -> None:
        name, _, weights = source.removeprefix(OPEN_CLIP).partition(":")
        try:
            import open_clip
        except ImportError as error:
            raise RequestError(
                f"text encoder '{source}' needs open_clip; pip install open_clip_torch, or name a model of transformers"
            ) from error
        try:
            self.model: Any = open_clip.create_model(name, pretrained=weights or None).eval()
            self.tokenizer: Any = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ValueError) as error:
            raise _cannot_be_loaded(source, error) from error
        self.scale = self.model.logit_scale.detach().exp().item()

    def encode(self, texts: list[str]) -> Tensor:
        features: Tensor = self.model.encode_text(self.tokenizer(texts))
        return features


def _cannot_be_loaded(source: str, error: Exception) -> RequestError:
    why = " ".join(str(error).split())
    return RequestError(f"text encoder '{source}' cannot be loaded: {why}; name a model id or a folder")
