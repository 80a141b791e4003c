"""`gpu` as far as there is no GPU: how time is spent, a session on the processor, its file, what is said without."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from reports.frame import load_frame
from suite.analyse.gpu.cells import DEVICES, predict_cell
from suite.analyse.gpu.merge import merge_sessions
from suite.analyse.gpu.session import measure_trial, read_session, sheet_for
from suite.analyse.gpu.stages import BASE, FIRST, SMALL, Schedule, Stage, Trial
from suite.analyse.gpu.table import HEADERS, lines_of, notes_of
from suite.api import run
from suite.cli.app import main
from suite.errors import RequestError
from suite.measure.prediction.cost import predict_forward
from suite.measure.prediction.fitted import load_fit
from suite.measure.prediction.gpus import GPUS
from suite.measure.prediction.shapes import Implementation, TracedModel
from suite.reducers import list_reducers
from suite.store.sealed import SealedFiles
from suite.sweep.progress import Progress

CPU = torch.device("cpu")
TINY = Trial(
    stages=(Stage("test_vit", "eager", 1.0),), methods=("topk", "diffrate"), targets=("flops=-20%", "flops=-99%"),
    batch_size=2, precision="fp32", rounds=2, block_s=0, warmup_s=0,
)  # fmt: skip


def spend(trial, seconds, cost):
    """The groups that a schedule hands out where a variant takes `cost[runtime]` seconds, and the schedule."""
    clock = [0.0]
    schedule, groups = Schedule(trial, seconds, now=lambda: clock[0]), []
    for stage, group in schedule.groups():
        groups.append((clock[0], stage, group))
        clock[0] += (len(group) + 1) * cost[stage.runtime]
    return groups, schedule, clock[0]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return measure_trial(TINY, CPU, "h100", 600, folder, Progress(quiet=True))


def test_every_method_is_asked_for_at_both_targets_the_most_compared_first():
    trial = Trial()
    stage = trial.stages[0]
    cells = trial.cells(stage)
    assert (stage.model, stage.runtime) == (SMALL, "eager")
    assert sorted(cell.method for cell in cells) == sorted(2 * [name for name in list_reducers() if name != "none"])
    half = len(cells) // 2
    assert [cell.method for cell in cells[: len(FIRST)]] == list(FIRST)
    assert {cell.target for cell in cells[:half]} == {"flops=-35%"}
    assert {cell.target for cell in cells[half:]} == {"flops=-50%"}


def test_what_cannot_be_captured_is_not_asked_of_graphs():
    trial = Trial()
    asked = {stage.runtime: {cell.method for cell in trial.cells(stage)} for stage in trial.stages}
    assert asked["eager"] - asked["graphs"] == {"adamerge", "ats", "g2tm", "saint"}  # of counts that follow the image
    assert asked["compiled"] == asked["eager"]


def test_on_a_modern_gpu_ten_minutes_hold_all_of_deit_s_in_eager_and_graphs_and_some_of_all_else():
    groups, schedule, end = spend(Trial(), 600, {"eager": 3.0, "graphs": 1.5, "compiled": 30.0})
    assert end <= 600
    left = {(stage.model, stage.runtime): asks for stage, asks in schedule.left.items()}
    assert not left[SMALL, "eager"]
    assert not left[SMALL, "graphs"]
    order = list(dict.fromkeys((stage.model, stage.runtime) for _, stage, _ in groups))
    runtimes = ("eager", "graphs", "compiled")
    assert order == [*((SMALL, runtime) for runtime in runtimes), (BASE, "eager"), (BASE, "graphs")]


def test_no_group_is_begun_that_would_not_be_done_in_time_and_the_rest_is_left_out():
    trial = Trial(stages=(Stage(SMALL, "eager", 0.5), Stage(BASE, "eager", 1.0)))
    groups, schedule, end = spend(trial, 100, {"eager": 3.0})
    assert end <= 100
    done = [(stage, ask) for _, stage, group in groups for ask in group]
    left = [(stage, ask) for stage, asks in schedule.left.items() for ask in asks]
    assert len(set(done)) == len(done)
    assert set(done) | set(left) == {(stage, ask) for stage in trial.stages for ask in trial.cells(stage)}
    assert {stage.model for stage, _ in done} == {SMALL, BASE}
    assert left


def test_time_that_a_later_stage_leaves_goes_back_to_the_first_that_is_not_done():
    trial = Trial(stages=(Stage(SMALL, "eager", 0.1), Stage(BASE, "graphs", 1.0)), targets=("flops=-35%",))
    groups, schedule, _ = spend(trial, 600, {"eager": 5.0, "graphs": 1.0})
    models = [stage.model for _, stage, _ in groups]
    assert models[0] == SMALL
    assert models[-1] == SMALL
    assert BASE in models
    assert not any(schedule.left.values())


def test_a_session_measures_predicts_and_counts_each_cell(session):
    _, content = session
    by_cell = {(cell["method"], cell["target"]): cell for cell in content["cells"]}
    cell, plain = by_cell["topk", "flops=-20%"], by_cell["none", None]
    assert cell["measured"]["im_s"] > 0
    assert cell["measured"]["batch_size"] == 2
    assert len(cell["measured"]["rounds"]) == 2
    traced = TracedModel("test_vit").trace(None, None, 2, Implementation("fp32"))
    assert plain["trace"]["launches"] == traced.launches
    assert cell["trace"]["launches"] > plain["trace"]["launches"]
    assert 0.7 < cell["flops_ratio"] < 0.85
    expected = predict_forward(traced, load_fit().reach.roofline(GPUS["h100"], "fp32"))
    assert plain["predicted"]["ms"] == pytest.approx(1e3 * expected.seconds)
    assert content["machine"]["packages"]["torch"]
    assert content["left_out"] == []


def test_a_target_out_of_reach_has_no_figures_and_says_why(session):
    _, content = session
    (cell,) = [cell for cell in content["cells"] if (cell["method"], cell["target"]) == ("topk", "flops=-99%")]
    assert cell["measured"] is None
    assert cell["predicted"]["im_s"] is None
    assert "cannot be reached" in cell["reason"]
    assert any("topk flops=-99%" in note and "cannot be reached" in note for note in notes_of(content))


def test_the_table_has_measured_and_predicted_in_columns_of_their_own(session):
    _, content = session
    lines = lines_of(content)
    assert [line[2] for line in lines] == ["none", "topk", "diffrate", "topk", "diffrate"]
    cell = dict(zip(HEADERS, lines[1], strict=True))
    (stored,) = [one for one in content["cells"] if (one["method"], one["target"]) == ("topk", "flops=-20%")]
    assert float(cell["im/s"].replace(",", "")) == pytest.approx(stored["measured"]["im_s"], rel=0.01)
    assert float(cell["predicted im/s"]) == pytest.approx(stored["predicted"]["im_s"], rel=0.01)
    assert cell["launches"] == str(stored["trace"]["launches"])
    assert dict(zip(HEADERS, lines[3], strict=True))["im/s"] == "n/a"


def test_what_there_was_no_time_for_is_said_and_stored(tmp_path):
    trial = replace(
        TINY, targets=("flops=-20%", "flops=-25%"), stages=(*TINY.stages, Stage("test_vit", "compiled", 1.0))
    )
    _, content = measure_trial(trial, CPU, None, 20, tmp_path, Progress(quiet=True))  # compiling is taken for 45 s each
    (stage,) = content["left_out"]
    assert stage["cells"] == [{"method": m, "target": t} for t in trial.targets for m in trial.methods]
    notes = notes_of(content)
    assert any("test_vit compiled: flops=-20%: topk, diffrate; flops=-25%: topk, diffrate" in note for note in notes)
    assert any("Nothing is predicted" in note for note in notes)
    assert any("against itself" in note for note in notes)
    assert all(cell["predicted"]["im_s"] is None for cell in content["cells"])


def test_a_time_that_is_too_short_for_anything_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(RequestError, match="too few for the first cells"):
        measure_trial(TINY, CPU, None, 1, tmp_path / "gpu", Progress(quiet=True))
    assert not (tmp_path / "gpu").exists()


def test_the_file_comes_back_as_it_was_written_and_a_changed_one_is_refused(session, tmp_path):
    file, content = session
    assert read_session(file) == content
    copy = tmp_path / file.name
    copy.write_text(file.read_text().replace('"launches": ', '"launches": 1'))
    with pytest.raises(RequestError, match="is not what was written"):
        read_session(copy)
    copy = tmp_path / "renamed.json"
    copy.write_text(file.read_text())
    with pytest.raises(RequestError, match="name and all"):
        read_session(copy)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"a": 1}))
    with pytest.raises(RequestError, match="is no file that `gpu` has written"):
        read_session(other)
    with pytest.raises(RequestError, match="does not exist"):
        read_session(tmp_path / "none.json")


def test_a_file_that_was_sent_is_shown_without_a_gpu(session, capsys):
    file, content = session
    with pytest.raises(SystemExit) as ended:
        main(["gpu", "--show", str(file)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert f"Measured on {content['device']}" in printed
    assert "predicted" in printed


def test_what_is_compiled_is_not_predicted_and_graphs_take_the_gpus_time_alone():
    traced = TracedModel("test_vit")
    plain = traced.trace(None, None, 2, Implementation("bf16"))
    expected = predict_forward(plain, load_fit().reach.roofline(GPUS["h100"], "bf16"))
    eager, graphs, compiled = (
        predict_cell(plain, plain, runtime, "h100", 2, "bf16") for runtime in ("eager", "graphs", "compiled")
    )
    assert eager["ms"] == pytest.approx(1e3 * expected.host_s)  # two images: the processor decides
    assert eager["im_s_low"] is None
    assert graphs["ms"] == pytest.approx(1e3 * expected.gpu_s)
    assert graphs["im_s_low"] < graphs["im_s"] < graphs["im_s_high"]
    assert compiled["ms"] is None
    assert "not predicted" in compiled["reason"]
    unknown = predict_cell(plain, plain, "eager", None, 2, "bf16")
    assert unknown["ms"] is None
    assert "--gpu" in unknown["reason"]


def test_data_sheets_are_of_gpus_that_are_known_and_no_other_is_guessed():
    assert set(DEVICES.values()) == set(GPUS)
    assert sheet_for(CPU, None) is None
    assert sheet_for(CPU, "l40s") == "l40s"
    with pytest.raises(RequestError, match="unknown GPU"):
        sheet_for(CPU, "h1000")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("flags", [[], ["--check"]])
def test_without_cuda_the_verb_ends_in_one_line(flags, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["gpu", "--out", str(tmp_path / "gpu"), *flags])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert "CUDA" in line
    assert not (tmp_path / "gpu").exists()


@pytest.mark.parametrize("flags", [["--device", "cpu"], ["--minutes", "0"], ["--minutes", "nan"]])
def test_what_the_verb_cannot_do_is_one_line(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["gpu", *flags])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert flags[0] in line


def sent_from(folder, session, device="cpu", **changes):
    """The file of another session, in a folder of its own."""
    name = f"{device.lower().replace(' ', '-')}.json"
    SealedFiles(folder).write_json(name, session[1] | {"device": device} | changes)
    return folder / name


def test_sessions_are_joined_by_their_gpu_with_every_cell_once(session, tmp_path):
    _, content = session
    again = [cell for cell in content["cells"] if cell["method"] != "diffrate"]
    late = [cell | {"method": "late"} for cell in content["cells"] if cell["method"] == "topk"]
    gone = [{"model": "test_vit", "runtime": "eager", "cells": [
        {"method": method, "target": "flops=-20%"} for method in ("late", "later")]}]  # fmt: skip
    sent = [
        sent_from(tmp_path / "a", session, "One GPU", left_out=gone),
        sent_from(tmp_path / "b", session, "Another GPU"),
        sent_from(tmp_path / "c", session, "One GPU", cells=[*again, *late]),
    ]
    (one, sessions), (other, single) = merge_sessions(sent, tmp_path / "joined")
    assert (sessions, single) == (2, 1)
    joined = read_session(tmp_path / "joined" / one)
    ours = [cell for cell in content["cells"] if cell["method"] != "none"]
    found = [cell for cell in joined["cells"] if cell["method"] not in ("none", "late")]
    assert [cell["measured"] for cell in found] == [cell["measured"] for cell in ours]
    assert [cell["method"] for cell in joined["cells"]].count("late") == len(late)
    assert [ask["method"] for stage in joined["left_out"] for ask in stage["cells"]] == ["later"]
    assert len({cell["group"] for cell in joined["cells"]}) == 2 * len({cell["group"] for cell in content["cells"]})
    assert read_session(tmp_path / "joined" / other)["cells"] == content["cells"]
    assert len(lines_of(joined)) == 1 + len(found) + len(late)


def test_sessions_of_one_gpu_that_were_timed_differently_are_not_joined(session, tmp_path):
    machine = session[1]["machine"]
    older = machine | {"packages": machine["packages"] | {"torch": "1.0"}}
    sent = [sent_from(tmp_path / "a", session), sent_from(tmp_path / "b", session, machine=older)]
    with pytest.raises(RequestError, match=r"torch is .* and 1\.0 in .*--allow-different torch"):
        merge_sessions(sent, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    merge_sessions(sent, tmp_path / "joined", ["torch"])
    trial = session[1]["trial"] | {"batch_size": 3}
    with pytest.raises(RequestError, match="batch size is 2 in"):
        merge_sessions([sent[0], sent_from(tmp_path / "c", session, trial=trial)], tmp_path / "other", ["torch"])


def test_what_a_session_measured_stands_beside_a_runs_own_cells(session, tiny_run, tmp_path, capsys):
    spec = tiny_run | {"reducers": ["topk"], "rates": [], "flops": ["-20%"], "image_size": None, "speed": False}
    run(spec, progress=Progress(quiet=True), report=False)
    file = sent_from(tmp_path / "a", session, "One GPU")
    with pytest.raises(SystemExit) as ended:
        main(["merge", spec["out"], str(file), "--out", str(tmp_path / "merged")])
    assert not ended.value.code
    (stored,) = [one for one in session[1]["cells"] if (one["method"], one["target"]) == ("topk", "flops=-20%")]
    frame = load_frame(tmp_path / "merged").set_index("reducer")
    assert frame.im_s["topk"] == stored["measured"]["im_s"]
    assert frame.speed_note["topk"].startswith("timed at batch size 2")
    assert frame.im_s["none"] > 0
