"""What `compare`, `check` and `baseline` promise, on a real sweep of the embedded task and on written run folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from reports.frame import load_frame
from reports.groups import groups
from reports.tables.console import fields_of, fit, spare
from reports.text.headings import notes
from suite.contract.metric import TaskReport
from suite.errors import UNREACHED
from suite.gate.baseline import save_baseline
from suite.gate.check import check
from suite.gate.compare import compare
from suite.gate.contract import prove
from suite.gate.junit import junit
from suite.gate.pairing import left_out, same_cost
from suite.gate.render import SPARE, headline, markdown, reasons, table
from suite.gate.report import Report
from suite.gate.select import load_side
from suite.gate.side import Entry, Side
from suite.reducers.base import Reducer
from suite.stats.captions import BLEU_COUNTS, corpus_bleu
from suite.sweep.engine import execute
from suite.sweep.executors.local import Local
from suite.sweep.plan import make_plan
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec
from tasks.captioning import CaptioningTask
from tasks.classification import ClassificationTask
from tasks.segmentation import SegmentationTask
from tests.unit.gate_runs import IDENTITY, cli, entry, identified
from tests.unit.run_folder import rewrite, sample_ids, write_cell, write_run, write_samples

BROKEN = Path(__file__).parent / "broken_tome.py"
WRONG = {"WrongParity": "wrong parity", "NoSizes": "no size weighting", "ClassTokenMerged": "class token merged"}
METEOR = [8, 8, 3, 3, 4, 4, 2, 2, *[0] * 12, 1, 7, 7]  # counts of one caption, chunks and matched words last
LIMIT, MARGIN = 90, 3.0  # so many samples could show a loss of three points


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    """ToMe, a copy and three broken ones on scenes, where half of the FLOPs are left."""
    out = tmp_path_factory.mktemp("gate") / "run"
    reducers = ["tome", *(f"{BROKEN}:{name}" for name in ("Copy", "Useless", "InPlace", *WRONG))]
    asked = {"reducers": reducers, "rates": ["r=15"], "limit": LIMIT, "speed": False, "workers": 0, "device": "cpu"}
    execute(make_plan(make_spec({**asked, "out": str(out)})), Progress(quiet=True), Local())
    return out


@pytest.fixture
def written(tmp_path) -> Path:
    """ToMe and EViT at four rates, and the unreduced model, on 400 samples."""
    (tmp_path / "run").mkdir()
    return identified(write_run(tmp_path / "run", {"tome": 4.0, "evit": 7.0}))


# --- the gate, on real outcomes


def test_an_identical_copy_passes(sweep):
    report = check(f"{sweep}:Copy", f"{sweep}:tome", {}, margin=MARGIN)
    assert report.verdict == "pass"
    (row,) = report.rows
    assert (row.contrast.differing, row.contrast.samples) == (0, LIMIT)
    assert row.match.new.gmacs == row.match.base.gmacs


@pytest.mark.parametrize("name", WRONG, ids=WRONG.values())
def test_a_broken_copy_regresses_and_the_message_says_what_fell_and_by_how_much(sweep, name):
    report = check(f"{sweep}:{name}", f"{sweep}:tome", {}, margin=MARGIN)
    assert report.verdict == "regressed"
    found = report.rows[0].contrast
    lost = f"Top-1 fell by {-100 * found.difference:.2f} points, from {100 * found.base:.1f} to {100 * found.new:.1f}"
    assert headline(report) == f"regressed: broken_tome.py:{name} against tome at r=15: {lost}"


def test_work_that_the_trace_drops_is_disputed_and_never_passes(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    xml = tmp_path / "junit.xml"
    margin = ("--margin", MARGIN)
    # at the trace's count it would cost the same; it is compared at what it costs
    report = check(f"{sweep}:Useless", f"{sweep}:tome", {}, margin=MARGIN)
    assert report.verdict == "cannot tell"
    assert "no cell at this cost" in report.rows[0].reason
    assert cli("baseline", "save", "useless", f"{sweep}:Useless") == 0
    for new, base in ((f"{sweep}:Useless", f"{sweep}:Useless"), ("useless", "useless"), (f"{sweep}:Copy", "useless")):
        assert cli("check", new, "--against", base, "--junit", xml, *margin) == 5
        said = capsys.readouterr().out
        assert "disputed: broken_tome.py:" in said
        assert "G traced" in said
        assert ElementTree.parse(xml).find("*/error").get("type") == "disputed"


def test_an_older_baseline_that_says_nothing_of_disputes_is_named_and_proves_nothing_of_new(sweep, tmp_path):
    old = load_side(f"{sweep}:tome")
    unsaid = [replace(entry, dispatched_gmacs=None, disputed=None) for entry in old.entries]
    save_baseline(replace(old, entries=tuple(unsaid)), tmp_path / "old.parquet")
    report = check(f"{sweep}:Copy", str(tmp_path / "old.parquet"), {}, margin=MARGIN)
    assert report.verdict == "pass"
    assert "does not say whether the counters of FLOPs agree" in report.remarks[0]
    report = check(str(tmp_path / "old.parquet"), f"{sweep}:tome", {}, margin=MARGIN)
    assert report.verdict == "cannot tell"
    assert "NEW does not say" in headline(report)


def test_a_reducer_that_cannot_be_traced_is_counted_as_dispatched_and_passes(sweep):
    report = check(f"{sweep}:InPlace", f"{sweep}:tome", {}, margin=MARGIN)
    assert report.verdict == "pass"
    assert report.rows[0].match.new.cost == report.rows[0].match.base.cost
    (note,) = [note for note in notes_of(sweep) if "cannot be traced" in note]
    assert note.count("broken_tome.py:InPlace r=15") == 1


def notes_of(out: Path) -> list[str]:
    return [note for group in groups(load_frame(out)) for note in notes(group)]


def test_the_command_runs_a_reducer_file_at_the_baselines_cost_and_exits_with_3(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli("baseline", "save", "tome", f"{sweep}:tome") == 0
    summary, xml = tmp_path / "summary.md", tmp_path / "junit.xml"
    code = cli(
        "check", f"{BROKEN}:WrongParity", "--against", "tome", "--margin", MARGIN, "--no-contract", "--no-speed",
        "--workers", 0, "--device", "cpu", "--out", tmp_path / "new", "--markdown", summary, "--junit", xml,
    )  # fmt: skip
    assert code == 3
    said = capsys.readouterr().out
    assert "regressed: broken_tome.py:WrongParity" in said
    assert "contract tests left out" in said
    assert "Top-1 fell by" in summary.read_text()
    (case,) = ElementTree.parse(xml).iter("testcase")
    assert "Top-1 fell by" in case.find("failure").get("message")
    frame = load_side(str(tmp_path / "new")).entries
    reduced = next(entry for entry in frame if entry.reduced)
    assert reduced.resolved_rate == "r=15"  # solved for what the baseline's cell costs


def test_other_data_than_the_baselines_are_refused_before_anything_is_run(sweep, tmp_path, capsys):
    out = tmp_path / "new"
    asked = ("check", "tofu", "--against", f"{sweep}:tome", "--no-contract", "--limit", 20, "--out", out)
    assert cli(*asked) == 2
    assert "data differs: 20 (" in capsys.readouterr().err
    assert not out.exists()


def test_few_samples_cannot_tell_even_of_a_copy_and_the_number_that_would_is_named(tmp_path, capsys):
    code = cli(
        "check", f"{BROKEN}:Copy", "--against", "tome", "--no-contract", "--no-speed", "--limit", 20, "--rates", "r=15",
        "--workers", 0, "--device", "cpu", "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 4
    assert "cannot tell" in (said := capsys.readouterr().out)
    assert "about 539 samples are needed, these are 20" in said


def test_a_broken_promise_is_named_before_anything_is_run():
    proved = prove(f"{BROKEN}:ClassTokenMerged", only="prefix_tokens_stay and MAE")
    assert proved.tests == 1
    assert list(proved.failed) == ["prefix tokens stay first alone and of size one"]
    report = Report("mine", "tome", 0.05, ClassificationTask.shown, [], [], verdict="regressed", contract=proved)
    assert headline(report) == "regressed: mine breaks 1 of the promises that every reducer makes"
    assert "prefix tokens stay first alone" in "\n".join(reasons(report))
    assert "prefix tokens stay first alone" in markdown(report)
    assert 'failures="1"' in junit(report)


class Fragile(Reducer):
    """Breaks wherever it reduces, with a message that neither XML nor Markdown can hold as it is."""

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def after_attention(self, tokens, signals, amount):
        raise RuntimeError("\x1b[31mno\x1b[0m <b>place</b> for | or __this__\x00\udc80")


def test_a_method_that_breaks_while_its_cost_is_sought_regresses_and_its_message_is_legal_everywhere(sweep, tmp_path):
    asked = {"device": "cpu", "workers": 0, "speed": False, "out": str(tmp_path / "new")}
    report = check(f"{__file__}:Fragile", f"{sweep}:tome", asked, contract=False)
    assert report.verdict == "regressed"
    assert "NEW failed: " in headline(report)
    assert "RuntimeError: no <b>place</b>" in headline(report)
    assert r"no \<b>place\</b> for | or \_\_this\_\_" in markdown(report)
    xml = junit(report)
    assert "no <b>place</b> for | or __this__" in ElementTree.fromstring(xml.encode()).find("*/failure").get("message")


def test_a_target_out_of_reach_is_no_regression(written):
    rewrite(written / "run.json", cells=[*json.loads((written / "run.json").read_text())["cells"], "mine-flops--95"])
    write_cell(written, "mine", "flops=-95%", about={"resolved_rate": ""})
    reason = f"flops=-95.0% {UNREACHED} 'mine' on this model"
    (written / "cells" / "mine-flops--95" / "failed.json").write_text(json.dumps({"reason": reason}))
    assert check(f"{written}:mine", f"{written}:tome", {}).verdict == "cannot tell"


def test_a_narrow_terminal_breaks_no_word_and_says_what_it_has_no_room_for(written):
    headers, *lines = table(compare(f"{written}:tome", f"{written}:evit"))
    assert "Speed" not in headers  # nothing was timed
    for width, complete in ((200, True), (60, False)):
        shown, left_out = fit(fields_of(headers, lines, names=2), width, spare(SPARE))
        assert complete == (not left_out)
        assert {*(field.header for field in shown), *left_out} == set(headers)
        words = [max(len(word) for cell in (field.header, *field.cells) for word in cell.split()) for field in shown]
        assert all(field.least >= longest for field, longest in zip(shown, words, strict=True))


def test_a_methods_own_name_comes_before_that_of_its_variants(written):
    write_cell(written, "tome", "r=77", about={"options": {"k": 1}})
    assert len(load_side(f"{written}:tome").entries) == 4
    (variant,) = load_side(f"{written}:tome r=77").entries
    assert load_side(f"{written}:{variant.method}").entries == (variant,)


def test_a_file_and_its_class_name_a_method_of_a_run(written):
    write_cell(written, "my.py:Mine", "r=9")
    for name in ("my.py:Mine", "Mine", "Mine r=9"):
        (found,) = load_side(f"{written}:{name}").entries
        assert found.reducer == "my.py:Mine"
        assert check(f"{written}:{name}", f"{written}:tome", {}).verdict == "cannot tell"


def test_methods_that_one_side_alone_has_are_named():
    sides = [side(entry("a", 1.0), entry("b", 1.0)), side(entry("a", 1.0), entry("c", 1.0))]
    assert left_out(*sides) == [f"not compared, as side alone has them: {name}" for name in "bc"]


# --- what is compared with what


def test_two_methods_of_a_run_are_compared_rate_by_rate_with_mcnemar_holm_and_what_could_be_seen(
    written, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    report = compare(f"{written}:tome", f"{written}:evit")
    assert len(report.rows) == 12  # top-1, top-5 and calibration
    assert all(row.match.new.rate == row.match.base.rate for row in report.rows)
    worst = report.rows[-3]
    assert worst.contrast.metric.name == "top1"
    assert worst.contrast.difference > 0
    assert all(row.adjusted >= row.contrast.p for row in report.rows)
    assert cli("compare", f"{written}:tome", f"{written}:evit") == 0
    assert "±" in capsys.readouterr().out


def test_single_cells_are_compared_whatever_their_rates(written):
    report = compare(f"{written}:tome flops=-15%", f"{written}:evit flops=-50%")
    assert [row.contrast.metric.name for row in report.rows] == ["top1", "top5", "ece"]
    assert report.rows[0].match.base.reducer == "evit"


def test_a_cell_can_be_named_by_its_key_by_its_rate_or_by_what_that_came_to(written):
    wanted = load_side(f"{written}:tome flops=-50%").entries
    assert load_side(f"{written}#tome-flops--50").entries == wanted
    assert load_side(f"{written}:tome {wanted[0].resolved_rate}").entries == wanted


def side(*entries: Entry) -> Side:
    return Side("side", IDENTITY, {}, TaskReport(()), entries)


def matched(*new: Entry, base: float = 1.0) -> list:
    return same_cost(side(*new), side(entry("base", base)))


def test_cells_are_matched_by_cost_within_two_percent_else_by_the_next_cheaper_one():
    (near,) = matched(entry("new", 0.97), entry("new", 1.015), entry("new", 1.04))
    assert (near.new.gmacs, near.cheaper) == (1.015, False)
    (cheaper,) = matched(entry("new", 0.9), entry("new", 0.97), entry("new", 1.03))
    assert (cheaper.new.gmacs, cheaper.cheaper) == (0.97, True)
    (none,) = matched(entry("new", 1.03))
    assert none.new is None
    assert none.reason == "no cell at this cost: the nearest of NEW costs +3.0%"


def test_cells_that_failed_or_run_still_are_named_and_a_failure_of_new_alone_is_a_regression(written):
    rewrite(written / "run.json", cells=[*json.loads((written / "run.json").read_text())["cells"], "mine-r=1"])
    write_cell(written, "mine", "r=1", about={"resolved_rate": "r=1"})
    (written / "cells" / "mine-r-1" / "failed.json").write_text('{"reason": "NaN in batch 3"}')
    report = check(f"{written}:mine", f"{written}:tome", {})
    assert report.verdict == "regressed"
    assert "NaN in batch 3" in headline(report)
    for folder in (written / "cells").glob("tome-*"):
        (folder / "scores.json").unlink()
    report = check(f"{written}:evit", f"{written}:tome", {})
    assert report.verdict == "cannot tell"
    assert "BASE is running" in reasons(report)[0]
    report = compare(f"{written}:evit", f"{written}:tome")
    assert "tome flops=-15% is running" in report.rows[0].reason


def test_a_loss_at_less_cost_proves_nothing_and_as_good_at_less_cost_passes(written):
    small = check(f"{written}:evit flops=-50%", f"{written}:tome flops=-15%", {}, margin=1.0)
    assert small.verdict == "cannot tell"
    assert "costs less" in small.rows[0].reason
    assert small.rows[0].adjusted is None
    equal = check(f"{written}:evit flops=-50%", f"{written}:tome flops=-15%", {}, margin=20.0)
    assert equal.verdict == "pass"


# --- other tasks


def scored(out: Path, shown: TaskReport, make) -> Path:
    """A run of `shown`'s task whose cells hold what `make(cell's name, ids)` gives."""
    rewrite(out / "run.json", shown=shown.as_dict())
    ids = sample_ids(400)
    for folder in (out / "cells").iterdir():
        write_samples(folder / "samples.parquet", pa.Table.from_pylist(make(folder.name, ids)))
    return out


def test_captions_are_compared_in_every_metric_whose_outcomes_are_stored(written):
    words = len(METEOR)

    def make(name: str, ids: list[str]) -> list[dict]:
        draw = np.random.default_rng(1)
        said = 9 if name.startswith("evit") else 10
        rows = []
        for id in ids:
            hit = draw.integers(1, said, 4).tolist()
            counts = [10, 10, 10, 9, 8, 7, *hit]
            meteor = " ".join(map(str, [*METEOR[: words - 3], 1, *draw.integers(4, said, 2)]))
            rows.append({"id": id, "prediction": "a dog", "tokens": list(range(said)), "cider": float(hit[0]),
                         "rouge_l": hit[1] / 10, "meteor_stats": meteor,
                         **dict(zip(BLEU_COUNTS, counts, strict=True))})  # fmt: skip
        return rows

    scored(written, CaptioningTask.shown, make)
    report = compare(f"{written}:tome flops=-50%", f"{written}:evit flops=-50%")
    stored = [metric.name for metric in CaptioningTask.shown.metrics if metric.name != "spice"]
    assert [row.contrast.metric.name for row in report.rows] == stored
    assert report.remarks[-1] == "not compared, as no two cells have its outcomes: SPICE"
    bleu = next(row.contrast for row in report.rows if row.contrast.metric.name == "bleu_2")
    sums = pd.DataFrame(make("tome", sample_ids(400)))[list(BLEU_COUNTS)].sum().to_numpy()
    assert bleu.new == pytest.approx(corpus_bleu(sums)[1])
    length = report.rows[-1].contrast
    assert (length.metric.name, length.difference) == ("length", 1.0)


def test_compare_describes_and_ends_with_0_however_bad_it_is_and_with_4_where_there_is_nothing(
    written, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli("compare", f"{written}:evit flops=-50%", f"{written}:tome flops=-50%") == 0
    capsys.readouterr()
    for folder in (written / "cells").glob("tome-*"):
        (folder / "scores.json").unlink()
    assert cli("compare", f"{written}:evit flops=-50%", f"{written}:tome flops=-50%") == 4
    assert "is running" in capsys.readouterr().out
    said = " ".join((Path(__file__).parents[2] / "docs" / "your_model.md").read_text().split())
    assert "3 regressed (`check`), 4 cannot tell (`check`; `compare` where nothing could be compared)" in said


def test_masks_are_compared_by_areas_in_every_metric_and_the_scores_are_those_of_all_images(written):
    def make(name: str, ids: list[str]) -> list[dict]:
        draw = np.random.default_rng(1)
        lost = 40 if name.startswith("evit") else 20
        rows = []
        for id in ids:
            true = draw.integers(100, 500, 3)
            hit = true - np.minimum(true, draw.integers(0, lost, 3))
            rows.append({"id": id, "prediction": "", "classes": [0, 1, 4], "intersection": hit.tolist(),
                         "predicted": true.tolist(), "labelled": true.tolist()})  # fmt: skip
        return rows

    scored(written, SegmentationTask.shown, make)
    report = compare(f"{written}:tome flops=-50%", f"{written}:evit flops=-50%")
    assert [row.contrast.metric.name for row in report.rows] == ["miou", "aacc", "macc"]
    found = report.rows[0].contrast
    rows = pd.DataFrame(make("tome", sample_ids(400)))
    hit, all_ = (np.sum(list(rows[name]), axis=0) for name in ("intersection", "labelled"))
    assert found.new == pytest.approx(np.mean(hit / (2 * all_ - hit)))
    assert found.low > 0
    assert found.p < 0.001
    verdict = check(f"{written}:evit flops=-50%", f"{written}:tome flops=-50%", {})
    assert verdict.verdict == "regressed"
    assert "mIoU fell by" in headline(verdict)
