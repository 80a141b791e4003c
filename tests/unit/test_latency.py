"""What callers wait for: every call is counted, a queue is waited in, and what failed is named."""

import json
import threading
import time

import pytest
import torch
from torch import nn

from reports.pareto.latency import draw_latency
from suite.cli.app import main
from suite.deploy.latency import Load, measure_batch, unsteady
from suite.deploy.load import time_closed_loop
from suite.measure.runtimes.eager import Eager
from suite.measure.variant import Variant


@pytest.mark.parametrize(("calls", "shares"), [(100, [20] * 5), (47, [24, 23]), (3, [3])])
def test_calls_are_shared_among_rounds_of_twenty(calls, shares):
    assert Load(calls).shares == shares


def test_rounds_time_every_variant_in_turn_and_warm_up_is_not_timed():
    seen = []
    model = nn.Identity()
    variants = [Variant(name, model, None, Eager(), run=lambda _, name=name: seen.append(name)) for name in "ab"]
    services = measure_batch(variants, torch.zeros(1), Load(calls=40, warm_up=3), lambda _: None, failed := [])
    assert not failed
    assert seen[:2] == ["a", "b"]
    for start in (2, 48):  # two rounds, each of both in an order that is drawn
        one, other = set(seen[start : start + 23]), set(seen[start + 23 : start + 46])
        assert (one, other) in (({"a"}, {"b"}), ({"b"}, {"a"}))
    assert len(seen) == 2 + 4 * 23
    for service in services:
        assert [len(times.calls) for times in service.idle] == [20, 20]
        assert service.loaded == []
        record = service.record()
        assert record["least_ms"] <= record["p50_ms"] <= record["largest_ms"]


def test_rounds_that_differ_are_said_to_be_noisy_and_others_are_not():
    record = {"method": "tome", "runtime": "eager", "batch_size": 1, "least_ms": 10.0, "largest_ms": 12.0}
    assert unsteady(record) == ""
    assert "tome · eager · batch 1: medians of its rounds are 10.0 to 13.0 ms" in unsteady(record | {"largest_ms": 13})


def test_callers_at_once_are_answered_in_turn_by_one_worker_and_wait_for_each_other():
    workers, inside = set(), []

    def call():
        workers.add(threading.get_ident())
        inside.append(None)
        assert len(inside) == 1
        time.sleep(0.01)
        inside.pop()

    times = time_closed_loop(call, callers=3, count=7)
    assert workers == {threading.get_ident()}, "a thread of its own would have a pool of threads of its own"
    assert len(times.calls) == 7
    # three wait for one worker: their times overlap, and together are more than the time that passed
    assert sum(times.calls) > times.seconds


def test_what_a_call_raises_under_load_is_raised():
    with pytest.raises(ZeroDivisionError):
        time_closed_loop(lambda: 1 / 0, callers=2, count=4)


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


def test_a_figure_of_latencies_within_a_decade_has_numbers_at_its_axis():
    record = {"method": "none", "runtime": "eager", "batch_size": 1, "p50_ms": 31.0, "p90_ms": 60.0, "p99_ms": None}
    figure = draw_latency([record, record | {"method": "tome", "p50_ms": 25.0}], "Latency")
    figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    shown = [tick for tick in figure.axes[0].get_yticks() if low <= tick <= high]
    assert {30, 40, 50} <= {round(tick) for tick in shown}
    assert {"30", "50"} <= {label.get_text() for label in figure.axes[0].get_yticklabels()}


def test_a_figure_of_nothing_is_a_figure():
    assert draw_latency([], "Latency").axes
