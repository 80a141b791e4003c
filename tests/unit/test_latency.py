"""What callers wait for: every call is counted, a queue is waited in, and what failed is named."""

import json
import threading
import time

import pytest

from reports.pareto.latency import draw_latency
from suite.cli.app import main
from suite.deploy.load import time_calls, time_closed_loop


def test_the_first_call_stands_apart_and_warm_up_is_not_timed():
    seen = []
    times = time_calls(lambda: seen.append(None), warm_up=3, count=4)
    assert len(seen) == 8
    assert len(times.calls) == 4
    assert times.seconds >= sum(times.calls) > 0


def test_callers_at_once_are_answered_in_turn_by_one_worker_and_wait_for_each_other():
    workers, inside = set(), []

    def call():
        workers.add(threading.get_ident())
        inside.append(None)
        assert len(inside) == 1
        time.sleep(0.01)
        inside.pop()

    times = time_closed_loop(call, callers=3, count=7)
    assert len(workers) == 1
    assert len(times.calls) == 7
    # three wait for one worker: their times overlap, and together are more than the time that passed
    assert sum(times.calls) > times.seconds


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["latency", *map(str, arguments)])
    return ended.value.code


def test_the_verb_writes_every_method_and_batch_and_says_on_how_many_threads(tmp_path, capsys):
    asked = ("--reducers", "tome", "--rates", "r=4", "--batches", "1,2", "--calls", 3, "--callers", 2)
    assert run(*asked, "--out", tmp_path) == 0
    told = json.loads((tmp_path / "latency.json").read_text())
    assert [(r["method"], r["batch_size"]) for r in told["records"]] == [
        ("none", 1), ("none", 2), ("tome r=4", 1), ("tome r=4", 2),
    ]  # fmt: skip
    assert told["threads"] >= 1
    assert told["affinity"]
    for record in told["records"]:
        assert record["p99_ms"] is record["loaded_p99_ms"] is None  # of three calls nobody knows it
        assert record["p50_ms"] > 0
        assert record["first_ms"] > 0
        assert record["prepared_s"] is None
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert "closed loop" in capsys.readouterr().out


def test_what_a_runtime_cannot_do_is_named_and_the_rest_is_measured(tmp_path, capsys):
    asked = ("--reducers", "ats", "--rates", "keep=0.7", "--batches", "1", "--calls", 2, "--runtime", "torch-export")
    assert run(*asked, "--out", tmp_path) == 1
    told = json.loads((tmp_path / "latency.json").read_text())
    assert [record["method"] for record in told["records"]] == ["none"]
    assert "depends on the image" in told["failed"][0]
    assert "depends on the image" in capsys.readouterr().err


def test_a_model_of_other_classes_is_timed_on_the_pictures_of_the_task(tmp_path):
    asked = ("--model", "test_vit", "--checkpoint", "none", "--reducers", "tome", "--rates", "r=4", "--batches", "1")
    assert run(*asked, "--calls", 2, "--out", tmp_path) == 0


def test_a_figure_of_nothing_is_a_figure():
    assert draw_latency([], "Latency").axes
