"""Papers' tables measured again: every row has a way or a reason, and verdicts say no more than is known."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from reports.published import load_published
from reports.tables.papers import FORMATS, columns_for, console_tables, notes_for, render
from suite import attach
from suite.attachment.branch_handle import BranchHandle
from suite.backbones import backbone_of, family_of
from suite.backbones.branched import DenoiserFamily
from suite.cli.app import main
from suite.errors import CellError, RequestError
from suite.measure.dispatch import count_macs_fast
from suite.measure.flops import smooth_image
from suite.measure.formula import base_macs
from suite.measure.from_shapes import ShapeModel, build, planned_trace
from suite.models.load import check_model_name, load_model
from suite.papers import paper_table, paper_tables
from suite.papers.conventions import in_convention
from suite.papers.measured_table import Cost, Found, count_lines, explained, lines_of, read_plans, table_frame
from suite.papers.runs import find, measure, read_run, spec_of, stored_in
from suite.papers.table import MACS, TWO_PER_MAC, WITH_ELEMENTWISE, PaperTable, Way
from suite.papers.verdicts import Score, cost_verdict, rounding, score_verdict
from suite.rates.rate import TokensPerBlock, parse_rate, rate_text
from suite.rates.schedule import resolve
from suite.reducers import make_reducer
from suite.sweep.plan import make_plan
from suite.sweep.progress import Progress
from tests.photos import write_photos

QUIET = Progress(quiet=True)
DTEM_CELLS = {("none", ""), ("DTEM", "35%"), ("EViT", "50%")}
TINY = "deit_tiny_patch16_224"
TABLES = paper_tables()
WAYS = {
    (way.model, way.reducer, rate_text(way.rate), json.dumps(dict(way.options)), way.image_size): way
    for table in TABLES.values()
    for line in lines_of(table)
    if (way := line.way)
}


@cache
def shape_of(model, image_size):
    with torch.device("meta"):
        return backbone_of(build(model, image_size))


@cache
def shapes_of(model):
    return ShapeModel(model)


def counted(name, keep):
    """Frame of the lines of a table that `keep` chooses, costs alone."""
    table = paper_table(name)
    lines = [line for line in lines_of(table) if keep(line)]
    return table_frame(table, lines, count_lines(lines, table.convention, QUIET), [None] * len(lines))


def exit_code(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def refused(capsys, *arguments):
    assert exit_code(*arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    return said[0]


# what the tables are


def test_every_published_row_is_in_one_table_and_is_measured_or_says_why_not():
    seen = Counter()
    for table in TABLES.values():
        for line in [] if table.absent else lines_of(table):
            seen[line.published.file, line.published.line] += 1
            assert (line.way is None) == bool(line.why), line
    rows = load_published()
    assert seen == Counter(zip(rows.file, rows.line))


def test_tables_whose_figures_could_not_be_read_hold_none():
    absent = [table for table in TABLES.values() if table.absent]
    assert {f"dtem-{number}" for number in (2, 3, 4, 5, 6, 7, 14)} == {table.name for table in absent}
    for line in (line for table in absent for line in lines_of(table)):
        assert line.published is None


@pytest.mark.parametrize("way", WAYS.values(), ids=["-".join(map(str, key[:3])) for key in WAYS])
def test_every_way_names_a_model_and_a_method_that_exist_and_a_rate_that_resolves(way):
    check_model_name(way.model)
    made, model = make_reducer(way.reducer, **way.options), shape_of(way.model, way.image_size)
    family = family_of(model)
    if isinstance(family, DenoiserFamily):  # whose blocks have several numbers of tokens
        amounts = BranchHandle(model, family, made, way.rate).schedule(0).amounts
    else:
        layout = family.layout(model)
        shape = {"depth": layout.depth, "tokens": layout.tokens, "num_prefix": layout.num_prefix}
        amounts = resolve(way.rate, made, **shape).amounts
    assert any(amounts) == (way.reducer != "none")


# costs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reducer", "rate", "options"),
    [("none", None, {}), ("tome", "r=13", {}), ("dtem", "r=16", {}), ("evit", "keep=0.7", {"fuse": False}),
     ("mctf", "r=16", {}), ("dtps", "keep=0.7", {})],
)  # fmt: skip
def test_shapes_alone_cost_what_a_real_forward_does(reducer, rate, options):
    model, _ = load_model(TINY, "none")
    with attach(model, reducer, rate, **options) as handle:
        real = count_macs_fast(model, smooth_image(224))
    count = shapes_of(TINY).count(reducer, rate, options)
    assert (count.macs, count.trace) == (real, tuple(handle.trace))
    assert count.closed_form == base_macs(handle.layout, handle.trace).total


def test_a_cost_that_depends_on_the_image_is_none():
    with pytest.raises(CellError, match="depends on the image"):
        shapes_of(TINY).count("ats", "keep=0.7", {})


def test_the_paper_cells_of_mctf_come_out():
    frame = counted("mctf-1", lambda line: line.method == "MCTF")
    assert [f"{value:.1f}" for value in frame.gflops] == ["0.7", "2.6"] == list(frame.gflops_printed)
    assert set(frame.gflops_verdict) == {"reproduced"}


def test_the_paper_cells_of_tofu_come_out():
    lines = {line.published.printed_gflops: line for line in lines_of(TABLES["tofu-1"]) if line.method == "ToFu MLERP"}
    assert list(lines) == ["13.12", "10.93", "8.78", "7.14"]
    model = shapes_of("mae_vit_base_patch16").model
    for printed, line in lines.items():  # the method's own work is a tenth of a percent
        with attach(model, line.way.reducer, line.way.rate) as handle:
            closed = base_macs(handle.layout, planned_trace(handle)).total / 1e9
        assert closed == pytest.approx(float(printed), rel=0.003)
    (cost,) = count_lines([lines["8.78"]], MACS, QUIET)
    assert cost.macs / 1e9 == pytest.approx(8.78, abs=0.01)


def test_the_paper_cells_of_dtem_come_out_and_nearer_by_its_own_way_of_counting():
    frame = counted("dtem-1", lambda line: line.model == "DeiT-S" and (line.method, line.setting) in DTEM_CELLS)
    assert len(frame) == len(DTEM_CELLS)
    assert set(frame.gflops_verdict) == {"reproduced"}
    assert frame.gflops_difference.abs().max() < 0.006
    plain = (frame.gflops / frame.gflops_published - 1).abs()
    assert plain.mean() > frame.gflops_difference.abs().mean()
    assert frame.gflops_converted[0] == pytest.approx(4.63, abs=0.002)
    reduction = 1 - frame.gflops / frame.gflops[0]
    assert f"{reduction[1]:.1%}" == TABLES["dtem-headline"].rows()[0].reduction == "37.2%"
    assert TABLES["dtem-headline"].way(TABLES["dtem-headline"].rows()[0]).rate == TokensPerBlock(12)


def test_conventions_are_conversions_of_one_count():
    count = shapes_of(TINY).count("none", None, {})
    assert in_convention(TWO_PER_MAC, count.macs, count.layout, count.trace) == 2 * count.macs
    # 12 blocks of 197 tokens of width 192 and 3 heads, counted by hand
    maps, tokens = 12 * 3 * 197 * 197 * 6, 12 * 197 * 192 * (4 + 4 + 1 + 1 + 4)
    ends = 197 * 192 + 4 * 197 * 192
    assert in_convention(WITH_ELEMENTWISE, 0, count.layout, count.trace) == maps + tokens + ends
    with pytest.raises(ValueError, match="none of"):
        in_convention("guesses", 1, count.layout, count.trace)


def test_a_plan_of_diffrate_is_followed_if_it_is_given(tmp_path):
    lists = {"prune_kept_num": str([197] * 6 + [150] * 6), "merge_kept_num": str([197] * 6 + [120] * 6)}
    file = tmp_path / "compression_rate.json"
    file.write_text(json.dumps({"ViT-S-DeiT": {"2.3": lists, "2.9": lists}}))
    table = replace(TABLES["diffrate-1"], models={"ViT-B (DeiT)": "!no", "ViT-B (MAE)": "!no", "ViT-L (MAE)": "!no",
                    "ViT-H (MAE)": "!no", "LV-ViT-S": "!no"})  # fmt: skip
    (line, _) = [line for line in lines_of(table, read_plans(file)) if line.way and line.way.reducer == "diffrate"]
    (cost,) = count_lines([line], table.convention, QUIET)
    assert 3.5e9 < cost.macs < 4.3e9
    with pytest.raises(RequestError, match="no plan of"):
        lines_of(TABLES["diffrate-1"], read_plans(file))
    assert "--plans" in next(line.why for line in lines_of(table) if line.method == "DiffRate" and not line.way)


# verdicts


@pytest.mark.parametrize(("printed", "half"), [("4.64", 0.005), ("17.7", 0.05), ("33", 0.5), ("12.0", 0.05)])
def test_half_a_unit_of_the_last_printed_digit_is_rounding(printed, half):
    assert rounding(printed) == pytest.approx(half)


@pytest.mark.parametrize(
    ("measured", "printed", "word"),
    [(4.55, "4.64", "reproduced"), (4.5, "4.64", "differs"), (0.735, "0.7", "reproduced"), (0.76, "0.7", "differs"),
     (32.5, "33", "reproduced"), (32.2, "33", "differs"), (None, "33", "n/a")],
)  # fmt: skip
def test_a_cost_is_reproduced_within_two_percent_or_its_rounding(measured, printed, word):
    assert cost_verdict(measured, float(printed), printed).word == word


def test_a_cost_that_is_not_printed_gets_no_verdict():
    assert cost_verdict(4.6, math.nan, "").word == "n/a"


def test_a_difference_is_explained_only_by_what_makes_the_printed_figure():
    assert "cut off" in explained(Cost(1.254e9, 1.254e9, 1.254e9), "1.2")
    assert "2.878" in explained(Cost(2.981e9, 2.981e9, 2.878e9), "2.9")
    assert explained(Cost(3.2e9, 3.2e9, 3.15e9), "2.9") == ""


MEASURED = Score(79.5, 79.15, 79.85, 50_000, random=False, method_trained=False)
ROW = SimpleNamespace(dataset="ImageNet-1k", training="off-the-shelf", note="")


@pytest.mark.parametrize(
    ("score", "published", "trained", "word", "why"),
    [
        (MEASURED, 79.5, False, "reproduced", ""),
        (MEASURED, 80.0, False, "reproduced", ""),
        (MEASURED, 80.1, False, "differs", ""),
        (MEASURED, 79.5, True, "not comparable", "after training"),
        (replace(MEASURED, method_trained=True), 79.5, True, "reproduced", ""),
        (replace(MEASURED, random=True), 79.5, False, "not comparable", "random weights"),
        (replace(MEASURED, samples=1000), 79.5, False, "not comparable", "1,000 of 50,000"),
        (replace(MEASURED, untrained="dtem is untrained embedding"), 79.5, False, "not comparable", "untrained"),
        (MEASURED, math.nan, False, "n/a", "no score is printed"),
        (None, 79.5, False, "n/a", ""),
    ],
)
def test_a_score_is_judged_only_where_weights_training_and_data_are_the_papers(score, published, trained, word, why):
    verdict = score_verdict(score, published, ROW, trained, reduced=True)
    assert verdict.word == word
    assert why in verdict.why


def test_an_unreduced_model_has_to_come_closer():
    assert score_verdict(MEASURED, 80.0, ROW, False, reduced=False).word == "differs"


# measured


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A row of ToMe's, at r=1 on DeiT-T of 64 pixels with random weights, on four photographs."""
    root = tmp_path_factory.mktemp("tables")
    values = {"task": "imagenet", "data": str(write_photos(root / "photos", each=1)), "batch_size": 4, "device": "cpu",
              "workers": 0, "speed": False}  # fmt: skip
    row = next(line for line in lines_of(TABLES["tome-sweep"]) if line.way.model == TINY)
    lines = [replace(row, way=Way(TINY, "tome", TokensPerBlock(1), image_size=64))]
    cells, lacking = measure(lines, values, root / "out", {TINY: "none"}, QUIET)
    assert not lacking
    return root / "out", lines, cells


@pytest.mark.slow
def test_what_is_missing_is_run_and_random_weights_get_no_verdict(small_run):
    _, lines, cells = small_run
    found = [find(line, cells, "imagenet") for line in lines]
    frame = table_frame(TABLES["tome-sweep"], lines, count_lines(lines, MACS, QUIET), found)
    assert list(frame.score_verdict) == ["not comparable"]
    assert list(frame.score_why) == ["random weights"]
    assert frame.score.isna().all()
    assert list(frame.samples) == [4]
    assert found[0].row.gmacs == pytest.approx(frame.gflops[0])


def test_stored_cells_are_found_again_and_only_by_what_they_are(small_run):
    out, lines, _ = small_run
    stored = stored_in(out)
    assert find(lines[0], stored, "imagenet") is not None
    assert find(lines[0], stored, "ade20k") is None
    way = lines[0].way
    different = {
        "rate": TokensPerBlock(2),
        "reducer": "tofu",
        "image_size": None,
        "options": {"proportional_attention": False},
    }
    for name, value in different.items():
        assert find(replace(lines[0], way=replace(way, **{name: value})), stored, "imagenet") is None, name
    unreduced = replace(lines[0], way=Way(TINY, image_size=64))
    assert find(unreduced, read_run(out / TINY), "imagenet").row.reducer == "none"


def test_a_model_without_weights_is_named_and_the_others_run(small_run, tmp_path):
    out, lines, _ = small_run
    values = json.loads((out / TINY / "run.json").read_text())["spec"]
    values = {key: values[key] for key in ("task", "data", "device", "workers", "speed")}
    heavy = replace(lines[0], way=Way("mae_vit_base_patch16", "tome", "r=8"))
    cells, lacking = measure([heavy], values, tmp_path, {}, QUIET)
    assert not cells
    assert "facebookresearch/mae" in lacking["mae_vit_base_patch16"]


def test_one_method_with_two_sets_of_options_is_one_plan(small_run):
    out, _, _ = small_run
    values = json.loads((out / TINY / "run.json").read_text())["spec"]
    values = {key: values[key] for key in ("task", "data", "checkpoint", "device", "image_size", "speed")}
    cells = [("tofu", "r=2", {"merge": "average"}), ("tofu", "r=2", {"merge": "mlerp"}),
             ("tofu", "r=1", {"merge": "average"}), ("tome", "r=2", {})]  # fmt: skip
    ways = [Way(TINY, reducer, parse_rate(rate), options) for reducer, rate, options in cells]
    plan = make_plan(spec_of([*ways, Way(TINY), Way(TINY, "tome")], {**values, "model": TINY}))
    (unreduced, *found) = plan.methods.values()
    assert unreduced.reducer == "none"
    assert [(method.reducer, str(method.rate), method.options) for method in found] == cells


# forms


@pytest.fixture(scope="module")
def shown():
    frame = counted("mctf-1", lambda line: line.model == "DeiT-T" and line.method in ("none", "A-ViT", "MCTF"))
    frame.loc[0, "method"] = "a|b & <i>"
    return frame


def test_all_formats_say_the_same(shown):
    columns = columns_for(shown)
    cells = [[column.show(row) for column in columns] for row in shown.itertuples()]
    lines = [line for line in render(shown, "md").splitlines() if line.startswith("| ")][1:]
    assert [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines] == [
        [cell.replace("|", "\\|") for cell in row] for row in cells
    ]
    html = render(shown, "html")
    assert html.count("<tr>") == 1 + len(cells)
    assert "<i>" not in html
    latex = render(shown, "latex")
    assert latex.count(r" \\") == 1 + len(cells)
    assert r"\textbar{}b \& \textless{}i" in latex
    rows = list(csv.DictReader(io.StringIO(render(shown, "csv"))))
    assert [row["gflops_verdict"] for row in rows] == list(shown.gflops_verdict)
    assert float(rows[2]["gflops"]) == pytest.approx(shown.gflops[2], rel=1e-12)
    assert rows[1]["gflops"] == "n/a"
    for note in notes_for(shown):
        assert note in render(shown, "md")


def test_every_reason_stands_below_the_table_under_its_number(shown):
    said = notes_for(shown)
    assert "[1] 1.254 is 1.2 when it is cut off, not rounded." in said
    assert "[2] not among the methods here." in said
    assert "n/a [2]" in render(shown, "md")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_shows_every_cell_whatever_its_width(shown, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*console_tables(shown, width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    letters = re.sub(r"\s", "", text)
    assert all(re.sub(r"\s", "", note) in letters for note in notes_for(shown))
    assert width < 120 or "reproduced" in text


def test_a_table_without_figures_says_why():
    frame = counted("dtem-6", lambda line: True)
    assert frame.empty
    for form in FORMATS[:2] + FORMATS[3:]:
        assert "none of its figures could be read" in render(frame, form)
    assert len(console_tables(frame)) == 1


def test_a_row_that_was_read_elsewhere_is_marked():
    assert "ToMe*" in render(counted("tome-sweep", lambda line: line.setting == "r=8" and line.model == "DeiT-T"), "md")


def test_a_rate_that_is_not_printed_is_marked():
    table = PaperTable(
        "x", "X", "dtem", ("Table 1",), ("DTEM (arXiv 2412.10569)",), {("DeiT-S", "ToMe", "35%"): "r=11"}
    )
    line = next(line for line in lines_of(table) if line.method == "ToMe" and line.setting == "35%")
    frame = table_frame(table, [line], [Cost(2.99e9, 2.99e9)], [None])
    assert "tome r=11°" in render(frame, "md")


@pytest.mark.parametrize(("spice", "shown"), [(0.234, "23.40"), (math.nan, "n/a")])
def test_captions_have_every_score_that_papers_print_beside_cider(spice, shown):
    scores = {"cider": 1.31, "bleu_4": 0.412, "meteor": 0.3, "spice": spice}
    intervals = {f"{name}{end}": value for name, value in scores.items() for end in ("_low", "_high")}
    row = SimpleNamespace(status="done", weights_kind="loaded", training="", reducer="none", samples=5000, gmacs=1.0,
                          im_s=math.nan, **scores, **intervals)  # fmt: skip
    line = next(line for line in lines_of(TABLES["dtem-4"]))
    frame = table_frame(TABLES["dtem-4"], [line], [Cost(1e9, 1e9)], [Found(row, {})])
    frame.attrs["flops_only"] = False
    lines = [list(map(str.strip, line.split("|"))) for line in render(frame, "md").splitlines() if "|" in line]
    read = dict(zip(lines[0], lines[-1], strict=True))
    assert [read[name] for name in ("B@4", "METEOR", "SPICE")] == ["41.20", "30.00", shown]
    assert "SPICE published" not in read  # none of the table's could be read


def test_a_fid_is_printed_as_it_is_and_shares_are_of_a_blocks_own_tokens():
    table = TABLES["tome-sd"]
    lines = lines_of(table)
    assert [rate_text(line.way.rate) for line in lines[1:]] == [f"r=0.{number}" for number in range(1, 7)]
    assert {line.way.reducer for line in lines_of(TABLES["tofu-sd"])} == {"tome_sd", "tofu"}
    row = SimpleNamespace(status="done", weights_kind="trained", training="", reducer="tome_sd", samples=2000,
                          gmacs=1.0, im_s=math.nan, fid=33.4, fid_low=32.9, fid_high=34.1)  # fmt: skip
    frame = table_frame(table, lines[5:6], [Cost(1e9, 1e9)], [Found(row, {})])
    assert (frame.score[0], frame.score_published[0], frame.score_verdict[0]) == (33.4, 33.02, "reproduced")
    frame.attrs["flops_only"] = False
    assert "33.4" in render(frame, "md")


# the verb


def test_the_verb_lists_every_table(capsys):
    assert exit_code("tables") == 0
    listed = capsys.readouterr().out
    assert [name for name in TABLES if name not in listed] == []


def test_a_table_from_the_command_line_takes_neither_weights_nor_data(capsys):
    assert exit_code("tables", "mctf-off-the-shelf", "--flops-only", "--format", "md") == 0
    assert "| DeiT-S | MCTF | r=16 | mctf r=16 | 2.609 | n/a | n/a | n/a [1] |" in capsys.readouterr().out


def test_bad_requests_are_one_line(capsys, tmp_path):
    assert "did you mean 'mctf-1'" in refused(capsys, "tables", "mctf-11")
    assert "--data has no meaning" in refused(capsys, "tables", "mctf-1", "--flops-only", "--data", "x")
    assert "--flops-only" in refused(capsys, "tables", "evit-2", "--out", tmp_path / "empty")
    assert "md, latex, csv, html" in refused(capsys, "tables", "evit-2", "--flops-only", "--format", "pdf")
    assert "NAME=FILE" in refused(capsys, "tables", "evit-2", "--checkpoint", "file.pth")
    assert "deit_small_patch16_224" in refused(capsys, "tables", "evit-2", "--checkpoint", "deit_smal_patch16_224=x")
    assert "unknown method of this table" in refused(capsys, "tables", "evit-2", "--reducer-weights", "dtem=x")
    assert "no run.json" in refused(capsys, "tables", "evit-2", "--from", tmp_path)


@pytest.mark.parametrize("written", ["tome-sd", "tomesd", "ToMe_SD"])
def test_a_table_is_found_however_its_name_is_written(written):
    assert paper_table(written).name == "tome-sd"
