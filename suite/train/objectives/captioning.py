"""Captioning: the next word of a reference caption, given the image and the words before it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from suite.contract.task import Sample
from suite.errors import RequestError
from suite.tokens.grouping import full_precision
from suite.train.numbers import Numbers
from suite.train.objective import Examples, Objective
from suite.train.picture_cache import Pictures
from tasks.captioning import CaptioningTask

if TYPE_CHECKING:
    from suite.models.captioner import Captioner

PADDING = -1  # of targets: a model's own id for it may be a word's, too


class Captioning(Objective):
    """Targets are captions (B, T) int64 from BOS to EOS, -1 behind their ends: one of an image's references, at random.

    Captions name colours and sides, so images are neither recoloured nor mirrored: of the recipe's augmentations there
    are the crops alone, a random square of every image, which is all the augmentation that CLIP's encoders, and so
    GIT's, were trained with (Radford et al., ICML 2021).

    The model is a `Captioner`. With softly merged tokens its decoder reads all of them, and those that are merged away
    fade from its attention (`features_to_learn`).
    """

    task_class, kind = CaptioningTask, "captioning"

    def __init__(self, task: CaptioningTask, model: nn.Module, recipe: Numbers) -> None:
        super().__init__(task, model, recipe)
        self.preprocessing, self.pictures = task.preprocessing(model), Pictures(task)
        captioner = cast("Captioner", model)
        self.tokenizer: Any = captioner.tokenizer
        config: Any = captioner.git.config
        if not hasattr(self.tokenizer, "encode"):
            raise RequestError(
                f"task {task.name!r}: the model has no tokenizer, so it cannot be taught words; use a checkpoint that "
                "has one"
            )
        self.bos, self.eos, self.pad = config.bos_token_id, config.eos_token_id, config.pad_token_id
        self.places = config.max_position_embeddings

    def example(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """The image, and a caption's ids (T,): at most as many as the model has positions for."""
        image = self.pictures.image(sample)
        if self.recipe.crop:
            image = random_square(image)
        return self.preprocessing(image), self.words(random.choice(sample.label))

    def words(self, caption: str) -> Tensor:
        """(T,) int64 BOS, the caption's words, EOS."""
        encoded = self.tokenizer.encode(caption, add_special_tokens=False)
        ids = getattr(encoded, "ids", encoded)  # a library's own tokenizer says more than ids
        return torch.tensor([self.bos, *ids, self.eos][: self.places])

    def join(self, targets: Sequence[Tensor]) -> Tensor:
        return nn.utils.rnn.pad_sequence(list(targets), batch_first=True, padding_value=PADDING)

    def terms(self, batch: Examples) -> Tensor:
        """Words that follow."""
        return (batch.targets[:, 1:] != PADDING).sum()

    def predict(self, model: nn.Module, batch: Examples) -> Tensor:
        """Those of the words that follow, (B, K, T - 1)."""
        words = batch.targets[:, :-1]
        filled = words.masked_fill(words == PADDING, self.pad)
        return cast("Captioner", model).next_word_logits(batch.images, filled).transpose(1, 2)

    def criterion(self, logits: Tensor, batch: Examples) -> Tensor:
        """Mean cross-entropy of the words that follow, EOS included."""
        following = batch.targets[:, 1:]
        total = F.cross_entropy(full_precision(logits), following, ignore_index=PADDING, reduction="sum")
        return batch.mean(total, self.terms(batch))


def random_square(image: Image.Image) -> Image.Image:
    """A square of an image, as large as it has room for and anywhere along its longer side."""
    side = min(image.size)
    left, top = random.randint(0, image.width - side), random.randint(0, image.height - side)
    return image.crop((left, top, left + side, top + side))
