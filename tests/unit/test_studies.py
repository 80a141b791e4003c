"""Several models, and several tasks, in one command: a run each, and one report over all of them."""

import io
import json
import shutil

import huggingface_hub
import pandas as pd
import pytest
import yaml
from rich.console import Console

from reports.frame import load_frame
from reports.groups import groups
from suite import load, run
from suite.cli.app import main
from suite.errors import RequestError
from suite.store.study import STUDY, StudyFolder, one_run
from suite.sweep.progress import Progress
from suite.sweep.requests import expand_models, requests_of
from suite.sweep.study import make_study
from tests.photos import write_photos

QUIET = Progress(quiet=True)
MODELS = ["test_vit", "test_vit3"]  # tiny, and their images are prepared alike


def code_of(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def one_error_line(capsys, *arguments) -> str:
    assert code_of(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Keys of two tiny models' runs on twelve photos, but for the models."""
    photos = write_photos(tmp_path_factory.mktemp("study") / "photos")
    return {
        "task": "imagenet", "data": str(photos), "checkpoint": "none", "image_size": 64, "batch_size": 5,
        "task_options": {"classes": "all"},
        "device": "cpu", "workers": 0, "reducers": ["tome", "pitome"], "rates": ["r=1"], "speed": False,
    }  # fmt: skip


@pytest.fixture(scope="module")
def study(asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "two"
    return run(asked, models=MODELS, out=str(out), progress=QUIET)


@pytest.fixture
def copied(study, tmp_path):
    return shutil.copytree(study.out, tmp_path / "copied")


def scored(out) -> dict[str, bytes]:
    """Outcomes and costs of a run's cells."""
    return {str(file.relative_to(out)): file.read_bytes() for file in out.glob("cells/*/*.parquet")} | {
        str(file.relative_to(out)): file.read_bytes() for file in out.glob("cells/*/flops.json")
    }


def test_every_model_is_the_run_that_it_is_by_itself(asked, study, tmp_path):
    assert StudyFolder(study.out).read() == {"members": MODELS, "failed": {}}
    for model in MODELS:
        alone = run(asked, model=model, out=str(tmp_path / model), progress=QUIET, report=False)
        assert scored(study.out / model) == scored(alone.out) != {}
        assert (study.out / model / "report" / "index.html").is_file()


def test_a_floor_model_stands_unreduced_beside_the_others(asked, tmp_path):
    request = {**asked, "model": "test_vit", "floor_models": "test_vit3,test_vit", "out": str(tmp_path / "out")}
    study = make_study(request)
    assert [(member.name, member.spec.reducers) for member in study.members] == [
        ("test_vit", ("tome", "pitome")), ("test_vit3", ("none",)),
    ]  # fmt: skip
    frame = run(request, progress=QUIET).frame()
    assert frame[frame.model == "test_vit3"].reducer.tolist() == ["none"]
    assert set(frame[frame.model == "test_vit"].reducer) == {"none", "tome", "pitome"}
    assert "test_vit3" in (tmp_path / "out" / "report" / "pareto_flops.svg").read_text()


def test_models_whose_images_are_prepared_alike_are_run_together(asked, tmp_path):
    said = io.StringIO()
    progress = Progress(Console(file=said, width=1000))
    run(asked, models=[*MODELS, "vit_tiny_patch16_224"], out=str(tmp_path / "out"), progress=progress, report=False)
    assert f"together, as their images are prepared alike: {', '.join(MODELS)}\n" in said.getvalue()
    assert "\nvit_tiny_patch16_224: 3 cells into" in said.getvalue()


def test_one_report_stands_over_all_grouped_by_model_with_every_unreduced_one(study):
    report = study.out / "report"
    table = pd.read_csv(report / "table.csv", dtype=str)
    assert table.model.unique().tolist() == MODELS
    assert table[table.reducer == "none"].model.tolist() == MODELS
    assert (report / "table.md").read_text().count("\n### ") == 1
    names = {path.name for path in report.iterdir()}
    assert {"index.html", "pareto_flops.png", "pareto_flops.svg", "pareto_flops.pdf", "table.tex"} <= names
    legend = (report / "pareto_flops.svg").read_text()
    assert f"<!-- A: {MODELS[0]} -->" in legend
    assert f"<!-- B: {MODELS[1]} -->" in legend


def test_a_frame_is_over_all_runs_and_its_keys_lead_to_samples_of_each(study):
    found = load(study.out)
    frame = found.frame()
    assert frame.index.is_unique
    assert set(frame.index) == set(found.cells) == set(study.cells)
    assert [group.model for group in groups(frame)] == MODELS
    assert [group.out.name for group in groups(frame)] == MODELS
    parts = [load_frame(study.out / model) for model in MODELS]
    pd.testing.assert_frame_equal(frame, pd.concat(parts))
    assert {key: len(found.samples(key)) for key in frame.index} == dict.fromkeys(frame.index, 12)
    with pytest.raises(RequestError, match="cell 'nonsense'"):
        found.samples("nonsense")


def test_the_same_command_again_runs_nothing_and_other_models_join_the_study(asked, copied):
    before = {model: scored(copied / model) for model in MODELS}
    stamps = {path: path.stat().st_mtime_ns for path in copied.glob("*/cells/*/samples.parquet")}
    again = run(asked, models=["test_vit", "deit_tiny_patch16_224"], out=str(copied), progress=QUIET, report=False)
    assert StudyFolder(copied).read()["members"] == [*MODELS, "deit_tiny_patch16_224"]
    assert {model: scored(copied / model) for model in MODELS} == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    frame = again.frame()
    assert frame.model.unique().tolist() == [*MODELS, "deit_tiny_patch16_224"]
    assert set(frame.loc[list(again.cells)].model) == {"test_vit", "deit_tiny_patch16_224"}


def test_a_model_without_weights_costs_the_others_nothing_and_is_named(asked, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    runs = [{"model": "deit_tiny_patch16_224", "checkpoint": "pretrained", "image_size": None}, {"model": "test_vit"}]
    file.write_text(yaml.safe_dump({**asked, "runs": runs}))
    assert code_of("run", file, "--out", out) == 1
    said = capsys.readouterr()
    assert "failed: deit_tiny_patch16_224: no pretrained weights for 'deit_tiny_patch16_224'" in said.err
    assert "test_vit" in said.out
    assert set(load_frame(out).model) == {"test_vit"}
    (reason,) = load(out).failed
    assert reason.startswith("deit_tiny_patch16_224: no pretrained weights")
    assert "- Without deit_tiny_patch16_224: no pretrained weights" in (out / "report" / "table.md").read_text()
    assert "no pretrained weights" in (out / "report" / "index.html").read_text()
    runs[0] = {"model": "deit_tiny_patch16_224"}
    file.write_text(yaml.safe_dump({**asked, "runs": runs}))
    assert code_of("run", file, "--out", out) == 0
    assert load(out).failed == []


def test_a_run_that_breaks_costs_the_others_nothing_and_is_named(asked, tmp_path):
    out = tmp_path / "out"
    StudyFolder(out).add(MODELS)
    (out / "test_vit").mkdir()
    (out / "test_vit" / "run.json").write_text("{")  # and no cell that would say what it was
    found = run(asked, models=MODELS, out=str(out), progress=QUIET)
    assert [reason.split(":")[0] for reason in found.failed] == ["test_vit"]
    frame = load_frame(out)
    assert set(frame.model) == {MODELS[1]}
    assert list(frame.attrs["unread"]) == ["test_vit"]
    assert "- Without test_vit: " in (out / "report" / "table.md").read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--models", "test_vit,test_vot"], "model 'test_vot' is unknown"),
        (["--models", "tset_*"], "no model matches 'tset_*'"),
        (["--models", "test_vit", "--model", "test_vit"], "stands beside models='test_vit'; leave one of them out"),
        (["--models", "test_vit,test_vit2", "--reducers", "tone"], "did you mean 'tome'"),
        (["--models", "test_vit,test_vit2", "--reducers", "evit"], "test_vit2: reducer 'evit' selects by class"),
        (["--models", ","], "models=',' is no list of names"),
        (["--floor-models", ","], "floor_models=',' is no list of names"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_anything_runs(asked, tmp_path, capsys, wrong, said):
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(asked))
    assert said in one_error_line(capsys, "run", file, *wrong, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("scenes", "runs='scenes' is no list of runs"),
        ([], "runs=[] is no list of runs"),
        (["scenes"], "runs.0='scenes' is no run"),
        ([{"task": "scenes"}, {"task": "scene"}], "runs.1: unknown task 'scene'"),
        ([{"mdoel": "scenes_vit"}], "runs.0: unknown key 'mdoel'; did you mean 'model'"),
        ([{"task": "scenes"}, {"task": "scenes", "limit": 3}], "give each of them an out"),
        ([{"out": "a/b"}], "out='a/b' is no name of a folder"),
        ([{"out": "a"}, {"out": "b", "reducers": ["evit"]}], "are the same run"),
        ([{"model": "test_vit", "cells": [{"model": "test_vit2", "reducer": "tome", "rate": "r=1"}]}], "leave one out"),
    ],
)
def test_a_list_of_runs_that_cannot_be_read_is_one_line(tmp_path, capsys, runs, said):
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump({"limit": 4, "reducers": ["tome"], "rates": ["r=1"], "runs": runs}))
    assert said in one_error_line(capsys, "plan", file, "--out", out)


def test_a_wildcard_leaves_out_what_cannot_be_used_and_says_so(asked, tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({**asked, "reducers": ["evit"]}))
    assert code_of("plan", file, "--models", "test_vit,test_vit2*", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "left out: test_vit2: reducer 'evit' selects by class attention" in printed
    assert f"2 cells into {tmp_path / 'out'}" in printed
    assert expand_models(["test_vit", "test_vit*"])["test_vit"]
    assert not expand_models(["scenes_vi?"])["scenes_vit"]


def test_plan_shows_the_cells_of_all_runs_and_what_is_stored_of_them(asked, study, tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(asked))
    assert code_of("plan", file, "--models", ",".join(MODELS), "--out", study.out) == 0
    printed = capsys.readouterr().out
    assert all(f"imagenet / {model}" in printed for model in MODELS)
    assert printed.count("done") == 6
    assert f"6 cells into {study.out}" in printed


def test_keys_beside_runs_are_defaults_that_flags_override(tmp_path):
    values = {"model": "a", "rates": ["r=1"], "limit": 7, "out": "here", "runs": [
        {"models": "b,c", "limit": 3}, {"cells": [{"reducer": "tome", "rate": "r=2"}]},
    ]}  # fmt: skip
    assert requests_of(values) == [
        {"rates": ["r=1"], "models": "b,c", "limit": 3},
        {"model": "a", "limit": 7, "cells": [{"reducer": "tome", "rate": "r=2"}]},
    ]
    from suite.cli.flags import asked as asked_of

    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**values, "task_options": {"x": 1}}))
    given = asked_of(file, {"limit": 5, "out": "there", "model": "d", "task_option": ["y=2"]})
    assert given["out"] == "there"
    assert [(one["model"], one["limit"], one.get("models")) for one in given["runs"]] == [("d", 5, None)] * 2
    assert [one["task_options"] for one in given["runs"]] == [{"x": 1, "y": 2}] * 2


def test_folders_are_named_by_model_by_task_where_there_are_several_and_as_asked():
    def names(**values):
        return [member.name for member in make_study({"reducers": ["tome"], **values}).members]

    assert names(models=["scenes_vit", "test_vit"]) == ["scenes_vit", "test_vit"]
    assert names(runs=[{"task": "scenes"}, {"task": "scenes-seg"}]) == [
        "scenes-scenes_vit",
        "scenes-seg-scenes_segmenter",
    ]
    assert names(runs=[{"out": "x"}, {"out": "y", "models": "test_vit,test_vit2"}]) == [
        "x",
        "y-test_vit",
        "y-test_vit2",
    ]
    assert make_study({"models": ["microsoft/git-base-coco"], "task": "coco-caption"}).members[0].name == (
        "microsoft-git-base-coco"
    )


def test_two_tasks_have_a_table_and_a_figure_each_and_one_page(tmp_path, capsys):
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    shared = {"limit": 4, "workers": 0, "speed": False, "device": "cpu", "reducers": ["tome"], "rates": ["merge=0.3"]}
    runs = [{"task": "scenes", "rates": ["r=8"]}, {"task": "scenes-seg"}]
    file.write_text(yaml.safe_dump({**shared, "runs": runs}))
    assert code_of("run", file, "--out", out) == 0
    printed = capsys.readouterr().out
    assert printed.index("Top-1 (%)") < printed.index("mIoU (%)")
    assert {path.name for path in (out / "report").glob("pareto_flops*.png")} == {
        "pareto_flops-scenes.png",
        "pareto_flops-scenes-seg.png",
    }
    frame = load(out).frame()
    assert frame[frame.task == "scenes"].top1.notna().all()
    assert frame[frame.task == "scenes-seg"].top1.isna().all()
    assert [("miou" in group.frame, "top1" in group.frame) for group in groups(frame)] == [(False, True), (True, False)]
    assert (out / "report" / "table.md").read_text().count("### ") == 2


def test_verbs_of_one_run_name_the_runs_of_a_study(study, tmp_path, capsys):
    line = one_error_line(capsys, "compare", study.out, study.out / "test_vit")
    assert all(str(study.out / model) in line for model in MODELS)
    assert "is one run and" in one_error_line(
        capsys, "merge", study.out, study.out / "test_vit", "--out", tmp_path / "out"
    )
    assert "several runs" in one_error_line(capsys, "check", "tome", "--against", f"{study.out}:tome")
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"models": MODELS}))
    line = one_error_line(capsys, "view", "tokens", file)
    assert all(model in line for model in MODELS)
    with pytest.raises(RequestError, match="name one of them"):
        one_run(study.out)
    assert one_run(study.out / "test_vit") == study.out / "test_vit"


def test_pareto_and_report_work_over_a_study(copied, tmp_path, capsys):
    assert code_of("pareto", copied, "--x", "flops", "--out", tmp_path / "p") == 0
    assert "tome A" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in (copied / "report").iterdir()}
    shutil.rmtree(copied / "report")
    assert code_of("report", copied) == 0
    assert {path.name: path.read_bytes() for path in (copied / "report").iterdir()}.keys() == before.keys()
    assert (copied / "report" / "table.csv").read_bytes() == before["table.csv"]


def test_a_folder_of_something_else_is_no_study(asked, study, tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(asked))
    said = one_error_line(capsys, "run", file, "--models", "test_vit", "--out", study.out / "test_vit")
    assert "holds one run" in said
    assert "is not empty" in one_error_line(capsys, "run", file, "--models", "test_vit", "--out", tmp_path)
    assert "is not empty" in one_error_line(capsys, "run", file, "--model", "test_vit", "--out", study.out)


def test_a_damaged_list_of_runs_is_named_and_made_anew_from_the_folders(asked, copied, capsys):
    stored = json.loads((copied / STUDY).read_text())
    (copied / STUDY).write_text(json.dumps({**stored, "members": ["other"]}))
    with pytest.raises(RequestError, match=r"study.json is damaged"):
        load_frame(copied)
    run(asked, models=["test_vit"], out=str(copied), progress=QUIET, report=False)
    assert set(load_frame(copied).model) == set(MODELS)
    assert [path.name for path in copied.glob(f"{STUDY}.damaged-*")] == [f"{STUDY}.damaged-1"]
