"""Samples of several views: they travel together, are cut at samples, and an error names the sample that it is of."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from suite.contract.task import Batch, ReadError, Sample, collate, views_of
from suite.errors import CellError, OutputError
from suite.sweep.answers import Answers
from suite.sweep.evaluate import forward

SAMPLES = [Sample(name, 0) for name in "abcd"]
VIEWS = [2, 1, 3, 1]


class Counting:
    """A task whose prediction of a view is the view's number; it can run out of memory or meet NaN."""

    def __init__(self, most: int = 100, bad: int | None = None) -> None:
        self.most, self.bad, self.ran = most, bad, []

    def predict(self, model, images):
        numbers = images[:, 0, 0, 0].tolist()
        if len(numbers) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        if self.bad in numbers:
            raise OutputError(numbers.index(self.bad), "the scores are NaN")
        self.ran.append(numbers)
        return numbers

    def predict_samples(self, model, images, samples):
        return self.predict(model, images)

    def rows(self, outputs, samples):
        views = {sample.id: VIEWS[SAMPLES.index(sample)] for sample in samples}
        assert len(outputs) == sum(views.values())
        outputs = iter(outputs)
        return [{"id": id, "views": [next(outputs) for _ in range(count)]} for id, count in views.items()]


def run(task, batch_size=4):
    images = torch.arange(sum(VIEWS)).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    cell = SimpleNamespace(key="key", handle=Detached(), batch_size=batch_size)
    parts = forward(task, Answers(None, "eager"), cell, images, Batch(SAMPLES, images, [], VIEWS))
    return [row for samples, outputs in parts for row in task.rows(outputs, samples)], cell


class Detached(nullcontext):
    """What a sweep asks of a handle, of no reducer."""

    unplanned, prefix = "", None

    def forget(self):
        pass


ROWS = [
    {"id": "a", "views": [0, 1]},
    {"id": "b", "views": [2]},
    {"id": "c", "views": [3, 4, 5]},
    {"id": "d", "views": [6]},
]


def test_all_views_of_a_batch_go_through_the_model_at_once():
    task = Counting()
    rows, _ = run(task)
    assert rows == ROWS
    assert task.ran == [[0, 1, 2, 3, 4, 5, 6]]


def test_out_of_memory_halves_the_samples_and_never_splits_one():
    task = Counting(most=4)
    rows, cell = run(task)
    assert rows == ROWS
    assert task.ran == [[0, 1, 2], [3, 4, 5, 6]]
    assert cell.batch_size == 2


def test_an_output_without_meaning_is_the_sample_s_whose_view_it_came_from():
    with pytest.raises(CellError, match="sample 'c': the scores are NaN"):
        run(Counting(bad=4))
    with pytest.raises(CellError, match="sample 'd': the scores are NaN"):
        run(Counting(most=4, bad=6))


def test_a_batch_holds_the_views_of_what_could_be_read():
    items = [
        (SAMPLES[0], torch.zeros(2, 3, 4, 4)),
        (SAMPLES[1], ReadError("b", "b.jpg", "broken")),
        (SAMPLES[2], torch.ones(3, 4, 4)),
    ]
    batch = collate(items)
    assert batch.images.shape == (3, 3, 4, 4)
    assert batch.views == [2, 1]
    assert [sample.id for sample in batch.samples] == ["a", "c"]
    assert [error.id for error in batch.errors] == ["b"]
    assert collate(items[1:2]).views == []
    assert views_of(torch.ones(3, 4, 4)).shape == (1, 3, 4, 4)
