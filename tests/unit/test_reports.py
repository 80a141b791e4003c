"""Promises of the tables and Pareto plots: what people read off a run, in digits and in pictures."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from run_folder import (
    ATS_FLOPS,
    CAPTIONS,
    LEARNED,
    N,
    change_all,
    make_captions,
    rewrite,
    start_run,
    write_cell,
    write_json,
    write_run,
    write_samples,
    write_study,
)

from reports.frame import load_frame
from reports.groups import groups
from reports.pareto.figures import write_pareto
from reports.pareto.labels import spread_out
from reports.pareto.plots import COLUMN_WIDTH, FULL_WIDTH, RC, draw
from reports.pareto.points import FLOPS, SPEED, frontier, plots_of
from reports.pareto.style import FAMILIES, styles_for
from reports.tables.results import console_table, write_tables
from reports.text.headings import RANDOM_WEIGHTS
from reports.text.wording import gflops, percent, rate_label, ratio, score, shorten, significant, speed

KNOWN = [name for family in FAMILIES for name in family.members]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """tome and random, all well; evit: one rate failed, one half done, one with disputed FLOPs, one fine."""
    out = write_run(tmp_path / "run", {"tome": 4.0, "random": 24.0, "evit": 7.0})
    cells = out / "cells"
    write_json(cells / "evit-flops--50" / "failed.json", {"reason": "NaN logits | batch 3,\nsample val/00097"})
    half = pq.read_table(cells / "evit-flops--40" / "samples.parquet").slice(0, N // 2)
    write_samples(cells / "evit-flops--40" / "samples.parquet", half)
    uncounted = {"aten::sort": 12, "aten::cumsum (all pairs)": 1}
    rewrite(cells / "evit-flops--28" / "flops.json", disputed=True, uncounted=uncounted)
    return out


def table_row(text: str, *cells: str) -> list[str]:
    """The cells of the one line of a Markdown table that begins with `cells`."""
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    found = [line for line in lines if line[: len(cells)] == list(cells)]
    assert len(found) == 1, text
    return found[0]


def markdown(out: Path) -> str:
    write_tables(load_frame(out), out / "report")
    return (out / "report" / "table.md").read_text()


def test_the_table_gives_people_every_measure_with_its_noise(run):
    row = table_row(markdown(run), "tome", "flops=-50% → r=15")
    assert row[2:] == [
        "89.0 ± 3.1", "98.0", "0.610", "−51.2", "0.66", "389 ± 4", "1.85 [1.84, 1.87]", "113", "n/a",
    ]  # fmt: skip


def test_a_failed_cell_keeps_its_row_with_the_reason(run):
    text = markdown(run)
    assert table_row(text, "evit", "flops=-50% → r=15")[2] == r"failed: NaN logits \| batch 3, sample val/00097"
    assert "- evit flops=-50% failed: NaN logits | batch 3, sample val/00097" in text


def test_an_unfinished_cell_shows_how_far_it_is_and_no_accuracy(run):
    text = markdown(run)
    assert table_row(text, "evit", "flops=-40% → r=12")[2:4] == ["running: 200 of 400", "n/a"]
    assert "evit flops=-40% is not finished: 200 of 400 images scored" in text


def test_disputed_flops_and_uncounted_operations_are_marked_and_named(run):
    text = markdown(run)
    assert table_row(text, "evit", "flops=-28% → r=9")[4] == "0.885†‡"
    assert "the counters differ by more than 0.5 %: evit flops=-28%." in text
    assert "not counted in the FLOPs of evit: aten::cumsum (all pairs), aten::sort." in text


def test_the_caption_says_task_model_weights_images_device_batch_precision_and_spread(run):
    head = markdown(run).split("|")[0]
    assert "scenes · vit_scenes · weights embedded · n = 400 · 112 px" in head
    assert "Test CPU · batch size 32 · fp32 · eager · A/A 0.992–1.006" in head


def test_missing_images_are_told_in_the_caption_and_on_the_row(run):
    (run / "missing.jsonl").write_text('{"id": "val/00399", "path": "x", "reason": "truncated"}\n')
    for path in run.glob("cells/*/samples.parquet"):
        write_samples(path, pq.read_table(path).slice(0, N - 1))
    text = markdown(run)
    assert "399 of 400 images" in text.split("|")[0]
    assert "Unreadable images are left out: 399 of 400 images." in text
    assert table_row(text, "none", "–")[3] == "399 of 400"


def test_random_weights_show_agreement_with_a_warning_instead_of_accuracy(run):
    change_all(run, "cell", weights_kind="random", weights="none")
    text = markdown(run)
    assert f"Warning: {RANDOM_WEIGHTS}" in text
    assert "Agreement (%)" in text
    assert "Top-1 (%)" not in text
    assert "Top-5 (%)" not in text
    assert table_row(text, "none", "–")[2] == "100.0"
    assert "random weights" in (run / "report" / "table.tex").read_text()


def test_noisy_speeds_are_marked_with_a_warning(run):
    rewrite(run / "cells" / "tome-flops--50" / "speed.json", noisy=True, aa_low=0.91)
    text = markdown(run)
    assert table_row(text, "tome", "flops=-50% → r=15")[7].endswith("§")
    assert "§ speed noisy, do not rank by it (see the A/A spread): tome flops=-50%." in text


def test_the_csv_keeps_full_precision_and_says_na_for_no_data(run):
    frame = load_frame(run)
    write_tables(frame, run / "report")
    text = (run / "report" / "table.csv").read_text()
    back = pd.read_csv(run / "report" / "table.csv", index_col="key", dtype="str")  # cast to the last digit below
    assert list(back.columns) == list(frame.columns)
    numbers = frame.select_dtypes("float64").columns
    np.testing.assert_array_equal(back[numbers].to_numpy(float), frame[numbers].to_numpy(float))
    assert ",n/a," in text


def test_tex_escapes_what_tex_would_act_on(run):
    write_cell(run, "my_method", "r=5", cut=0.2, about={"model": "a_b", "weights": "50% #1 & {x}"})
    write_tables(load_frame(run), run / "report")
    text = (run / "report" / "table.tex").read_text()
    assert r"my\_method" in text
    assert r"a\_b $\cdot$ weights 50\% \#1 \& \{x\}" in text
    assert all(line.count(" & ") == 10 for line in text.splitlines() if line.startswith(("tome", "evit")))
    assert text.isascii()


def test_the_same_store_gives_the_same_bytes(run, tmp_path):
    for folder in ("a", "b"):
        write_tables(load_frame(run), tmp_path / folder)
        write_pareto(load_frame(run), tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 9
    assert [n for n in names if (tmp_path / "a" / n).read_bytes() != (tmp_path / "b" / n).read_bytes()] == []


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_console_table_fits_its_terminal_and_wraps_no_row(run, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(console_table(load_frame(run), width))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert sum("flops=" in line and "→ r=" in line for line in lines) == 12
    assert any("No room for: Memory (MiB)" in line for line in lines) == (width < 120)


def test_an_untrained_method_is_marked_on_its_rows_and_explained(run):
    write_cell(run, "dtem", "r=5", cut=0.2)
    weights = {"source": "runs/sit.pt", "sha256": "00"}
    write_cell(run, "sit", "keep=0.7", cut=0.2, about={"reducer_weights": weights})
    text = markdown(run)
    assert table_row(text, "dtem (untrained embedding)", "r=5 → r=6")
    said = "Untrained, so only their cost and speed are the method's (give --reducer-weights)"
    assert f"- {said}: dtem (embedding)." in text
    assert table_row(text, "sit (trained: sit.pt)", "keep=0.7 → r=6")
    assert "- sit trained: sit.pt." in text
    assert "dtem (untrained embedding)" in (run / "report" / "table.tex").read_text()


def test_the_formulation_of_attention_that_was_run_is_named(run):
    write_cell(run, "mctf", "r=5", cut=0.2, about={"formulation": "expanded values"})
    assert "- Attention of mctf as run: expanded values." in markdown(run)


def test_a_target_that_no_rate_meets_names_both_neighbours(run):
    rewrite(run / "cells" / "tome-flops--50" / "cell.json", neighbours=[["r=15", -0.479], ["r=16", -0.512]])
    assert "- tome flops=-50% cannot be met: r=15 gives −47.9 %, r=16 gives −51.2 %." in markdown(run)


def test_a_cost_that_depends_on_the_image_is_shown_with_its_percentiles(run):
    write_cell(run, "ats", "keep=0.7", cut=0.4, flops=ATS_FLOPS)
    text = markdown(run)
    row = table_row(text, "ats", "keep=0.7 → r=12")
    assert (row[4], row[9]) == ("0.750 [0.700, 0.800]", "62 [50, 72]")
    assert "- FLOPs and tokens of ats depend on the image: mean [5th, 95th percentile] over 256 images." in text


def test_a_target_that_cannot_be_met_at_all_has_its_row_in_a_narrow_terminal(run):
    rewrite(run / "cells" / "tome-flops--50" / "cell.json", resolved_rate=None)
    (run / "cells" / "tome-flops--50" / "failed.json").write_text('{"reason": "cannot be reached"}')
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(console_table(load_frame(run), 80))
    assert "flops=-50%" in console.export_text()


@pytest.mark.parametrize("width", [80, 120])
def test_with_every_method_the_console_table_wraps_no_row_and_marks_the_untrained(tmp_path, width):
    out = write_run(tmp_path / "run", dict.fromkeys(KNOWN, 4.0))
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(console_table(load_frame(out), width))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if "±" in line and "r=" in line]
    assert len(rows) == 4 * len(KNOWN)
    assert sum(re.search(r" no(: \w+)? ", row) is not None for row in rows) == 4 * len(LEARNED)


def test_tables_of_a_run_without_cells_are_empty_not_an_error(tmp_path):
    frame = load_frame(start_run(tmp_path / "run"))
    assert len(write_tables(frame, tmp_path / "report")) == 3
    Console(file=open("/dev/null", "w")).print(console_table(frame))  # noqa: SIM115


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (significant(1234.5, 3), "1230"),
        (significant(0.01234, 3), "0.0123"),
        (significant(float("nan"), 3), "n/a"),
        (speed(1234.0, 1200.0, 1268.0), "1230 ± 34"),
        (speed(123.4, 103.0, 143.0), "123 ± 20"),
        (speed(71.3, 7.4, 641.0), "71 [7.4, 640]"),
        (speed(98.76, 98.5, 99.1), "98.8 ± 0.3"),
        (gflops(4.5992), "4.599"),
        (gflops(31.749), "31.75"),
        (score(0.8012, 0.7977, 0.8047), "80.12 ± 0.35"),
        (score(0.80, 0.774, 0.824), "80.0 ± 2.5"),
        (score(1.0, 0.912, 1.0), "100.0 [91.2, 100.0]"),
        (score(float("nan"), 0, 0), "n/a"),
        (percent(-0.352, signed=True), "−35.2"),
        (percent(0.0, signed=True), "0.0"),
        (ratio(1.234, 1.2, 1.26), "1.23 [1.20, 1.26]"),
        (rate_label("r=13", "r=13"), "r=13"),
        (rate_label("", ""), "–"),
        (shorten("a\nbcdef", 5), "a bc…"),
    ],
)
def test_numbers_carry_no_more_digits_than_the_noise_supports(text, expected):
    assert text == expected


def test_models_stand_below_headings_as_wide_as_the_table_and_notes_say_whose_they_are(tmp_path):
    long = "deit_small_distilled_patch16_224"
    out = write_study(tmp_path / "study", {"small": 1.0, long: 4.0}, {"tome": 4.0})
    rewrite(next((out / long).glob("cells/*tome-flops--50/speed.json")), noisy=True)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(console_table(load_frame(out), 100))
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert f"scenes · {long} · weights embedded · n = 400 · 112 px" in lines
    assert sum(line.startswith("Reducer") for line in lines) == 1
    assert sum(line.startswith("none ") for line in lines) == 2
    assert any(line.startswith(f"{long}: §") for line in lines)
    assert not any(line.startswith("small: ") for line in lines)


# ---------------------------------------------------------------- the plots


def curves_of(figure) -> list:
    return [line for line in figure.axes[0].lines if line.get_label() == "_curve"]


def test_both_plots_are_written_in_three_formats(run):
    files, notes = write_pareto(load_frame(run), run / "report")
    assert sorted(path.name for path in files) == sorted(
        f"{plot}.{kind}" for plot in ("pareto_flops", "pareto_speed") for kind in ("png", "svg", "pdf")
    )
    assert all(path.stat().st_size > 1000 for path in files)
    assert notes == ["pareto_flops: left off, FLOPs disputed: evit flops=-28%"]


def test_only_finished_undisputed_cells_are_points_of_the_flops_plot(run):
    figure = draw(next(groups(load_frame(run))), FLOPS, FULL_WIDTH)
    assert sorted(len(line.get_xdata()) for line in curves_of(figure)) == [1, 4, 4]  # evit, random, tome
    assert "1 left off: FLOPs disputed" in figure.axes[0].get_title(loc="left")


def test_a_speed_at_another_batch_size_is_left_off_the_speed_plot_only(run):
    rewrite(run / "cells" / "tome-flops--50" / "speed.json", batch_size=16)
    _, notes = write_pareto(load_frame(run), run / "report")
    assert "pareto_speed: left off, timed at another batch size: tome flops=-50%" in notes


def test_random_weights_are_plotted_as_agreement_and_say_so(run):
    change_all(run, "cell", weights_kind="random")
    axes = draw(next(groups(load_frame(run))), FLOPS, FULL_WIDTH).axes[0]
    assert axes.get_ylabel() == "Agreement with unreduced model (%)"
    assert RANDOM_WEIGHTS in axes.get_title(loc="left")


def test_a_plot_without_points_is_not_written_and_its_forerunner_goes(run):
    write_pareto(load_frame(run), run / "report")
    for path in run.glob("cells/*/speed.json"):
        path.unlink()
    files, notes = write_pareto(load_frame(run), run / "report")
    assert {path.stem for path in files} == {"pareto_flops"}
    assert "pareto_speed: nothing to show, no finished cell has both top1 and im_s" in notes
    assert not list((run / "report").glob("pareto_speed*"))


def test_two_models_stand_in_one_plot_and_scores_of_another_kind_in_one_of_their_own(run):
    write_cell(run, "none", "", about={"model": "other/model"})
    files, _ = write_pareto(load_frame(run), run / "report")
    assert {path.stem for path in files} == {"pareto_flops", "pareto_speed"}
    rewrite(run / "cells" / "none-full" / "cell.json", weights_kind="random")
    files, _ = write_pareto(load_frame(run), run / "report")
    ends = {"-top1", "-agreement"}
    assert {path.stem for path in files} == {f"pareto_{axis}{end}" for axis in ("flops", "speed") for end in ends}
    assert not (run / "report" / "pareto_flops.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("width", [COLUMN_WIDTH, FULL_WIDTH])
@pytest.mark.parametrize("plot", [FLOPS, SPEED], ids=lambda plot: plot.name)
def test_with_every_method_no_name_lies_on_another_on_a_point_or_off_the_page(tmp_path, plot, width):
    from matplotlib import rc_context

    losses = {name: 90.0 if LEARNED.get(name) == "queries" else 4.0 + i for i, name in enumerate(KNOWN)}
    out = write_run(tmp_path / "run", losses | {"own.py:Toy": 9.0})
    with rc_context(RC):
        figure = draw(next(groups(load_frame(out))), plot, width)
        figure.draw_without_rendering()
        axes, page = figure.axes[0], figure.bbox
        names = [text.get_window_extent() for text in axes.texts if text.get_text()]
        curves = [line for line in axes.lines if line.get_label() == "_curve"]
        points = [axes.transData.transform(point) for line in curves for point in line.get_xydata()]
        outside = [axes.xaxis.label, axes.yaxis.label, axes.title, *figure.legends]
        boxes = [*names, *(thing.get_window_extent() for thing in outside)]
    assert len(names) == len(curves) == len(losses) + 1
    assert not any(a.overlaps(b) for a, b in combinations(names, 2))
    assert not any(box.contains(*point) for box in names for point in points)
    assert all(page.x0 <= box.x0 <= box.x1 <= page.x1 and page.y0 <= box.y0 <= box.y1 <= page.y1 for box in boxes)


def test_a_reducer_looks_the_same_whatever_else_is_in_the_plot():
    all_of_them = styles_for([(name, "", "") for name in (*KNOWN, "mine.py:A", "mine.py:B")])
    assert len({(style.colour, style.marker) for style in all_of_them.values()}) == len(KNOWN) + 2
    assert all(styles_for([key]) == {key: style} for key, style in all_of_them.items() if key[0] != "mine.py:B")


def test_further_curves_of_a_reducer_keep_its_colour_and_differ_in_marker_and_line():
    keys = [("tome", "", ""), ("tome", '{"metric": "x"}', "")]
    plain, other = styles_for(keys).values()
    assert plain.colour == other.colour
    assert plain.marker != other.marker
    assert plain.line != other.line


def test_untrained_methods_are_hollow_dashed_named_so_and_never_on_the_frontier(tmp_path):
    out = write_run(tmp_path / "run", {"tome": 4.0, "dtem": 0.0})
    figure = draw(next(groups(load_frame(out))), FLOPS, FULL_WIDTH)
    hollow = [line for line in curves_of(figure) if line.get_markerfacecolor() == "white"]
    assert [line.get_linestyle() for line in hollow] == ["--"]
    assert "dtem (untrained)" in [text.get_text() for text in figure.axes[0].texts]
    assert "untrained" in [text.get_text() for text in figure.legends[0].get_texts()]
    best = next(line for line in figure.axes[0].lines if line.get_label() == "frontier").get_xydata()
    assert not set(map(tuple, best)) & set(map(tuple, hollow[0].get_xydata()))


def test_what_lies_far_below_is_named_with_its_value_and_leaves_the_rest_its_room(tmp_path):
    out = write_run(tmp_path / "run", {"tome": 4.0, "evit": 3.0, "topk": 5.0, "sinkhorn": 90.0})
    axes = draw(next(groups(load_frame(out))), FLOPS, FULL_WIDTH).axes[0]
    assert axes.get_ylim()[0] > 70
    assert "sinkhorn (untrained) ↓ 3" in [text.get_text() for text in axes.texts]
    assert "↓ ends below the axis" in axes.get_title(loc="left")


def test_names_keep_their_distance_and_stay_as_near_to_their_curves_as_that_allows():
    assert spread_out([5.0, 1.0], 1.0, 0.0, 9.0) == [5.0, 1.0]
    assert spread_out([4.0, 4.0, 4.0], 1.0, 0.0, 9.0) == [3.0, 4.0, 5.0]
    assert spread_out([-8.0, -9.0, 0.5, 9.0, 9.0], 1.0, 0.0, 9.0) == [1.0, 0.0, 2.0, 8.0, 9.0]


def test_the_frontier_keeps_what_no_other_point_beats():
    points = [(1.0, 80.0), (2.0, 85.0), (2.0, 84.0), (3.0, 85.0), (4.0, 90.0), (1.5, 70.0)]
    assert frontier(points, fewer_is_better=True) == [(1.0, 80.0), (2.0, 85.0), (4.0, 90.0)]
    assert frontier(points, fewer_is_better=False) == [(4.0, 90.0)]


def test_what_intervals_leave_open_is_on_no_frontier():
    points, fast = [(100.0, 90.0), (110.0, 89.0), (200.0, 80.0)], False
    assert frontier(points, fast, [(99, 101), (105, 115), (180, 220)]) == points
    assert frontier(points, fast, [(90, 112), (105, 115), (180, 220)]) == [points[0], points[2]]
    assert frontier(points, fast, [(90, 112), (105, 190), (180, 220)]) == [points[0]]


@pytest.mark.parametrize("methods", [["tome"], pytest.param(KNOWN, marks=pytest.mark.slow)])
def test_a_figure_of_speeds_shows_the_intervals_of_every_point_in_both_coordinates(tmp_path, methods):
    group = next(groups(load_frame(write_run(tmp_path / "run", dict.fromkeys(methods, 4.0)))))
    for plot, coordinates in ((SPEED, 2), (FLOPS, 1)):
        axes = draw(group, plot, FULL_WIDTH).axes[0]
        spans = [np.ptp(segment, axis=0) for lines in axes.collections for segment in lines.get_segments()]
        crossed = np.count_nonzero(np.array(spans) > 0, axis=0)
        assert list(crossed > 0)[2 - coordinates :] == [True] * coordinates
        assert crossed.sum() == coordinates * len(group.frame)
        assert "median" not in axes.get_title(loc="left")


@pytest.mark.parametrize("width", [COLUMN_WIDTH, FULL_WIDTH])
def test_speeds_that_must_not_be_ranked_have_no_frontier_and_no_bold_name_and_the_figure_says_so(tmp_path, width):
    out = write_run(tmp_path / "run", {"tome": 4.0, "evit": 3.0}, speed={"noisy": True, "aa_low": 0.3, "aa_high": 3.0})
    group = next(groups(load_frame(out)))
    for plot, ranked in ((SPEED, False), (FLOPS, True)):
        figure = draw(group, plot, width)
        axes = figure.axes[0]
        assert ("frontier" in [line.get_label() for line in axes.lines]) == ranked
        assert ("frontier" in [text.get_text() for text in figure.legends[0].get_texts()]) == ranked
        assert any(text.get_fontweight() == "bold" for text in axes.texts) == ranked
        assert ("do not rank by these speeds" in axes.get_title(loc="left")) != ranked


def test_an_interval_that_reaches_far_is_cut_where_the_points_can_still_be_told_apart(tmp_path):
    out = write_run(tmp_path / "run", {"tome": 4.0})
    rewrite(out / "cells" / "tome-flops--50" / "speed.json", im_s_high=1e6)
    axes = draw(next(groups(load_frame(out))), SPEED, FULL_WIDTH).axes[0]
    assert axes.get_xlim()[1] < 1000
    assert "→ intervals end beyond the axis" in axes.get_title(loc="left")


def test_matplotlib_is_imported_only_when_a_plot_is_drawn():
    for path in (Path(__file__).parents[2] / "reports").rglob("*.py"):
        at_import = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any("matplotlib" in ast.unparse(node) for node in at_import), path.name


def test_a_captioning_table_has_its_scores_costs_and_whole_speed(run):
    text = markdown(make_captions(run))
    header = next(line for line in text.splitlines() if line.startswith("| Reducer"))
    assert header == (
        "| Reducer | Rate | CIDEr | METEOR | SPICE | Encoder GFLOPs | FLOPs (%) | Overhead (%) | Encoder im/s "
        "| captions/s | Speed-up | Tokens left | Memory (MiB) | Prefill GFLOPs |"
    )
    row = table_row(text, "tome", "flops=-50% → r=15")
    assert row[2:6] == ["124.6 ± 4.3", "28.1", "n/a", "0.610"]
    assert row[8:] == ["389 ± 4", "31.5 ± 1", "1.25 [1.84, 1.87]", "113", "n/a", "0.152"]


def test_the_time_of_the_first_one_stands_beside_the_pace_of_the_following_ones_where_the_task_shows_it(run):
    make_captions(run)
    assert "First" not in markdown(run)
    rewrite(run / "run.json", shown=replace(CAPTIONS, first="First caption (s)").as_dict())
    assert table_row(markdown(run), "tome", "flops=-50% → r=15")[10] == "n/a"
    change_all(run, "whole_speed", first_s=8.0)
    text = markdown(run)
    assert "| captions/s | First caption (s) | Speed-up |" in text
    assert table_row(text, "tome", "flops=-50% → r=15")[9:11] == ["31.5 ± 1", "0.250"]
    assert "- First caption (s): of the first batch with the method" in text


def test_each_speed_is_told_with_its_own_circumstances(run):
    change_all(make_captions(run), "speed", compile=True)
    head, *_ = markdown(run).split("|")
    assert "fp32 · compiled · A/A 0.992–1.006" in head
    assert "the whole model (Test CPU · batch size 32 · fp32 · eager · A/A 0.900–1.200)" in markdown(run)
    (group,) = groups(load_frame(run))
    _, whole, _ = plots_of(group)
    title = draw(group, whole, FULL_WIDTH).axes[0].get_title(loc="left")
    assert "eager · A/A 0.900–1.200" in " ".join(title.split())


def test_scores_are_bracketed_only_where_their_own_scale_ends():
    assert score(0.98, 0.94, 1.02, largest=10.0) == "98.0 ± 4.0"
    assert score(0.98, 0.9, 0.99) == "98.0 [90.0, 99.0]"
    assert score(0.0, 0.0, 0.0) == "0.0"


def test_a_score_that_could_not_be_made_is_explained_below_the_table(run):
    text = markdown(make_captions(run))
    assert "- SPICE is n/a: needs CoreNLP." in text
    assert "- 3 of 400 captions are empty (tome flops=-15%, tome flops=-28%, tome flops=-40%, tome flops=-50%)." in text
    assert "B@1" not in text


def test_a_narrow_terminal_keeps_the_first_score_and_the_whole_speed(run):
    console = Console(width=80, record=True)
    console.print(console_table(load_frame(make_captions(run)), width=80))
    text = console.export_text()
    assert "CIDEr" in text
    assert "captions/s" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "No room for: Memory (MiB), Prefill GFLOPs, " in " ".join(text.split())


def test_a_captioning_plot_shows_the_first_score_and_the_whole_speed(run):
    frame = load_frame(make_captions(run))
    _, notes = write_pareto(frame, run / "report")
    assert not [note for note in notes if "nothing to show" in note]
    (group,) = groups(frame)
    cost, whole, _ = plots_of(group)
    assert (cost.x, whole.x) == ("gmacs", "whole_s")
    axes = draw(group, whole, FULL_WIDTH).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Captions/s", "CIDEr")
    assert axes.get_ylim()[1] > 130
