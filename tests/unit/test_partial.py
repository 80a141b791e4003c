"""What a run has come to so far is the score of the samples so far, and says of how many."""

import io
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from suite.api import run
from suite.contract.metric import Metric, TaskReport
from suite.stats import wilson_interval
from suite.stats.aggregates import MeanIoU
from suite.store.folder import CellFolder
from suite.sweep.partial import FEWEST, Partial
from suite.sweep.partial_table import partial_table
from suite.sweep.progress import Progress
from tasks.classification import ClassificationTask
from tests.unit.run_folder import write_run


@pytest.fixture
def lane(tmp_path):
    """Two cells of a run of a thousand samples."""
    out = write_run(tmp_path / "run", {"tome": 4.0})
    keys = {"none-full": ("none", ""), "tome-flops--50": ("tome", "flops=-50%")}
    cells = [
        SimpleNamespace(key=key, folder=CellFolder(out / "cells" / key), about={"reducer": name, "rate": rate})
        for key, (name, rate) in keys.items()
    ]
    plan = SimpleNamespace(
        task=SimpleNamespace(shown=ClassificationTask.shown), weights=SimpleNamespace(kind="trained")
    )
    return SimpleNamespace(plan=plan, cells=cells, ids=[str(i) for i in range(1000)])


def rows(right, n):
    return pa.RecordBatch.from_pydict({"id": [str(i) for i in range(n)], "correct": np.arange(n) < right})


def text(table):
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def test_scores_are_those_of_the_samples_so_far_with_their_intervals(lane):
    partial = Partial(lane)
    for _ in range(2):
        partial.add("none-full", rows(60, 64))
        partial.add("tome-flops--50", rows(48, 64))
    said = text(partial_table(partial))
    low, high = wilson_interval(96, 128)
    assert f"75.0 ± {50 * (high - low):.1f}" in said
    assert said.count("128 of 1000") == 2
    assert "flops=-50%" in said
    assert "−51.2" in said


def test_a_method_with_what_it_has_learned_is_told_from_the_same_without(lane):
    weights = {"source": "embedded:scenes_vit/mctf"}
    lane.cells[0].about = {"reducer": "mctf", "rate": "r=9", "reducer_weights": weights}
    lane.cells[1].about = {"reducer": "dtem", "rate": "r=9", "learned": "embedding", "options": {"k": 2}}
    partial = Partial(lane)
    for cell in lane.cells:
        partial.add(cell.key, rows(60, 64))
    said = text(partial_table(partial))
    assert "mctf (trained)" in said
    assert "dtem (untrained, k=2)" in said


def test_there_is_nothing_to_show_before_every_cell_that_has_begun_has_enough(lane):
    partial = Partial(lane)
    assert partial_table(partial) is None
    partial.add("none-full", rows(60, FEWEST))
    assert partial_table(partial) is not None
    partial.add("tome-flops--50", rows(1, FEWEST - 1))
    assert partial_table(partial) is None


def test_random_weights_and_scores_that_are_no_plain_means_are_not_shown(lane):
    lane.plan.weights.kind = "random"
    partial = Partial(lane)
    partial.add("none-full", rows(60, FEWEST))
    assert partial_table(partial) is None
    lane.plan.weights.kind = "trained"
    lane.plan.task.shown = TaskReport((Metric("miou", "mIoU (%)", MeanIoU()),))
    partial = Partial(lane)
    partial.add("none-full", rows(60, FEWEST))
    assert partial_table(partial) is None


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_shows_them_while_it_goes(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr("suite.sweep.progress.PLAIN_INTERVAL", 0.0)
    monkeypatch.setattr("suite.sweep.progress.TABLE_INTERVAL", 0.0)
    console = Console(file=io.StringIO(), width=120, height=40, force_terminal=terminal)
    sweep = {"task": "scenes", "limit": 192, "reducers": "tome", "rates": "r=16", "speed": False}
    frame = run(sweep, out=str(tmp_path / "run"), progress=Progress(console), report=False).frame()
    said = console.file.getvalue()
    assert "Top-1 (%) so far" in said
    assert " of 192" in said
    assert set(frame.status) == {"done"}
