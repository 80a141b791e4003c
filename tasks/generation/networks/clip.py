"""CLIP score: how well a picture fits its prompt (Hessel et al., EMNLP 2021, without their factor of 2.5).

100 times the cosine of CLIP's embeddings of picture and prompt, 0 where that is negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.errors import RequestError
from tasks.generation.networks.files import lacking

FOLDERS = ("clip",)


class ClipScore:
    """Pictures (B, 3, H, W) uint8 and prompts (B,) -> (B,) in [0, 100]."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor

    def __call__(self, levels: Tensor, prompts: Sequence[str]) -> Tensor:
        longest = self.model.config.text_config.max_position_embeddings
        words = self.processor.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        seen = self.processor.image_processor(list(levels.cpu()), return_tensors="pt")["pixel_values"]
        device = next(self.model.parameters()).device
        with torch.no_grad():
            text = embedding(self.model.get_text_features(**words.to(device)))
            pictures = embedding(self.model.get_image_features(seen.to(device)))
        return 100 * (F.normalize(text, dim=1) * F.normalize(pictures, dim=1)).sum(1).clamp(min=0)


def embedding(found: Any) -> Tensor:
    """What older releases of transformers give out as it is."""
    return found if isinstance(found, Tensor) else found.pooler_output


def clip_lacking(folder: Path) -> str:
    return lacking(folder, FOLDERS, "the folder of a CLIP model of transformers, such as clip-vit-large-patch14")


def load_clip(folder: Path) -> ClipScore:
    """RequestError for a folder that cannot be read; weights are safetensors alone, and nothing is downloaded."""
    from transformers import CLIPModel, CLIPProcessor

    place = str(folder / FOLDERS[0])
    try:
        model = CLIPModel.from_pretrained(place, local_files_only=True, use_safetensors=True)
        processor = CLIPProcessor.from_pretrained(place, local_files_only=True)
    except Exception as error:  # whatever its parts raise
        raise RequestError(f"'{place}' cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    return ClipScore(model, processor)
