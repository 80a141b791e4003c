"""Every listed task on a few samples, with a small model that it can score and what that model makes of them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
from tiny_models import make_model
from torch import Tensor, nn

from suite.attachment.attach import attach
from suite.backbones.segmenter import build_segmenter
from suite.contract.task import Batch, Reader, Sample, Summary, Task, collate
from suite.errors import CellError
from suite.measure.runtimes import EAGER
from suite.models.load import load_model
from suite.models.registry import find_entry
from suite.sweep.answers import Answers
from suite.sweep.evaluate import Cell, forward, rows_of
from suite.sweep.outcomes import join_unreduced
from suite.sweep.plan import make_task
from suite.sweep.spec import RunSpec
from tasks import task_class
from tests import tiny_clip
from tests.captioned import coco, instances
from tests.captioned import photos as captioned_photos
from tests.captioned import write as write_captioned
from tests.photos import write_photos, write_photos_of_training
from tests.segmented import ade20k
from tests.segmented import write as write_segmented

DRAWN = 4  # samples of a task that draws them
SUPPORTED = 8  # samples that others are scored by


@dataclass(frozen=True)
class Example:
    """write: makes a task's data in a folder that it is given, and returns where they are. model: a small one that the
    task takes. options: what the task needs beside its data, made once."""

    write: Callable[[Path], Path]
    model: Callable[[], nn.Module]
    options: Callable[[], dict[str, object]] = dict


def _classifier() -> nn.Module:
    return load_model("test_vit", "none")[0]


def _image_encoder() -> nn.Module:
    return make_model(num_classes=tiny_clip.WIDTH)


@cache
def _text_encoder() -> dict[str, object]:
    return {"text": str(tiny_clip.write(Path(tempfile.mkdtemp())))}


def _two_classes() -> nn.Module:
    return make_model(num_classes=2)


def _captioner() -> nn.Module:
    return load_model("scenes_git")[0]


def _segmenter() -> nn.Module:
    torch.manual_seed(0)
    shape = {"image_size": 32, "patch_size": 8, "width": 64, "depth": 2, "heads": 2, "decoder_depth": 1}
    return build_segmenter(**shape, num_classes=150).eval()


def _write_prompts(folder: Path) -> Path:
    from tests.pipelines import write_prompts

    return write_prompts(folder)


def _pipeline() -> nn.Module:
    from tests.pipelines import write_stable_diffusion

    return load_model(str(write_stable_diffusion(Path(tempfile.mkdtemp()))))[0]


# One line for a task that reads files. A task without one draws its samples, or is tested on what the environment
# names, with its default model.
EXAMPLES = {
    "imagenet": Example(write_photos, _classifier),
    "imagenet_features": Example(write_photos_of_training, _classifier),
    "imagenet_zero_shot": Example(write_photos, _image_encoder, options=_text_encoder),
    "image_features": Example(write_photos, _classifier),
    "coco-caption": Example(partial(write_captioned, files=captioned_photos() | {"captions.json": coco()}), _captioner),
    "coco-multilabel": Example(
        partial(write_captioned, files=captioned_photos() | {"instances.json": instances()}), _two_classes
    ),
    "ade20k": Example(partial(write_segmented, files=ade20k()), _segmenter),
    "generation": Example(_write_prompts, _pipeline, options=partial(dict, steps=2)),
}


def write_data(name: str, folder: Path) -> str | None:
    """Where the data of a task are, written in `folder` if they have to be; None for one that draws them."""
    variable = "REDUCERBENCH_DATA_" + re.sub(r"\W", "_", name).upper()
    if name in EXAMPLES:
        return str(EXAMPLES[name].write(folder))
    if not task_class(name).drawn and not os.environ.get(variable):
        pytest.skip(
            f"task {name!r} reads data, and none are known here: set {variable} to a folder of a few samples, or add a "
            f"line to EXAMPLES in {Path(__file__).name}"
        )
    return os.environ.get(variable)


def make_small_model(name: str) -> nn.Module:
    """One that the task can score: its example's, else its default one, with embedded weights or random ones."""
    if name in EXAMPLES:
        return EXAMPLES[name].model()
    model = task_class(name).default_model
    return load_model(model, "embedded" if find_entry(model).weights else "none")[0]


class TaskOnExample:
    """A task on its data, and what is made of all its samples; each is made when it is first asked for."""

    def __init__(self, name: str, data: str | None) -> None:
        self.name, self.data, self.task = name, data, make_few(name, data)
        self.model = make_small_model(name)
        self.task.check_model(self.model)
        self.task.configure(self.model)
        self.preprocessing = self.task.preprocessing(self.model)

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.task.samples]

    @cached_property
    def batch(self) -> Batch:
        return read_batch(self.task, self.preprocessing)

    @cached_property
    def outputs(self) -> object:
        """What the model makes of the batch."""
        with torch.inference_mode():
            return self.task.predict_samples(self.model, self.batch.images, self.batch.samples)

    def rows_of(self, images: Tensor, batch: Batch | None = None) -> list[dict]:
        """What a sweep makes of images in the place of a batch's own, the samples'. CellError that names a sample."""
        handle = attach(self.model, "none")
        handle.detach()
        batch = batch or self.batch
        cell = Cell("", handle, batch_size=len(batch.samples))
        return rows_of(self.task, forward(self.task, Answers(self.model, EAGER), cell, images, batch)).to_pylist()

    @cached_property
    def rows(self) -> pd.DataFrame:
        """As they are stored and read again."""
        return self.stored(self.rows_of(self.batch.images))

    def stored(self, rows: list[dict]) -> pd.DataFrame:
        return pa.Table.from_pylist(rows, schema=self.task.outcomes).to_pandas()

    @cached_property
    def choices(self) -> dict[str, pd.DataFrame]:
        """Rows of samples in several choices and orders."""
        backwards, rest = self.rows[::-1].reset_index(drop=True), self.rows[1:].reset_index(drop=True)
        return {"one": self.rows[:1], "all": self.rows, "backwards": backwards, "rest": rest}

    @cached_property
    def cells(self) -> dict[str, pd.DataFrame]:
        """The same as a summary is made of them: with what they are scored by, and what the unreduced model made."""
        support = self.task.support[:: max(1, len(self.task.support) // SUPPORTED)]
        batch = read_batch(self.task, self.preprocessing, support)
        behind = self.stored(self.rows_of(batch.images, batch) if support else [])
        unreduced = pd.concat([self.rows, behind], ignore_index=True) if support else self.rows

        def given(rows: pd.DataFrame) -> pd.DataFrame:
            both = pd.concat([rows, behind], ignore_index=True) if support else rows
            return join_unreduced(both, unreduced, self.task.beside) if self.task.beside else both

        return {key: given(rows) for key, rows in self.choices.items()}

    @cached_property
    def summaries(self) -> dict[str, Summary | CellError]:
        """Of all cells at once: a scorer may take seconds to start."""
        return dict(self.task.summaries(self.cells))


def make_few(name: str, data: str | None, limit: int | None = None, **options: object) -> Task:
    """The task as a sweep makes it, of few samples."""
    drawn = {task_class(name).drawn: DRAWN} if task_class(name).drawn else {}
    drawn |= EXAMPLES[name].options() if name in EXAMPLES else {}
    return make_task(RunSpec(task=name, data=data, limit=limit, task_options=drawn | options))


def read_batch(task: Task, preprocessing: object, samples: Sequence[Sample] | None = None) -> Batch:
    """Some samples of a task, or all that it has scored."""
    reader = Reader(task, task.samples if samples is None else samples, preprocessing)
    return collate([reader[place] for place in range(len(reader))])


def with_tensors(outputs: object, change: Callable[[Tensor], Tensor]) -> object:
    """A batch's outputs with every tensor of theirs changed; None where they hold none."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    if not is_dataclass(outputs):
        return None
    parts = {name: with_tensors(part, change) for name, part in vars(outputs).items()}
    return replace(outputs, **{name: part for name, part in parts.items() if part is not None})
