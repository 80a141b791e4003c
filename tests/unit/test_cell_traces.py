"""What a run stores and shows of the kernels of its cells' forwards."""

import json
from pathlib import Path

import pytest
from run_folder import rewrite, write_cell, write_json, write_run

from reports.frame import load_frame
from reports.groups import groups
from reports.page.launches import sentences_of, strongest
from reports.tables.results import console_table, write_tables
from reports.text.headings import notes
from reports.traces import explain, least_batch
from suite import run
from suite.measure.kernels import PRODUCT
from suite.measure.roofline import H100
from suite.store.folder import RunFolder
from suite.sweep.progress import Progress
from suite.sweep.tracing import BATCH
from tests.unit.page_runs import Reader, packed, read_page

QUIET = Progress(quiet=True)
READER = """
from suite.reducers import Reducer


class Reader(Reducer):
    rates = ("r",)

    def after_attention(self, tokens, signals, amount):
        if tokens.x.float().{what} > 1e9:
            raise ValueError("no such sum")
        return tokens.keep(signals.keys.new_ones(len(tokens.x), tokens.count - 1 - amount).cumsum(1).long())
"""


def kernels_of(out):
    """Reducer -> its stored kernels.json."""
    folder = RunFolder(out)
    cells = [folder.cell(key) for key in folder.read_run()["cells"]]
    return {cell.read("cell")["reducer"]: cell.read("kernels") for cell in cells}


def headers(table):
    return {column.header.plain for column in table.shown.columns}


def test_every_cell_stores_what_a_gpu_would_launch_whatever_it_ran_on(tiny_run):
    stored = kernels_of(run(tiny_run, progress=QUIET, report=False).out)
    assert {(of["batch_size"], of["precision"], of["on"], of["reason"]) for of in stored.values()} == {
        (BATCH, "bf16", "shapes", "")
    }
    none, tome = stored["none"], stored["tome"]
    assert none["blocks"] == 0
    assert none["traced"]["launches"] == none["unreduced"]["launches"] == tome["unreduced"]["launches"]
    assert tome["blocks"] > 0
    assert tome["traced"]["launches"] > none["traced"]["launches"]
    assert sum(launches * times for _, launches, *_, times in tome["kernels"]) == tome["traced"]["launches"]


def test_what_was_not_asked_for_is_not_traced_and_added_when_it_is(tiny_run):
    out = run(tiny_run, kernels=False, progress=QUIET).out
    assert load_frame(out).launches.isna().all()
    run(tiny_run, progress=QUIET)
    assert load_frame(out).launches.notna().all()


def test_a_run_of_before_there_were_traces_goes_on_and_gets_them(tiny_run):
    out = run(tiny_run, progress=QUIET).out
    report = (out / "report" / "table.csv").read_bytes()
    for path in out.glob("cells/*/kernels.json"):
        path.unlink()
    frame = load_frame(out)
    assert frame.launches.isna().all()
    assert frame.status.eq("done").all()
    assert "Launches" not in headers(console_table(frame, 400))
    run(tiny_run, progress=QUIET)
    assert (out / "report" / "table.csv").read_bytes() == report
    assert load_frame(out).launches.notna().all()


@pytest.mark.parametrize("what", ["sum()", "sum().item()", "sum().reshape(1).tolist()[0]"])
def test_what_reads_numbers_is_traced_on_images_of_the_run(tiny_run, tmp_path, what):
    (tmp_path / "reader.py").write_text(READER.replace("{what}", what))
    asked = {**tiny_run, "reducers": [f"{tmp_path}/reader.py:Reader"], "rates": ["r=1@1"]}
    out = run(asked, progress=QUIET, report=False).out
    (stored,) = (of for name, of in kernels_of(out).items() if name != "none")
    assert (stored["on"], stored["batch_size"]) == ("images", 12)
    assert stored["traced"]["host_reads"] == 1
    (said,) = (note for group in groups(load_frame(out)) for note in notes(group) if "12 of the run's images" in note)
    assert "Reader" in said


def test_a_cell_that_cannot_be_traced_says_why_and_is_measured_all_the_same(tiny_run, monkeypatch):
    monkeypatch.setattr("suite.reducers.tome.ToMe.after_attention", refuses_a_gpu)
    frame = run({**tiny_run, "reducers": ["tome"]}, progress=QUIET).frame().set_index("reducer")
    assert frame.status["tome"] == "done"
    assert frame.launches.isna().to_dict() == {"none": False, "tome": True}
    (group,) = groups(load_frame(tiny_run["out"]))
    assert "tome r=1 has no trace: ValueError: not on a GPU." in notes(group)


def refuses_a_gpu(self, tokens, signals, amount):
    if tokens.x.is_cuda:
        raise ValueError("not on a GPU")
    return tokens.keep(signals.keys.new_ones(len(tokens.x), tokens.count - 1 - amount).cumsum(1).long())


def stored_trace(launches, moved, macs=0, blocks=12, times=1, **changes):
    """A kernels.json of `times` equal kernels; the unreduced model launches a tenth of them and moves as much."""
    sums = {"launches": launches * times, "moved": moved * times, "macs": macs * times, "host_reads": 0, "peak": 2**20}
    kind = PRODUCT if macs else ""
    return {
        "batch_size": 256, "precision": "bf16", "on": "shapes", "reason": "", "blocks": blocks, "traced": sums,
        "unreduced": sums | {"launches": sums["launches"] // 10},
        "kernels": [["mm", launches, moved, macs, kind, False, times]],
    } | changes  # fmt: skip


def test_launches_bind_below_the_batch_at_which_the_gpu_is_busy_for_as_long_as_they_take():
    busy = round(H100.host_s * H100.rates[PRODUCT])  # products that take as long as one launch
    assert [least_batch(stored_trace(1, 1, macs=times * busy), H100) for times in (1, 2, 8)] == [256, 128, 32]
    assert least_batch(stored_trace(1, 1), H100) is None  # not even the largest of BATCHES


def test_the_sentence_says_what_the_trace_says():
    slow = stored_trace(1, 1000, macs=2 * round(H100.host_s * H100.rates[PRODUCT]) + 2, times=1200)
    assert explain(slow, 12, H100) == (
        "90 launches more in each of 12 reducing blocks, where the unreduced model has 10 launches a block: "
        "on an H100, bound by launches below batch ~128 (predicted)."
    )
    slow["unreduced"]["macs"] *= 2
    assert ", and 2.00 × the bytes that its FLOPs let expect:" in explain(slow, 12, H100)
    slow["traced"]["host_reads"] = 3
    assert explain(slow, 12, H100).endswith("; the GPU waits for the CPU 3 × a forward.")
    assert explain(slow | {"blocks": 0}, 12, H100).startswith("10 launches a block: on an H100")
    assert "bound" not in explain(slow | {"precision": "fp32"}, 12, H100)  # of which the H100's figures are not
    assert explain(slow | {"traced": None}, 12, H100) == ""


@pytest.fixture
def traced(tmp_path) -> Path:
    out = write_run(tmp_path / "run", {"tome": 4.0, "evit": 7.0})
    write_cell(out, "ats", "r=4", cut=0.3)
    for path in out.glob("cells/*/cell.json"):
        reducer, moved = json.loads(path.read_text())["reducer"], 256 * 10**6
        trace = stored_trace(
            10, moved, macs=10**12, times=120 if reducer == "tome" else 24, blocks=12 * (reducer != "none")
        )
        write_json(path.with_name("kernels.json"), trace)
    rewrite(out / "cells" / "ats-r-4" / "kernels.json", traced=None, reason="it cannot run", kernels=[])
    return out


def test_a_row_has_bytes_for_an_image_and_launches_for_a_reducing_block(traced):
    frame = load_frame(traced).set_index("reducer")
    assert frame.launches["tome"].tolist() == [1200] * 4
    assert frame.extra_launches["tome"].tolist() == [90] * 4
    assert frame.extra_launches.isna()["none"]
    assert frame.moved_mb["tome"].tolist() == [120] * 4
    assert frame.host_reads["evit"].tolist() == [0] * 4
    assert frame.traced_peak_mib["none"] == 1
    assert frame[["launches", "extra_launches", "moved_mb", "host_reads", "traced_peak_mib"]].loc["ats"].isna().all()


def test_tables_have_the_traces_and_say_at_what_they_were_made(traced, tmp_path):
    csv, markdown, tex = (path.read_text() for path in write_tables(load_frame(traced), tmp_path))
    assert "launches,extra_launches,moved_mb,host_reads,traced_peak_mib" in csv
    assert "| Launches | MB/image | Host reads |" in markdown
    assert "are traced, not measured: of one eager forward on 256 images in bf16 on a GPU" in markdown
    assert "ats r=4 has no trace: it cannot run." in markdown
    assert "Launches &" not in tex
    narrow = console_table(load_frame(traced), 100)
    assert "Launches" not in headers(narrow)
    assert "No room for: Host reads, MB/image, Launches" in narrow.shown.caption.plain


def test_the_page_explains_every_method_once_and_every_cell_on_its_card(traced):
    html, reader = read_page(traced)
    cells = packed(html)["data"]["cells"]
    sentence = next(cell["binds"] for cell in cells if cell["name"] == "tome flops=-28%")
    assert sentence.startswith("90 launches more in each of 12 reducing blocks, where the unreduced model has 10")
    assert next(cell["binds"] for cell in cells if cell["name"].startswith("ats")) == ""
    assert reader.text.count(sentence) == 1
    (part,) = groups(load_frame(traced))
    listed = [cell for cell, _ in strongest(part, sentences_of(part))]
    assert listed == ["none", "evit flops=-50%", "tome flops=-50%"]
    assert all(cell in Reader(html).text for cell in listed)


def test_a_damaged_trace_is_named_and_explains_nothing(traced):
    path = traced / "cells" / "tome-flops--50" / "kernels.json"
    path.write_text("{")
    frame = load_frame(traced)
    assert f"{path} is damaged" in frame.reason["tome-flops--50"]
    (part,) = groups(frame)
    assert sentences_of(part)["tome-flops--50"] == ""
