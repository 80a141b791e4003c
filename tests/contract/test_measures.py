"""What every task measures of a batch stays where the model is, and comes to the rows that it scores."""

from __future__ import annotations

from copy import copy

import pytest
import torch
from example_tasks import TaskOnExample, make_few, with_tensors, write_data
from tiny_models import CHECKED
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from suite.measure.trace import Followed, ReadWhole
from tasks import list_tasks

pytestmark = pytest.mark.skipif(bool(CHECKED), reason="a reducer is checked, and no task knows of any")


@pytest.fixture(scope="module", params=list_tasks())
def example(request, tmp_path_factory) -> TaskOnExample:
    return TaskOnExample(request.param, write_data(request.param, tmp_path_factory.mktemp("data")))


def test_columns_of_what_is_measured_are_the_rows_that_are_scored(example):
    task, samples = example.task, example.batch.samples
    columns = task.columns(task.measure(example.outputs, samples), samples)
    columns.validate(full=True)
    assert columns.schema == task.outcomes
    assert columns.to_pylist() == task.score(example.outputs, samples)
    assert columns["id"].to_pylist() == example.ids


def test_a_batch_is_measured_on_its_device_and_no_number_is_read(example):
    task, real = make_few(example.name, example.data), example.outputs  # made of real tensors
    with FakeTensorMode() as mode, torch.inference_mode():
        outputs = with_tensors(real, lambda tensor: mode.from_tensor(tensor).to("cuda"))
        if outputs is None:
            pytest.skip("its outputs are no tensors")
        with Followed() as followed, ReadWhole(followed.kernels):
            measured = task.measure(outputs, example.batch.samples)  # what reads a number stops here: there is none
    given, kept = ([getattr(leaf, "shape", None) for leaf in tree_leaves(tree)] for tree in (outputs, measured))
    assert followed.kernels or given == kept  # or it hands on what it was given
    assert not [kernel.name for kernel in followed.kernels if kernel.host_read]
    assert {leaf.device.type for leaf in tree_leaves(measured) if isinstance(leaf, Tensor)} == {"cuda"}


def test_a_score_of_ones_own_counts_whatever_the_kind_measures(example):
    def marked(rows: list[dict]) -> list[dict]:
        return [{**row, "id": f"own {row['id']}"} for row in rows]

    class Own(type(example.task)):
        def score(self, outputs, samples):
            return marked(super().score(outputs, samples))

    own, samples = copy(example.task), example.batch.samples
    own.__class__ = Own
    columns = own.columns(own.measure(example.outputs, samples), samples)
    assert columns.schema == own.outcomes
    assert columns.to_pylist() == marked(example.task.score(example.outputs, samples))
