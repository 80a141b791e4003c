"""Tiny models of dense tasks on embedded scenes, and batches of what they are taught."""

import random
from functools import cache

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny_git import WORDS, tiny_git
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from suite.backbones.segmenter import build_segmenter
from suite.models.captioner import Captioner
from suite.train.objective import Examples
from suite.train.objectives.captioning import Captioning
from suite.train.objectives.segmentation import Segmentation
from suite.train.recipe import Recipe
from tasks.scenes.captions import ScenesCaption
from tasks.scenes.masks import ScenesSeg

PLAIN = Recipe(crop=False)
PREPARED = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}


def make_segmenter(num_classes=49):
    torch.manual_seed(0)
    model = build_segmenter(
        image_size=32, patch_size=4, width=32, depth=4, heads=2, num_classes=num_classes, decoder_heads=2
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model


def make_classifier(num_classes):
    """A tiny ViT that tells images apart, as its confidence does."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=32, depth=4, num_heads=2, num_classes=num_classes
    ).eval()
    model.pretrained_cfg = {**PREPARED, "crop_pct": 1.0}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model


def make_captioner(task):
    """A tiny captioner that knows the words of a task's captions."""
    words = {word for sample in task.samples for text in sample.label for word in text.split()}
    known = {word: i for i, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *sorted(words)])}
    assert len(known) <= WORDS
    tokenizer = Tokenizer(WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return Captioner(tiny_git(), tokenizer, {**PREPARED, "crop_pct": 1.0})


def seed(number):
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def batch_of(objective, samples=None):
    samples = objective.task.samples if samples is None else samples
    seed(0)
    images, targets = zip(*map(objective.example, samples), strict=True)
    return Examples(torch.stack(images), objective.join(targets), tuple(sample.id for sample in samples))


@cache
def scene_masks():
    """A Segmenter with its objective; shared, so not to be changed."""
    model = make_segmenter()
    return model, Segmentation(ScenesSeg(split="train", scenes=3), model, PLAIN)


@cache
def scene_captions():
    """A captioner with its objective; shared, so not to be changed."""
    task = ScenesCaption(split="train", scenes=3)
    model = make_captioner(task)
    return model, Captioning(task, model, PLAIN)
