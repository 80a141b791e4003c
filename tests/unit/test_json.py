"""--json: what a verb prints is one document for programs, with numbers where there are numbers, and nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from gate_runs import cli, identified
from run_folder import write_cell, write_run

from reports.frame import load_frame
from suite.cli.console import as_json


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    (folder := tmp_path_factory.mktemp("json") / "run").mkdir()
    write_run(folder, {"tome": 4.0})
    for name in ("tome", "evit"):
        write_cell(folder, name, "flops=-50%", cut=0.5)
    return identified(folder)


def document(capsys: Any, *arguments: str | Path) -> dict[str, Any]:
    assert cli(*arguments, "--json") in (0, 1, 4)
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_a_run_is_its_frame_in_full_precision(out, capsys):
    (table,) = document(capsys, "report", out)["tables"]
    frame = load_frame(out)
    assert [row["key"] for row in table["rows"]] == [*frame.index]
    for row, expected in zip(table["rows"], frame.itertuples(), strict=True):
        assert row["reducer"] == expected.reducer
        assert row["top1"] == expected.top1
        assert row["gmacs"] == expected.gmacs
        assert row["im_s"] == (None if pd.isna(expected.im_s) else expected.im_s)


def test_a_comparison_gives_differences_as_numbers(out, capsys):
    found = document(capsys, "compare", f"{out}:tome", f"{out}:evit")
    row = next(row for row in found["tables"][0]["rows"] if row["metric"] == "top1")
    assert (row["new_method"], row["base_method"], row["verdict"]) == ("tome", "evit", None)
    assert row["low"] <= row["difference"] <= row["high"]
    assert 0 <= row["p"] <= 1
    assert row["samples"] > 0


@pytest.mark.parametrize(("verb", "column", "value"), [
    ("list reducers", "Reducer", "tome"), ("list tasks", "task", "imagenet"),
    ("list models scenes*", "model", "scenes_vit"), ("list recipes", "Method", "dtem"),
    ("list recipes dtem", "Flag", "--lr"), ("tables", "Name", "dtem-1"),
    ("plan --reducers tome --rates r=8", "Reducer", "tome"), ("predict --reducers tome --batch 8", "method", "tome"),
])  # fmt: skip
def test_every_table_has_a_record_a_row(verb, column, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (table,) = document(capsys, *verb.split())["tables"]
    assert value in [row[column] for row in table["rows"]]


def test_curves_and_baselines_have_records(out, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (table,) = document(capsys, "pareto", out, "--x", "flops")["tables"]
    assert {"tome", "evit"} <= {row["reducer"] for row in table["rows"]}
    assert document(capsys, "baseline", "save", "mine", out)["said"][0].startswith("baseline: ")
    (table,) = document(capsys, "baseline", "list")["tables"]
    assert [row["baseline"] for row in table["rows"]] == ["mine"]
    (table,) = document(capsys, "baseline", "show", "mine")["tables"]
    assert {"tome", "evit"} <= {row["Method"] for row in table["rows"]}


def test_what_is_refused_leaves_standard_output_empty(capsys):
    assert cli("list", "recipes", "dtme", "--json") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "dtem" in captured.err


def test_the_next_verb_prints_for_people_again(capsys):
    document(capsys, "list", "tasks")
    cli("list", "tasks")
    assert "imagenet: " in capsys.readouterr().out


def test_numbers_are_numbers_and_what_is_none_is_null():
    given = {"a": np.float32(0.5), "b": math.nan, "c": (1, Path("x")), "d": np.arange(2), 3: True}
    assert as_json(given) == {"a": 0.5, "b": None, "c": [1, "x"], "d": [0, 1], "3": True}
