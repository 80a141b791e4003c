"""Cells that differ in a seed alone are one row, with an interval over seeds."""

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from reports.frame import load_frame
from reports.groups import groups
from suite import RequestError, run
from suite.attachment.reducer_weights import about, write_tensors
from suite.models.shipped import shipped_weights
from suite.stats import student_interval
from suite.sweep.cells import list_cells
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec

ASKED = {"task": "scenes", "limit": 48, "flops": ["-60%"], "workers": 0, "batch_size": 24}


def asked(tmp_path_factory, name, **values):
    return run(ASKED, **values, out=str(tmp_path_factory.mktemp(name) / "run"), progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return asked(tmp_path_factory, "draws", reducers=["random", "tome"], draw_seeds=4, speed_rounds=2)


def test_methods_that_draw_are_asked_for_with_every_seed_and_others_once():
    spec = make_spec({**ASKED, "reducers": "random,tome,tome_random", "draw_seeds": 3}).completed()
    cells, _ = list_cells(spec)
    assert [(cell.reducer, cell.options.get("seed"), cell.timed) for cell in cells] == [
        ("none", None, True), ("random", None, True), ("tome", None, True), ("tome_random", None, True),
        ("random", 1, False), ("random", 2, False), ("tome_random", 1, False), ("tome_random", 2, False),
    ]  # fmt: skip


def test_several_seeds_of_methods_that_draw_nothing_are_refused():
    spec = make_spec({**ASKED, "reducers": "tome", "draw_seeds": 3}).completed()
    with pytest.raises(RequestError, match="draw_seeds=3: none of the reducers draws at random; leave it out"):
        list_cells(spec)


def test_the_first_seed_stands_for_all_with_their_mean_and_an_interval_over_them(drawn):
    frame = load_frame(drawn.out)
    rows = frame[frame.reducer == "random"]
    (first,) = rows[rows.repeat_of == ""].itertuples()
    assert first.options == ""
    assert (rows.repeat_of[rows.options != ""] == first.Index).all()
    assert (first.seeds, first.seeds_mean) == (4, pytest.approx(rows.top1.mean()))
    assert (first.seeds_low, first.seeds_high) == student_interval(rows.top1)
    assert frame[frame.reducer == "tome"].seeds.isna().all()
    (part,) = groups(frame)
    assert part.frame.reducer.tolist() == ["none", "random", "tome"]


def test_tables_have_one_row_for_all_seeds_and_the_csv_all_of_them(drawn):
    table = (drawn.out / "report" / "table.md").read_text()
    assert "| Over seeds |" in table
    (row,) = [line for line in table.splitlines() if line.startswith("| random")]
    assert "(4)" in row
    assert len(pd.read_csv(drawn.out / "report" / "table.csv")) == 6


def test_what_repeats_another_is_not_timed(drawn):
    frame = load_frame(drawn.out)
    assert frame[frame.repeat_of != ""].im_s.isna().all()
    assert frame[frame.repeat_of == ""].im_s.notna().all()


def test_students_interval_is_that_of_tables():
    low, high = student_interval([1.0, 2.0, 3.0])
    assert (high - low) / 2 == pytest.approx(4.302653 * 1 / np.sqrt(3), rel=1e-6)
    assert (low + high) / 2 == 2


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """Files of three seeds of a training, and one of another training."""
    shipped, folder = shipped_weights("scenes_vit", "dtem"), tmp_path_factory.mktemp("trained")
    state, of = safetensors.torch.load_file(shipped), about(shipped)
    files = []
    for number in range(4):
        noise = torch.Generator().manual_seed(number)
        recipe = {**of["recipe"], "seed": number, "epochs": 9 if number == 3 else of["recipe"]["epochs"]}
        moved = {key: value + 0.5 * torch.randn(value.shape, generator=noise) for key, value in state.items()}
        files.append(folder / f"run{number}" / "weights.safetensors")
        files[-1].parent.mkdir()
        write_tensors(files[-1], moved, **{**of, "recipe": recipe})
    return files


def test_trainings_that_differ_in_the_seed_are_one_row_and_others_their_own(trainings, tmp_path_factory):
    named = [f"dtem@{file}" for file in trainings]
    found = asked(tmp_path_factory, "trainings", reducers=named, speed=False)
    frame = load_frame(found.out)
    rows = frame[frame.reducer == "dtem"].set_index("training")
    assert rows.seeds.dropna().to_dict() == {"trained: run0": 3}
    alike = rows.top1[["trained: run0", "trained: run1", "trained: run2"]]
    assert rows.seeds_mean["trained: run0"] == pytest.approx(alike.mean())
    (part,) = groups(frame)
    assert part.frame.training.tolist() == ["", "trained: run0", "trained: run3"]
