"""Promises of the table of curves: averages, intervals from resampled samples, and ranks by FLOPs and by time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folder import N, change_all, make_captions, rewrite, write_cell

from reports.frame import load_frame
from reports.groups import groups
from reports.pareto.curves import curves_of, reference_among
from reports.pareto.layers import layers_of
from reports.pareto.rank_change import rank_change
from reports.pareto.resamples import resampled_scores
from reports.tables.curves import curve_table
from suite.contract.metric import Metric, TaskReport
from suite.errors import RequestError
from suite.stats.aggregates import MeanIoU


def record(table, run: str, reducer: str) -> dict:
    return next(row for row in table.records if (row["run"], row["reducer"]) == (run, reducer))


# ---------------------------------------------------------------- what curves come to


def test_a_curve_compared_with_its_copy_in_another_run_differs_by_nothing_at_all(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    table = curve_table(layers_of([run, copy]), resamples=100)
    same = record(table, "copy", "tome")
    for name in ("gain", "cost_change"):
        assert [same[name + end] for end in ("", "_low", "_high")] == pytest.approx([0, 0, 0], abs=1e-12)
    assert record(table, "one", "tome")["gain_reason"] == "reference"


def test_averages_are_taken_over_what_the_curves_share_with_intervals_around_them(run):
    table = curve_table(layers_of([run]), resamples=200)
    evit, tome = record(table, "one", "evit"), record(table, "one", "tome")
    assert evit["gain_low"] <= evit["gain"] <= evit["gain_high"] < 0 < evit["cost_change"]
    assert evit["gain_start"] == max(evit["gflops_from"], tome["gflops_from"])
    assert tome["hypervolume_low"] < tome["hypervolume"] < tome["hypervolume_high"]
    assert record(table, "one", "random")["cost_change"] > evit["cost_change"]
    line = next(line for line in table.lines if line[0] == "tome")
    assert line[4:6] == ["reference", "reference"]


def test_what_has_no_average_says_why(run):
    write_cell(run, "topk", "r=5", cut=0.2, accuracy=0.9)
    write_cell(run, "dtem", "r=5", cut=0.2)
    write_cell(run, "dtem", "r=9", cut=0.3)
    write_cell(run, "uniform", "r=5", cut=0.2, accuracy=0.2)
    write_cell(run, "uniform", "r=9", cut=0.4, accuracy=0.1)
    notes = " ".join(curve_table(layers_of([run]), resamples=50).notes)
    assert "Top-1 at equal FLOPs is n/a, topk has one rate: topk." in notes
    assert "Top-1 at equal FLOPs is n/a, untrained: dtem (untrained)." in notes
    assert "FLOPs at equal Top-1 is n/a, no scores in common: uniform." in notes


def test_the_reference_can_be_chosen_and_must_be_there(run):
    table = curve_table(layers_of([run]), against="evit", resamples=50)
    assert record(table, "one", "evit")["gain_reason"] == "reference"
    assert record(table, "one", "tome")["gain"] > 0
    with pytest.raises(RequestError, match="unknown reference 'sit'"):
        curve_table(layers_of([run]), against="sit", resamples=50)


def test_the_reference_is_tome_else_the_first_that_is_trained(run):
    (group,) = groups(load_frame(run))
    curves = curves_of("", group, 20)
    assert reference_among(curves, None).name == "tome"
    others = [curve for curve in curves if curve.name != "tome"]
    assert reference_among(others, None).name == "evit"
    untrained = replace(others[0], key=("a", "", "untrained queries"))
    assert reference_among([untrained, *others], None).name == "evit"


def test_a_narrow_terminal_leaves_columns_out_and_says_so(run):
    from rich.console import Console

    table = curve_table(layers_of([run]), resamples=50)
    for width in (80, 160):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(table.console(width))
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert ("No room for: Rates, GFLOPs, Hypervolume (curves.md)." in " ".join(text.split())) == (width == 80)
        assert next(line for line in text.splitlines() if line.strip().startswith("evit")).count("[") >= 2


# ---------------------------------------------------------------- resampled scores


def test_resampled_shares_lie_around_the_share_and_are_paired(stored):
    (group,) = groups(load_frame(stored))
    draws = resampled_scores(group, 400)
    assert set(draws) == set(group.frame.index)
    for key, values in draws.items():
        share = 100 * group.frame.top1[key]
        assert values.mean() == pytest.approx(share, abs=0.4)
        assert values.std() == pytest.approx(np.sqrt(share * (100 - share) / N), rel=0.2)
    better, worse = draws["none-full"], draws["tome-flops--50"]
    assert (better >= worse).all()  # what is right for the one is right for the other, in every resample


def test_agreement_of_random_weights_is_resampled_against_the_unreduced_model(run):
    change_all(run, "cell", weights_kind="random")
    (group,) = groups(load_frame(run))
    draws = resampled_scores(group, 100)
    assert (draws["none-full"] == 100).all()
    assert draws["tome-flops--50"].mean() == pytest.approx(100 * group.frame.agreement["tome-flops--50"], abs=1)


def test_captions_are_resampled_by_their_own_scores_and_have_no_interval_without(run):
    make_captions(run)
    (group,) = groups(load_frame(run))
    assert resampled_scores(group, 10) == {}
    table = curve_table(layers_of([run]), resamples=10)
    assert record(table, "one", "evit")["gain"] < 0
    assert record(table, "one", "evit")["gain_low"] is None
    ids = pq.read_table(run / "manifest.parquet")["id"]
    for folder in (run / "cells").iterdir():
        pq.write_table(pa.table({"id": ids, "cider": np.full(N, 1.25)}), folder / "scores.parquet")
    assert all((values == 125).all() for values in resampled_scores(group, 10).values())


def test_masks_are_resampled_by_summing_their_areas_again(run):
    """Every image alike, so every resample is the whole: IoU 1/2 of class 0, 1/3 of class 4, 2 is nowhere."""
    rewrite(run / "run.json", shown=TaskReport((Metric("miou", "mIoU (%)", MeanIoU()),)).as_dict())
    ids = pq.read_table(run / "manifest.parquet")["id"]
    areas = {"classes": [0, 4], "intersection": [10, 5], "predicted": [20, 5], "labelled": [10, 15]}
    rows = pa.table({"id": ids, "prediction": ids, **{name: [values] * N for name, values in areas.items()}})
    for folder in (run / "cells").iterdir():
        pq.write_table(rows, folder / "samples.parquet")
        rewrite(folder / "scores.json", scores={"miou": {"value": 5 / 12, "low": 0.4, "high": 0.5, "reason": ""}})
    (group,) = groups(load_frame(run))
    assert all(values == pytest.approx(100 * 5 / 12) for values in resampled_scores(group, 20).values())


# ---------------------------------------------------------------- ranks


def slow_down(run: Path, reducer: str, factor: float, aa: float = 0.01) -> None:
    """All speed-ups of a method divided by `factor`; the unreduced model against itself is `aa` off 1."""
    for path in run.glob("cells/*/speed.json"):
        speed = json.loads(path.read_text())
        slower = factor if path.parent.name.startswith(reducer) else 1
        changed = {name: speed[name] / slower for name in ("speedup", "speedup_low", "speedup_high")}
        rewrite(path, **changed, aa_low=1 - aa, aa_high=1 + aa)


def ranks_of(run: Path):
    (group,) = groups(load_frame(run))
    return rank_change(curves_of("", group, 300))


def test_a_method_that_saves_flops_and_not_time_changes_its_rank(run):
    slow_down(run, "tome", 3.0)
    change = ranks_of(run)
    names = [curve.name for curve in change.curves]
    assert names == ["evit", "random", "tome"]
    assert change.flops.place == [2, 3, 1]
    assert change.time.place == [1, 2, 3]
    assert ("tome", "evit") in {(one.name, two.name) for one, two in change.turned}
    assert change.tau == pytest.approx(-1 / 3)
    notes = " ".join(curve_table(layers_of([run]), resamples=100).notes)
    assert "Beyond the noise, tome is ahead of evit" in notes


def test_no_rank_changes_within_the_spread_of_the_unreduced_model_against_itself(run):
    slow_down(run, "tome", 1.4, aa=0.5)
    change = ranks_of(run)
    assert change.turned == []
    assert change.undecided
    assert change.time.best[2] < change.time.worst[2]
    assert "No rank changes beyond the noise." in " ".join(curve_table(layers_of([run]), resamples=100).notes)


def test_without_speed_there_are_no_ranks(run):
    for path in run.glob("cells/*/speed.json"):
        path.unlink()
    assert ranks_of(run) is None
    assert len(curve_table(layers_of([run]), resamples=20).headers) == 6
