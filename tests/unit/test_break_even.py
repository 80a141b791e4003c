"""Promises of `break-even`: what speed-ups at several batch sizes decide, and that nothing is timed twice."""

from __future__ import annotations

import json

import pytest

from reports.pareto.batch_speed import SpeedUp, break_even, draw_batch_speed
from suite.analyse.break_even import FILE, find_break_even
from suite.cli.values import parse_numbers
from suite.errors import RequestError
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec

FASTER, SLOWER, OPEN, UNKNOWN = (1.2, 1.1, 1.3), (0.8, 0.7, 0.9), (1.02, 0.9, 1.1), (None, None, None)


def points(*speeds) -> list[SpeedUp]:
    return [SpeedUp(2**i, *speed) for i, speed in enumerate(speeds)]


@pytest.mark.parametrize(
    ("speeds", "batch", "text"),
    [
        ([SLOWER, FASTER, FASTER], 2, "2"),
        ([FASTER, FASTER], 1, "1"),
        ([SLOWER, OPEN, FASTER], 4, "4 (noise at 2)"),
        ([FASTER, SLOWER, FASTER], 4, "4"),  # it has to stay there
        ([SLOWER, SLOWER], None, "never within 1–2"),
        ([SLOWER], None, "never within 1"),
        ([SLOWER, OPEN], None, "not decided: noise at 2"),
        ([SLOWER, FASTER, SLOWER], None, "not at 4, but at 2"),
        ([SLOWER, FASTER, UNKNOWN], 2, "2"),  # out of memory at 4
        ([UNKNOWN], None, "n/a"),
    ],
)
def test_a_method_pays_from_the_least_batch_size_from_which_on_it_is_surely_faster(speeds, batch, text):
    found = break_even(points(*speeds))
    assert (found.batch, found.text) == (batch, text)


def test_a_speed_up_of_a_single_round_decides_nothing():
    assert break_even([SpeedUp(1, 1.5, None, None)]).text == "not decided: noise at 1"


def test_the_figure_has_a_curve_for_each_method_and_a_ring_where_it_pays():
    curves = {"tome r=8": points(SLOWER, FASTER), "evit keep=0.7": points(SLOWER, OPEN)}
    axes = draw_batch_speed(curves, {"tome r=8": "tome", "evit keep=0.7": "evit"}, "a title").axes[0]
    labels = [line.get_label() for line in axes.lines]
    assert (labels.count("_curve"), labels.count("_pays")) == (2, 1)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2"]


@pytest.mark.parametrize("text", ["", "0,1", "a", "1.5"])
def test_batch_sizes_that_are_none_are_refused(text):
    with pytest.raises(RequestError, match="--batches"):
        parse_numbers(text, "--batches")


def test_a_second_request_times_only_what_is_new_and_another_device_is_refused(tiny_run, tmp_path):
    spec = make_spec({**tiny_run, "speed_rounds": 2})
    out, quiet = tmp_path / "break-even", Progress(quiet=True)
    find_break_even(spec, (1,), out, quiet, min_block_s=0.01)
    first = json.loads((out / FILE).read_text())
    sheet = find_break_even(spec, (1, 3), out, quiet, min_block_s=0.01)
    then = json.loads((out / FILE).read_text())
    assert len(then["cells"]) == 2
    for key, cell in then["cells"].items():
        assert sorted(cell["batches"]) == ["1", "3"]
        assert cell["batches"]["1"] == first["cells"][key]["batches"]["1"]
        assert cell["batches"]["3"]["batch_size"] == 3
    assert sheet.headers == ("Batch size", "tome r=1", "evit r=1")
    assert [line[0] for line in sheet.lines] == ["1", "3", "pays from"]
    assert {record["batch_size"] for record in sheet.records} == {1, 3}
    (out / FILE).write_text(json.dumps(then | {"device": "Another GPU"}))
    with pytest.raises(RequestError, match="timings of 'Another GPU'"):
        find_break_even(spec, (1,), out, quiet, min_block_s=0.01)
