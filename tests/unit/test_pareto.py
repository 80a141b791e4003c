"""Promises of `pareto`: several runs and published points in one figure, and what curves come to against each other."""

from __future__ import annotations

import json
import shutil
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from run_folder import change_all, make_captions, rewrite, write_run, write_study

from reports.frame import load_frame
from reports.groups import groups
from reports.pareto.curve_drawing import curve_name
from reports.pareto.figures import draw_files, plots_on, save, write_pareto
from reports.pareto.layers import layers_of
from reports.pareto.overlay import draw_overlay
from reports.pareto.plots import COLUMN_WIDTH, FULL_WIDTH, RC
from reports.pareto.points import FLOPS, MEMORY, SPEED
from reports.pareto.published_marks import Mark, published_marks
from reports.tables.curves import curve_table, write_curve_table
from suite.cli.app import main
from suite.errors import RequestError


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
    files, notes = draw_files(layers_of([run]), [MEMORY], COLUMN_WIDTH)
    assert files == {}
    assert notes == ["pareto_memory: nothing to show, no finished cell has both top1 and peak_memory_mib"]
    for i, path in enumerate(sorted(run.glob("cells/*/speed.json"))):
        rewrite(path, peak_memory_bytes=(80 + i) * 2**20)
    figure = draw_overlay(layers_of([run]), MEMORY, COLUMN_WIDTH)
    assert figure.axes[0].get_xlabel() == "Peak memory of a batch (MiB)"


def test_models_that_differ_much_in_cost_share_an_axis_of_powers_and_more_than_five_share_several_figures(tmp_path):
    study = write_study(tmp_path / "study", {"small": 1.0, "large": 12.0}, {"tome": 4.0})
    axes = draw_overlay(layers_of([study]), FLOPS, FULL_WIDTH).axes[0]
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks == [1, 2, 5, 10]
    assert draw_overlay(layers_of([study / "small", study / "small"]), FLOPS, FULL_WIDTH).axes[0].get_xscale() == (
        "linear"
    )
    many = write_study(tmp_path / "many", {f"model-{i}": 1.0 + i for i in range(6)}, {"tome": 4.0})
    with pytest.raises(RequestError, match="6 runs and models: more than 5"):
        layers_of([many])
    files, _ = write_pareto(load_frame(many), tmp_path / "report")
    assert {path.stem for path in files} == {f"pareto_{axis}-{i}" for axis in ("flops", "speed") for i in (1, 2)}


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
    save(draw_files(layers, plots_on(layers[0], ["flops"]), COLUMN_WIDTH)[0], again)
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
