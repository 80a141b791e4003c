"""A whole GIT model that captions images: its encoder runs once an image, under whatever reducer is attached to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.git.modeling_git import GitForCausalLM

from suite.backbones.git import (
    ImageTokens,
    features_to_learn,
    image_features,
    next_word_logits,
    use_fused_attention,
    vision_of,
)
from suite.backbones.sharing import with_module
from suite.errors import OutputError, RequestError


class Tokenizer(Protocol):
    """What turns ids into text; those of `tokenizers` and of `transformers` do."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str: ...


class NumberedWords:
    """Stands in for the tokenizer of a model that has none, such as one of random weights: id 7 is the word w7."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(f"w{i}" for i in ids)


@dataclass(frozen=True)
class Caption:
    """text: without special tokens. tokens: ids as generated, the end token included where there is one."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Decoding:
    """How captions are generated: greedily (num_beams=1) or by beam search, of at most `max_new_tokens` tokens.

    Nothing is sampled, and no file that lies beside a model's weights has a say.
    """

    num_beams: int = 1
    max_new_tokens: int = 20

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_new_tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise RequestError(f"{name}={value!r}: captions need a whole number of at least 1")

    def settings(self, model: Any, use_cache: bool = True, **changes: Any) -> GenerationConfig:
        """As transformers takes them; `model` is a GIT model's config, which names the special tokens."""
        return GenerationConfig(
            **{
                "do_sample": False,
                "num_beams": self.num_beams,
                "max_new_tokens": self.max_new_tokens,
                "length_penalty": 1.0,
                "early_stopping": False,
                "use_cache": use_cache,
                "bos_token_id": model.bos_token_id,
                "eos_token_id": model.eos_token_id,
                "pad_token_id": model.pad_token_id,
                **changes,
            }
        )


class Captioner(nn.Module):
    """transformers' GIT with its tokenizer. Reducers attach to its `backbone`, the image encoder.

    Its attention in the encoder is fused from now on. `pretrained_cfg` says how images are prepared, as timm's models
    do. Each image is encoded once; transformers' own `generate` then reads the encoder's output.
    """

    def __init__(
        self, git: GitForCausalLM, tokenizer: Tokenizer | None = None, pretrained_cfg: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if git.config.num_image_with_embedding is not None:
            raise RequestError("a GIT model of videos is not supported; use one of single images (git_base_coco)")
        use_fused_attention(git)
        self.git = git
        self.tokenizer = NumberedWords() if tokenizer is None else tokenizer
        self.default_cfg = self.pretrained_cfg = dict(pretrained_cfg or {})

    @property
    def backbone(self) -> nn.Module:
        return vision_of(self.git)

    def forward(self, images: Tensor, **options: Any) -> list[Caption]:
        return self.generate(images, **options)

    def next_word_logits(self, images: Tensor, words: Tensor) -> Tensor:
        """Logits (B, T, V), with gradient, of the word after each of `words` (B, T), ids that begin with BOS.

        Of captions of images (B, 3, H, W), through whatever reducer is attached.
        """
        features, bias = features_to_learn(self.backbone, images)
        return next_word_logits(self.git, features, words, bias)

    @torch.no_grad()
    def generate(
        self,
        images: Tensor,
        *,
        num_beams: int = 1,
        max_new_tokens: int = 20,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool = True,
    ) -> list[Caption]:
        """A caption for every image of (B, 3, H, W).

        Args:
            num_beams, max_new_tokens: see `Decoding`.
            input_ids: (B, L) int64 prompts to go on from, beginning with the BOS token; default that token alone.
            attention_mask: (B, L), 0 on padding, which stands on the left; default no padding.
            use_cache: False computes every step from the start, with the same result.

        An image's caption does not depend on its neighbours: those with as many tokens in image and prompt are decoded
        together, without padding. RequestError for prompts that do not fit; OutputError where a next word's scores
        are NaN, of which a search would make words all the same.
        """
        decoding = Decoding(num_beams, max_new_tokens)
        prompts = self._prompts(images, input_ids, attention_mask)
        self.check_length(max_new_tokens, max(map(len, prompts)))
        settings = decoding.settings(self.git.config, use_cache)
        features, valid = image_features(self.backbone, images)
        captions: dict[int, Caption] = {}
        for rows, alike in same_length(features, valid, prompts):
            prompt = torch.stack([prompts[row] for row in rows])
            check = _RefuseNaN(rows, num_beams)
            generated = self._decode(alike, prompt, settings, check)[:, prompt.shape[1] :].tolist()
            captions |= {row: self._caption(ids) for row, ids in zip(rows, generated, strict=True)}
        return [captions[row] for row in range(len(images))]

    @torch.no_grad()
    def decoding_macs(self, images: Tensor, num_beams: int = 1) -> dict[str, int]:
        """MACs per image of (B, 3, H, W) at batch 1, of all beams, after the encoder and with what is attached to it.

        prefill: all up to the first token (visual projection, image tokens and BOS through the decoder, output layer).
        per_token: the cached step after it. As dispatched in what really runs; means over images that differ.
        """
        features, valid = image_features(self.backbone, images)
        bos = [self._bos(images)] * len(images)
        counted = []
        for rows, alike in same_length(features, valid, bos):
            counted += [self._step_macs(alike[:1], bos[0][None], num_beams)] * len(rows)
        prefill, per_token = (round(sum(macs) / len(counted)) for macs in zip(*counted, strict=True))
        return {"prefill": prefill, "per_token": per_token}

    def _step_macs(self, features: Tensor, prompt: Tensor, num_beams: int) -> tuple[int, int]:
        """Of the first step and of the second, for encoder output (1, N, C)."""
        settings = Decoding(num_beams, 2).settings(self.git.config, eos_token_id=None)
        # explicit attention is made of products that every release of the counter knows
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            steps = _CountSteps(counter)
            self._decode(features, prompt, settings, steps)
        first, second = steps.flops
        return first // 2, (second - first) // 2

    def _decode(self, features: Tensor, prompt: Tensor, settings: GenerationConfig, watch: LogitsProcessor) -> Tensor:
        """Prompts (B, L) and what follows, (B, L + T) int64, for encoder output (B, N, C) of as many tokens each."""
        decoder = reading_features(self.git)
        decoder.generation_config = settings  # what a setting leaves open would be taken from the model's own
        with tell_count(self.git, features.shape[1]):
            return decoder.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                pixel_values=features[..., None],  # transformers takes images for images if they have four dimensions
                generation_config=settings,
                logits_processor=LogitsProcessorList([watch]),
            )

    def _bos(self, images: Tensor) -> Tensor:
        return torch.tensor([self.git.config.bos_token_id], device=images.device)

    def _prompts(self, images: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None) -> list[Tensor]:
        """The prompt of every image, (L_i,) int64, without padding."""
        if input_ids is None:
            return [self._bos(images)] * len(images)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if len(input_ids) != len(images) or mask.shape != input_ids.shape:
            shapes = f"{tuple(input_ids.shape)} and {tuple(mask.shape)}"
            raise RequestError(
                f"prompts and mask of shapes {shapes} for {len(images)} images; give one prompt an image"
            )
        if not bool((mask[:, -1] == 1).all()) or bool((mask.diff(dim=1) < 0).any()):
            raise RequestError("attention_mask: padding must stand to the left of a prompt that is not empty")
        return [ids[keep == 1] for ids, keep in zip(input_ids, mask)]

    def check_length(self, max_new_tokens: int, prompt: int = 1) -> None:
        """RequestError for more tokens than the model has positions for, after a prompt of so many."""
        places = self.git.config.max_position_embeddings
        if prompt + max_new_tokens - 1 > places:  # the last token is never read
            raise RequestError(
                f"max_new_tokens={max_new_tokens} after a prompt of {prompt}: the model has {places} positions; "
                f"use at most {places + 1 - prompt}"
            )

    def _caption(self, ids: Sequence[int]) -> Caption:
        config = self.git.config
        ends = (place + 1 for place, token in enumerate(ids) if token == config.eos_token_id)
        ids = ids[: next(ends, len(ids))]  # padding follows the end token
        special = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
        text = self.tokenizer.decode([token for token in ids if token not in special], skip_special_tokens=True)
        return Caption(" ".join(text.split()), tuple(ids))


class PassThrough(nn.Module):
    """In place of the image encoder: features (B, N, C, 1) are the encoder's output already."""

    def forward(self, pixel_values: Tensor, **_: object) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=pixel_values.squeeze(-1))


class _RefuseNaN(LogitsProcessor):
    """Looks at the scores of every step. rows: places in the batch of the images that are decoded."""

    def __init__(self, rows: Sequence[int], num_beams: int) -> None:
        self.rows, self.num_beams = rows, num_beams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        bad = torch.isnan(scores).any(dim=1)
        if bad.any():
            row = self.rows[int(bad.nonzero()[0, 0]) // self.num_beams]
            raise OutputError(row, f"the scores of word {input_ids.shape[1]} are NaN")
        return scores


class _CountSteps(LogitsProcessor):
    """Notes what was counted up to every step."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.flops: list[int] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.flops.append(self.counter.get_total_flops())
        return scores


def reading_features(git: GitForCausalLM) -> GitForCausalLM:
    """A GIT model on the encoder's output in place of images. All else is the original's, which is left as it is."""
    model = with_module(git.git, "image_encoder", PassThrough())
    return with_module(git, "git", model)


@contextmanager
def tell_count(git: GitForCausalLM, count: int) -> Iterator[None]:
    """While it lasts, the decoder knows how many image tokens there are."""
    tokens = ImageTokens(git)
    tokens.tell(count)
    try:
        yield
    finally:
        tokens.restore()


def same_length(
    features: Tensor, valid: Tensor | None, prompts: Sequence[Tensor]
) -> Iterator[tuple[list[int], Tensor]]:
    """Images that agree in the number of their tokens and of their prompt's: their rows, and features without padding.

    features: (B, N, C); valid: (B, N) bool, False on padding.
    """
    counts = [features.shape[1]] * len(features) if valid is None else valid.sum(1).tolist()
    groups: dict[tuple[int, int], list[int]] = {}
    for row, (count, prompt) in enumerate(zip(counts, prompts, strict=True)):
        groups.setdefault((count, len(prompt)), []).append(row)
    for (count, _), rows in groups.items():
        alike = features[rows] if len(groups) > 1 else features
        yield rows, alike if valid is None else alike[valid[rows]].view(len(rows), count, -1)
