"""ImageNet's classes, or those of any data set of the same form, told by their names."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor, nn

from suite.errors import RequestError
from tasks.imagenet.task import ImageNet
from tasks.zero_shot import TextClassifier, read_lines, read_prompts, text_classifier

TEXT = "openai/clip-vit-base-patch16"


class ImageNetZeroShot(ImageNet):
    """Top-1 and top-5 of an image encoder whose classifier is made of class names, as of CLIP and SigLIP.

    `data`, `limit`, and the task options `labels` and `num_classes`: as of task 'imagenet'. `text`: the text encoder
    that belongs to the model, of transformers by its id or folder, or 'open_clip:NAME:WEIGHTS'. `prompts`: a file, a
    line a prompt with {} for the name ('a photo of a {}.'). `names`: a file, a line a class (ImageNet's first names).
    """

    name = "imagenet_zero_shot"
    default_model = "vit_base_patch16_clip_224.openai"

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        labels: str | None = None,
        num_classes: int | None = None,
        text: str = TEXT,
        prompts: str | None = None,
        names: str | None = None,
    ) -> None:
        super().__init__(data, limit, labels=labels, num_classes=num_classes)
        self.text, self.prompts = text, read_prompts(prompts)
        self.names = tuple(super().class_names) if names is None else read_lines("names", names)
        if not self.names:
            raise RequestError(f"task {self.name!r} knows no names of these classes; give names=FILE, a line a class")
        if len(self.names) != self.num_classes:
            raise RequestError(
                f"names '{names}' has {len(self.names)} lines for {self.num_classes} classes; write a line a class"
            )
        self._classifier: TextClassifier | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.names

    def protocol(self) -> dict[str, Any]:
        """The text encoder, and a digest of all that it reads."""
        read = hashlib.sha256("\n".join([*self.prompts, *self.names]).encode()).hexdigest()
        return {**super().protocol(), "text": self.text, "prompts": read[:16]}

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model's outputs are as wide as the text encoder's."""
        width = _width(model)
        if width is None:
            raise RequestError(
                f"task {self.name!r} needs an image encoder, and {type(model).__name__} is none; use one such as "
                f"{self.default_model}"
            )
        if self._classifier is None:
            self._classifier = text_classifier(self.text, self.names, self.prompts)
        found = self._classifier.weight.shape[1]
        if width != found:
            raise RequestError(
                f"task {self.name!r}: the model's outputs have {width} channels and those of text encoder "
                f"'{self.text}' {found}; name the encoder that it was trained with, with --task-option text=NAME"
            )

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Scaled cosines (B, num_classes) to the classes' embeddings."""
        if self._classifier is None:
            raise RuntimeError("check_model comes first: it makes the classifier")
        return self._classifier.logits(model(images))


def _width(model: nn.Module) -> int | None:
    """Channels of a model's output: of its projection, or of its features where it has none."""
    width = getattr(model, "num_classes", None) or getattr(model, "num_features", None)
    return width if isinstance(width, int) else None
