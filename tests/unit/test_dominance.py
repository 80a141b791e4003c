"""What is significantly worse than a floor that costs no more is marked, and nothing else is."""

import numpy as np
import pandas as pd
import pytest

from reports.frame import load_frame
from reports.groups import groups
from reports.marks.dominance import Point, _points, dominated, mark_dominated
from reports.page.outcomes import CAPTIONS, LABELS, Outcomes
from suite import run
from suite.contract.metric import Metric
from suite.stats.aggregates import Mean, Share
from suite.sweep.progress import Progress


def point(name, cost, floor=False, series=None, model="m", ends=(0, 0), in_run=None, side=None):
    cost = cost - ends[0], cost + ends[1]
    return Point(name, name, series or ("run", name, "", ""), model, side, floor, cost, in_run or cost)


def outcomes(kind=LABELS, metric=None, **scores):
    ids = [str(i) for i in range(len(next(iter(scores.values()))))]
    metric = metric or Metric("top1", "Top-1 (%)", Share("correct"))
    return Outcomes(kind, metric, list(scores), ids, None, np.array(list(scores.values()), dtype=float), None)


def right(count, of=200):
    return [1] * count + [0] * (of - count)


def test_a_method_that_is_surely_worse_than_a_cheaper_floor_is_dominated_by_it():
    points = [point("poor", 1.0), point("equal", 1.0), point("good", 1.0), point("floor", 0.9, floor=True)]
    of = outcomes(poor=right(100), equal=right(148), good=right(190), floor=right(150))
    assert dominated(points, of) == {"poor": "floor", "equal": "", "good": ""}


def test_a_floor_that_costs_more_dominates_nothing_and_one_whose_time_is_open_neither():
    of = outcomes(poor=right(100), floor=right(150))
    assert dominated([point("poor", 1.0), point("floor", 1.1, floor=True)], of) == {}
    assert dominated([point("poor", 1.0, ends=(0.1, 0.1)), point("floor", 0.95, True, ends=(0.1, 0.1))], of) == {}
    assert dominated([point("poor", 1.0, ends=(0.1, 0.1)), point("floor", 0.7, True, ends=(0.1, 0.1))], of) == {
        "poor": "floor"
    }


def test_what_was_timed_in_the_same_rounds_is_compared_by_them():
    of = outcomes(poor=right(100), floor=right(150))
    slow = point("poor", 1.0, ends=(0.5, 0.5), in_run=(0.5, 0.6))
    fast = point("floor", 0.9, True, ends=(0.5, 0.5), in_run=(0.3, 0.4))
    assert dominated([slow, fast], of) == {"poor": "floor"}


def test_what_was_timed_on_a_noisy_machine_is_compared_within_its_run_alone():
    of = outcomes(poor=right(100), floor=right(150), **{"tiny unreduced": right(160)})
    anything = (-np.inf, np.inf)
    slow = Point("poor", "poor", ("run", "poor", "", ""), "m", None, False, anything, (0.5, 0.6))
    fast = Point("floor", "floor", ("run", "floor", "", ""), "m", None, True, anything, (0.3, 0.4))
    other = point("tiny unreduced", 0.1, True, ("other", "none", "", ""), model="tiny")
    assert dominated([slow, fast, other], of) == {"poor": "floor"}


def test_of_each_floor_the_dearest_rate_is_compared_and_the_best_floor_is_named():
    resize = ("run", "resize", "", "")
    points = [
        point("poor", 1.0), point("small", 0.5, True, resize), point("large", 0.9, True, resize),
        point("tiny unreduced", 0.8, True, ("other", "none", "", ""), model="tiny"),
        point("m unreduced", 0.8, True, ("run", "none", "", "")),
    ]  # fmt: skip
    of = outcomes(**{
        "poor": right(100), "small": right(199), "large": right(150), "tiny unreduced": right(170),
        "m unreduced": right(200),
    })  # fmt: skip
    assert dominated(points, of) == {"poor": "tiny unreduced"}


def test_the_same_model_on_images_that_were_decoded_smaller_is_resize_by_another_name():
    points = [point("poor", 1.0), point("m unreduced", 0.8, True, ("small", "none", "", ""), side=80)]
    assert dominated(points, outcomes(poor=right(100), **{"m unreduced": right(170)})) == {
        "poor": "resize (mode=decode) side=80"
    }


def test_the_more_methods_are_compared_the_surer_each_mark_has_to_be():
    lost = outcomes(floor=right(100), **{f"method{i}": right(94) for i in range(12)})  # 6 losses of 6: p = 1/64
    points = [point("floor", 0.9, floor=True), *(point(f"method{i}", 1.0) for i in range(12))]
    assert dominated(points[:2], lost) == {"method0": "floor"}
    assert set(dominated(points, lost).values()) == {""}


def test_means_are_compared_by_swapping_outcomes_and_an_error_the_other_way_round():
    draw = np.random.default_rng(0)
    low = draw.random(100)
    points = [point("low", 1.0), point("floor", 0.9, floor=True)]
    cider = Metric("cider", "CIDEr", Mean("cider"))
    assert dominated(points, outcomes(CAPTIONS, cider, low=low, floor=low + 0.2)) == {"low": "floor"}
    error = Metric("error", "Error", Mean("error"), lower_is_better=True)
    assert dominated(points, outcomes(CAPTIONS, error, low=low, floor=low + 0.2)) == {"low": ""}


METHOD = """
import torch
from suite.reducers.base import Reducer


class Corner(Reducer):
    def after_attention(self, tokens, signals, amount):
        places = torch.arange(tokens.num_prefix, tokens.count - amount, device=tokens.x.device)
        return tokens.keep(places.expand(len(tokens.x), -1))
"""


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dominance")
    (folder / "corner.py").write_text(METHOD)
    reducers = [f"{folder / 'corner.py'}:Corner", "resize"]
    return run(
        task="scenes", limit=96, reducers=reducers, flops=["-50%", "-60%"], speed=False, out=str(folder / "run"),
        workers=0, progress=Progress(quiet=True),
    )  # fmt: skip


def test_table_page_and_figure_say_so_and_count_it(corner):
    frame = mark_dominated(load_frame(corner.out))
    (row,) = [row for row in frame.itertuples() if row.rate == "flops=-60%" and row.reducer != "resize"]
    assert row.dominated_flops.startswith("resize side=")
    assert pd.isna(row.dominated_time)  # nothing was timed
    assert frame[frame.reducer.isin(["none", "resize"])].dominated_flops.isna().all()
    report = corner.out / "report"
    table = (report / "table.md").read_text()
    assert "‖ dominated by a floor" in table
    assert f"Corner flops=-60% by {row.dominated_flops}" in table
    (line,) = [line for line in table.splitlines() if line.startswith("|") and "Corner" in line and "-60%" in line]
    assert "‖" in line
    assert "<!-- dominated by a floor -->" in (report / "pareto_flops.svg").read_text()
    assert "dominated by a floor" in (report / "index.html").read_text()


def test_the_times_of_a_noisy_run_are_open_but_beside_each_other(corner):
    frame = load_frame(corner.out)
    for name in ("im_s", "speedup"):
        for end, factor in (("", 1), ("_low", 0.98), ("_high", 1.02)):
            frame[name + end] = factor * frame.gmacs.max() / frame.gmacs
    for about in frame.attrs["context"].values():
        about |= {"noisy": True, "device": "CPU", "runtime": "eager"}
    points = list(_points(list(groups(frame)), timed=True))
    assert len(points) == len(frame)
    assert {one.cost for one in points} == {(-np.inf, np.inf)}
    (row,) = mark_dominated(frame).query("rate == 'flops=-60%' and reducer not in ['none', 'resize']").itertuples()
    assert row.dominated_time.startswith("resize side=")
