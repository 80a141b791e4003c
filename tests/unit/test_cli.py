"""The command line: every bad request is one line and exit code 2, and a good one prints its table."""

from __future__ import annotations

import os

import pytest
import yaml

from suite.cli.app import main
from suite.cli.doctor import embedded_weights
from suite.models.load import check_model_name
from suite.models.registry import CAPTIONER, MODELS, ModelEntry
from suite.store.schema import OLDEST, SCHEMA
from suite.sweep.spec import make_spec
from tasks.caption_scoring.spice_jars import FETCH_SPICE

EMBEDDED = ("scenes_vit", "scenes_eva", "scenes_git", "scenes_segmenter", "scenes_dit")
RUN = ["run", "--task", "imagenet", "--model", "deit_tiny_patch16_224", "--checkpoint", "none", "--device", "cpu"]


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def one_error_line(capsys, *arguments: str) -> str:
    """What a refused request prints."""
    assert exit_code(*arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    return said[0]


@pytest.fixture
def yaml_file(tiny_run, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    return path


def test_a_yaml_file_runs_and_prints_a_table_and_where_the_files_are(yaml_file, tiny_run, capsys):
    assert exit_code("run", yaml_file) == 0
    printed = capsys.readouterr().out
    assert "tome" in printed
    assert "evit" in printed
    assert f"{tiny_run['out']}/report" in printed


def test_flags_override_the_yaml_file(yaml_file, tmp_path, capsys):
    other = tmp_path / "other"
    assert exit_code("run", yaml_file, "--reducers", "uniform", "--out", other) == 0
    assert "uniform" in capsys.readouterr().out
    assert (other / "report" / "table.csv").is_file()


def test_report_makes_the_same_files_from_the_store_alone(yaml_file, tiny_run, tmp_path):
    exit_code("run", yaml_file)
    folder = tmp_path / "run" / "report"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    assert exit_code("report", tiny_run["out"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_failed_cells_are_named_and_the_exit_code_is_1(yaml_file, capsys):
    assert exit_code("run", yaml_file, "--reducers", "tome", "--rates", "r=1", "--flops=-97%") == 1
    assert "flops=-97.0% cannot be reached by 'tome'" in capsys.readouterr().err


def test_plan_shows_what_is_to_do_and_then_what_is_done(yaml_file, capsys):
    assert exit_code("plan", yaml_file) == 0
    assert "to do" in capsys.readouterr().out
    exit_code("run", yaml_file)
    capsys.readouterr()
    assert exit_code("plan", yaml_file) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "r=1" in line]
    assert rows
    assert all("done" in row and "to do" not in row for row in rows)


def test_plan_tells_predicted_cells_that_have_no_scores_from_those_that_are_done(yaml_file, tmp_path, capsys):
    exit_code("run", yaml_file)
    first, *others = (tmp_path / "run" / "cells").iterdir()
    (first / "scores.json").unlink()
    capsys.readouterr()
    assert exit_code("plan", yaml_file) == 0
    printed = capsys.readouterr().out
    assert printed.count("to score") == 1
    assert printed.count("done") == len(others)
    exit_code("run", yaml_file)
    capsys.readouterr()
    exit_code("plan", yaml_file)
    assert "to score" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--reducers", "tomme"], "did you mean 'tome'"),
        (["--reducers", "x*"], "no reducer matches 'x*'"),
        (["--rates", "r=500"], "can take out at most"),
        (["--rates", "keep=0.7", "--reducers", "tome"], "'tome' is not defined for rate keep=0.7"),
        (["--rates", "sideways"], "rate 'sideways' cannot be read"),
        (["--flops=35%"], "between 0 and -100 %"),
        (["--task", "imagnet"], "did you mean 'imagenet'"),
        (["--model", "deit_smal_patch16_224"], "deit_small_patch16_224"),
        (["--model", "resnet18"], "is not supported"),
        (["--data", "nowhere"], "nowhere"),
        (["--checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["--precision", "fp8"], "'fp32', 'fp16', 'bf16' or 'tf32'"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--device", "tpu9"], "device 'tpu9'"),
        (["--reducer-option", "tome.speed=9"], "unknown option of reducer 'tome'"),
        (["--reducer-option", "tome"], "write NAME.OPTION=VALUE"),
        (["--reducers", "evit", "--reducer-option", "evit.fuse=hello"], "option fuse='hello'"),
        (["--reducers", "evit", "--reducer-option", "evit.fuse=["], "the value cannot be read"),
        (["--rates", ""], "names nothing"),
        (["--task-option", "colour=red"], "unknown option of task 'imagenet'"),
        (["--bach-size", "3"], "--batch-size"),
        (["--batch-size", "many"], "batch-size"),
    ],
)
def test_a_bad_flag_is_one_line_that_says_what_to_do(flags, said, photos, tmp_path, capsys):
    base = [*RUN, "--data", photos, "--out", tmp_path / "run"]
    assert said in one_error_line(capsys, *base, *flags)
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_in_a_yaml_file_is_answered_with_the_right_one(tmp_path, capsys):
    path = tmp_path / "typo.yaml"
    path.write_text("reducer: tome\n")
    assert "unknown key 'reducer'; did you mean 'reducers'" in one_error_line(capsys, "run", path)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1\n", ""])
def test_a_file_that_is_no_yaml_mapping_is_refused(content, tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    assert "bad.yaml" in one_error_line(capsys, "run", path)


def test_an_unknown_verb_is_answered_with_the_nearest(capsys):
    assert "report" in one_error_line(capsys, "reprot")


def test_a_report_of_a_folder_that_holds_no_run_is_refused(tmp_path, capsys):
    assert "run.json" in one_error_line(capsys, "report", tmp_path)


def test_a_run_of_another_schema_is_refused_with_a_way_out(yaml_file, tiny_run, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"schema": 1}')
    line = one_error_line(capsys, "run", yaml_file)
    assert line.endswith(f"has schema 1, this version reads {OLDEST} to {SCHEMA}; give another --out")


def test_debug_shows_the_traceback(capsys):
    assert exit_code("run", "--task", "imagnet", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_lists_name_what_there_is(capsys):
    for kind, name in (("reducers", "tome"), ("tasks", "imagenet"), ("models", "deit_small_patch16_224")):
        assert exit_code("list", kind) == 0
        assert name in capsys.readouterr().out


def test_every_model_that_is_known_by_name_is_listed_with_the_weights_that_it_comes_with(capsys):
    def listed(pattern: str) -> dict[str, str]:
        assert exit_code("list", "models", pattern) == 0
        return dict(line.partition("  ")[::2] for line in capsys.readouterr().out.splitlines())

    assert listed("scenes*") == dict.fromkeys(EMBEDDED, "(embedded)")
    assert listed("git*") == {
        "git_base_coco": "(pretrained)",
        "git_large_coco": "(pretrained)",
        "git": "(with --checkpoint FOLDER)",
    }
    everything = listed("*")
    assert everything.keys() >= MODELS.keys()
    assert everything["lvvit_s"] == ""
    for name in everything:
        check_model_name(name)


def test_doctor_names_incomplete_embedded_weights_and_prints_a_long_command_on_a_line_of_its_own(
    tmp_path, monkeypatch, capsys
):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"17\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(MODELS, "gone_git", ModelEntry("gone_git", CAPTIONER, weights=tmp_path))
    assert exit_code("doctor") == 0
    printed = capsys.readouterr().out
    assert FETCH_SPICE in printed.splitlines()
    assert "failed" in next(line for line in printed.splitlines() if "METEOR" in line)  # this Java scores nothing
    weights = {found.detail: found.state for found in embedded_weights()}
    assert {weights.pop(name) for name in EMBEDDED} == {"ok"}
    (detail,) = weights
    assert detail.startswith("gone_git: no config.json, model.safetensors, ")
    assert weights[detail] == "missing"


def test_an_interrupted_run_exits_with_130_and_says_that_it_can_be_continued(yaml_file, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("suite.sweep.executors.local.evaluate_lanes", interrupted)
    assert exit_code("run", yaml_file) == 130
    assert "continues" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("def capacity(self, count): return count", r"capacity(self, count) has to take (self, count, num_prefix)"),
        (
            "def capacity(self, count, num_prefix): return count / none",
            "cannot be planned at r=1: NameError: name 'none'",
        ),
        (
            "def leaving(self, count, amount): raise ValueError('no\\nway')",
            "cannot be planned at r=1: ValueError: no way",
        ),
    ],
)
def test_what_a_method_declares_wrongly_is_its_own_fault_in_one_line(declared, said, tmp_path, tiny_run, capsys):
    (tmp_path / "mine.py").write_text(
        "from suite.reducers.base import Reducer\n\nclass Mine(Reducer):\n    rates = ('r',)\n"
        f"    def before_block(self, tokens, signals, amount): return tokens\n    {declared}\n"
    )
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tiny_run | {"reducers": [f"{tmp_path}/mine.py:Mine"]}))
    assert said in one_error_line(capsys, "run", tmp_path / "sweep.yaml")


VERBS = ("run", "plan", "report", "doctor", "train", "tables", "pareto", "break-even", "compare", "check", "analyse")


@pytest.mark.parametrize("verb", [(), *((name,) for name in (*VERBS, "list", "view", "baseline"))])
def test_every_verb_has_help(verb, capsys):
    assert exit_code(*verb, "--help") == 0
    assert "Usage" in capsys.readouterr().out


def test_quick_is_the_embedded_default_at_half_of_its_costs_and_says_what_it_leaves_out(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("suite.cli.app.execute", asked.append)
    assert exit_code("--quick") == 0
    whole, quick = (make_spec(values) for values in ({}, *asked))
    assert set(quick.flops) < set(whole.flops)
    assert (whole.kernels, quick.kernels) == (True, False)
    assert quick.model_copy(update={"flops": whole.flops, "kernels": True}) == whole
    said = capsys.readouterr().out
    assert all(target.amount in said for target in set(whole.flops) - set(quick.flops))
    assert "launches and bytes" in said
    assert "--quick" in one_error_line(capsys, "--quick", "list", "tasks")
