"""Promises of `pareto`: several runs and published points in one figure, and what curves come to against each other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folder import N, change_all, make_captions, rewrite, write_cell, write_run

from reports.curve_drawing import curve_name
from reports.curve_table import curve_table, write_curve_table
from reports.curves import curves_of, reference_among
from reports.frame import groups, load_frame
from reports.layers import layers_of
from reports.overlay import draw_overlay, write_overlay
from reports.pareto import COLUMN_WIDTH, FULL_WIDTH, RC
from reports.points import FLOPS, MEMORY, SPEED
from reports.published_marks import Mark, published_marks
from reports.rank_change import rank_change
from reports.resamples import resampled_scores
from suite.cli import main
from suite.errors import RequestError

METHODS = {"tome": 4.0, "evit": 7.0, "random": 24.0}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Read by many tests and changed by none."""
    return write_run(tmp_path_factory.mktemp("stored") / "one", METHODS)


@pytest.fixture
def run(stored, tmp_path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "one"))


@pytest.fixture
def other(run, tmp_path) -> Path:
    """The same methods on another model, of twice the cost."""
    out = write_run(tmp_path / "two", {"tome": 6.0, "evit": 9.0})
    change_all(out, "cell", model="vit_other")
    for path in out.glob("cells/*/flops.json"):
        flops = json.loads(path.read_text())
        rewrite(path, **{name: 2 * flops[name] for name in ("total", "baseline_total")})
    return out


def deit(run: Path) -> Path:
    change_all(run, "cell", task="imagenet", model="deit_small_patch16_224.fb_in1k")
    return run


def record(table, run: str, reducer: str) -> dict:
    return next(row for row in table.records if (row["run"], row["reducer"]) == (run, reducer))


# ---------------------------------------------------------------- which runs, and their figure


def test_runs_of_several_models_are_named_by_folder_and_model_and_told_apart_by_letter_and_line(run, other):
    layers = layers_of([run, other])
    assert [(layer.letter, layer.label) for layer in layers] == [("A", "one · vit_scenes"), ("B", "two · vit_other")]
    figure = draw_overlay(layers, FLOPS, FULL_WIDTH)
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.texts]
    assert {"tome A", "tome B", "evit A", "evit B"} <= {name.split(" ↓")[0] for name in names}
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "A: one · vit_scenes" in key
    assert "B: two · vit_other" in key
    curves = [line for line in axes.lines if line.get_label() == "_curve"]
    looks = {(line.get_color(), line.get_marker(), str(line._dash_pattern)) for line in curves}
    assert len(looks) == len(curves) == 5


@pytest.mark.parametrize("plot", [FLOPS, SPEED], ids=lambda plot: plot.name)
def test_no_name_of_a_narrow_overlay_lies_on_another_on_a_point_or_off_the_page(run, other, plot):
    from matplotlib import rc_context

    marks = [Mark("A paper with a long name", "off-the-shelf", name, 0.8, 91.0) for name in ("tome", "none")]
    with rc_context(RC):
        figure = draw_overlay(layers_of([run, other]), plot, COLUMN_WIDTH, marks)
        figure.draw_without_rendering()
        axes, page = figure.axes[0], figure.bbox
        names = [text.get_window_extent() for text in axes.texts if text.get_text()]
        curves = [line for line in axes.lines if line.get_label() == "_curve"]
        points = [axes.transData.transform(point) for line in curves for point in line.get_xydata()]
        outside = [axes.xaxis.label, axes.yaxis.label, axes.title, *figure.legends]
        boxes = [*names, *(thing.get_window_extent() for thing in outside)]
    assert len(names) == len(curves)
    assert not any(a.overlaps(b) for a, b in combinations(names, 2))
    assert not any(box.contains(*point) for box in names for point in points)
    assert all(page.x0 <= box.x0 <= box.x1 <= page.x1 and page.y0 <= box.y0 <= box.y1 <= page.y1 for box in boxes)


def test_folders_of_one_name_are_told_apart_by_the_folders_above(run, tmp_path):
    twin = shutil.copytree(run, tmp_path / "later" / "one")
    assert [layer.label for layer in layers_of([run, twin])] == [f"{tmp_path.name}/one", "later/one"]


def test_runs_of_different_scores_are_refused_in_one_line(run, tmp_path):
    captions = make_captions(write_run(tmp_path / "captions", {"tome": 4.0}))
    with pytest.raises(RequestError, match=r"by top1, .* by cider: only runs of one task and score") as refused:
        layers_of([run, captions])
    assert "\n" not in str(refused.value)


def test_chosen_methods_alone_are_seen_beside_the_unreduced_model(run):
    (layer,) = layers_of([run], ["t*", "evit"])
    assert set(layer.group.frame.reducer) == {"none", "tome", "evit"}
    assert len(layer.group.context) == len(layer.group.frame)
    with pytest.raises(RequestError, match="did you mean 'tome'"):
        layers_of([run], ["tone"])


def test_memory_is_drawn_where_it_was_measured_and_said_to_be_missing_where_not(run, tmp_path):
    files, notes = write_overlay(layers_of([run]), tmp_path / "none", COLUMN_WIDTH, ["memory"])
    assert files == []
    assert notes == ["pareto_memory: nothing to show, no finished cell has both a score and peak_memory_mib"]
    for i, path in enumerate(sorted(run.glob("cells/*/speed.json"))):
        rewrite(path, peak_memory_bytes=(80 + i) * 2**20)
    figure = draw_overlay(layers_of([run]), MEMORY, COLUMN_WIDTH)
    assert figure.axes[0].get_xlabel() == "Peak memory of a batch (MiB)"


# ---------------------------------------------------------------- published points


def test_published_points_are_those_of_the_runs_model_and_methods_in_its_unit(run):
    (group,) = groups(load_frame(deit(run)))
    marks, notes = published_marks(["dtem-1"], [group], FLOPS)
    assert Mark("DTEM, Table 1", "off-the-shelf", "evit", 3.03, 78.5) in marks
    assert {mark.reducer for mark in marks} == {"none", "tome", "evit"}
    assert "pareto_flops: published dtem-1: not in these runs: DTEM" in notes
    assert any("element-wise" in note for note in notes)


def test_a_count_of_two_per_multiply_add_is_halved_and_said_to_be(run):
    change_all(run, "cell", task="imagenet", model="deit_base_patch16_224")
    (group,) = groups(load_frame(run))
    marks, notes = published_marks(["secondary_dora"], [group], FLOPS)
    full = next(mark for mark in marks if mark.reducer == "none")
    assert full.x == pytest.approx(17.6, abs=0.1)
    assert any("halved" in note for note in notes)


def test_what_is_published_of_other_models_or_machines_is_left_off_and_said_to_be(run):
    (group,) = groups(load_frame(run))
    marks, notes = published_marks(["tome"], [group], FLOPS)
    assert not marks
    assert "nothing of scenes with vit_scenes" in notes[0]
    assert published_marks(["tome"], [group], SPEED)[1] == [
        "pareto_speed: no published points, for they are of other machines"
    ]
    with pytest.raises(RequestError, match=r"no such file or table; known: .*dtem-1"):
        published_marks(["dtem-99"], [group], FLOPS)


def test_published_points_are_hollow_in_the_methods_shape_and_named_in_the_key(run):
    marks = [Mark("X, Table 1", "trained", "tome", 0.9, 40.0), Mark("Y", "", "none", 1.3, 93.0)]
    figure = draw_overlay(layers_of([run]), FLOPS, FULL_WIDTH, marks)
    axes = figure.axes[0]
    drawn = {line.get_marker(): line for line in axes.lines if line.get_label() == "_published"}
    assert set(drawn) == {"o", "*"}
    assert drawn["o"].get_markerfacecolor() == "white"
    assert axes.get_ylim()[0] < 40
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "X, Table 1 (published, trained)" in key
    assert "Y (published)" in key


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
    curves = curves_of("", run, group, 20)
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
    draws = resampled_scores(stored, group, 400)
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
    draws = resampled_scores(run, group, 100)
    assert (draws["none-full"] == 100).all()
    assert draws["tome-flops--50"].mean() == pytest.approx(100 * group.frame.agreement["tome-flops--50"], abs=1)


def test_captions_are_resampled_by_their_own_scores_and_have_no_interval_without(run):
    make_captions(run)
    (group,) = groups(load_frame(run))
    assert resampled_scores(run, group, 10) == {}
    table = curve_table(layers_of([run]), resamples=10)
    assert record(table, "one", "evit")["gain"] < 0
    assert record(table, "one", "evit")["gain_low"] is None
    ids = pq.read_table(run / "manifest.parquet")["id"]
    for folder in (run / "cells").iterdir():
        pq.write_table(pa.table({"id": ids, "cider": np.full(N, 1.25)}), folder / "scores.parquet")
    assert all((values == 125).all() for values in resampled_scores(run, group, 10).values())


def test_masks_are_resampled_by_summing_their_areas_again(run):
    """Every image alike, so every resample is the whole: IoU 1/2 of class 0, 1/3 of class 4, 2 is nowhere."""
    shown = {"metrics": [{"name": "miou", "label": "mIoU (%)"}], "costs": [], "throughput": "", "remark": ""}
    rewrite(run / "run.json", shown=shown)
    ids = pq.read_table(run / "manifest.parquet")["id"]
    areas = {"classes": [0, 4], "intersection": [10, 5], "predicted": [20, 5], "labelled": [10, 15]}
    rows = pa.table({"id": ids, "prediction": ids, **{name: [values] * N for name, values in areas.items()}})
    for folder in (run / "cells").iterdir():
        pq.write_table(rows, folder / "samples.parquet")
        rewrite(folder / "scores.json", scores={"miou": {"value": 5 / 12, "low": 0.4, "high": 0.5, "reason": ""}})
    (group,) = groups(load_frame(run))
    assert all(values == pytest.approx(100 * 5 / 12) for values in resampled_scores(run, group, 20).values())


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
    return rank_change(curves_of("", run, group, 300))


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


# ---------------------------------------------------------------- the verb


def code_of(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_the_verb_prints_the_table_and_writes_files_that_the_same_runs_give_byte_for_byte(run, other, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    assert code_of("pareto", run, other, "--x", "flops", "--width", "column", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "tome A" in printed
    assert "written:" in printed
    assert len(pd.read_csv(out / "curves.csv")) == 5
    layers = layers_of([run, other])
    write_overlay(layers, again, COLUMN_WIDTH, ["flops"])
    write_curve_table(curve_table(layers), again)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["curves.csv", "curves.md", "pareto_flops.pdf", "pareto_flops.png", "pareto_flops.svg"]
    assert all((out / name).read_bytes() == (again / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    "wrong", [["--x", "watts"], ["--width", "huge"], ["--published", "nobody"], ["--reducers", "x"], ["--against", "x"]]
)
def test_a_request_that_cannot_be_done_is_one_line_and_leaves_no_file(run, tmp_path, capsys, wrong):
    assert code_of("pareto", run, "--x", "flops", *wrong, "--out", tmp_path / "out") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_short_name_still_tells_a_trained_curve_from_the_untrained_one_of_its_method():
    plain, trained, alone = ("mctf", "", ""), ("mctf", "", "trained: embedded"), ("dtem", "", "trained: embedded")
    keys = [plain, trained, alone]
    assert [curve_name(key, True, keys) for key in keys] == ["mctf", "mctf (trained)", "dtem"]
