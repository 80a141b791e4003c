"""What was timed under several runtimes, as tables show it: a gain that another runtime takes back is seen."""

import pandas as pd
import pytest
from run_folder import rewrite, write_cell, write_json, write_run

from reports.frame import load_frame
from reports.groups import groups
from reports.page.curves import axes_of
from reports.pareto.layers import layers_of, layers_under
from reports.tables.results import console_table, write_tables
from reports.tables.speeds import speeds_of, speeds_table, write_speeds
from reports.write import write_report
from suite.errors import RequestError
from suite.store.schema import SCHEMA


def timed(runtime, im_s, speedup, against, **fields):
    spread = {f"{name}{end}": value * by for name, value in (("im_s", im_s), ("speedup", speedup),
              ("speedup_fastest", against)) for end, by in (("", 1), ("_low", 0.99), ("_high", 1.01))}  # fmt: skip
    return {
        "runtime": runtime, "device": "Test GPU", "batch_size": 32, "precision": "fp32", "fastest_runtime": "compiled",
        "attention": "flash x 12", "aa_low": 0.999, "aa_high": 1.001, "noisy": False, **spread, **fields,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Reducing gains 1.3 over eager, and the unreduced model gains 1.6 by being compiled."""
    out = write_run(tmp_path / "run", {})
    write_cell(out, "tome", "r=8", cut=0.3)
    write_cell(out, "mctf", "r=8", cut=0.3)
    rewrite(out / "run.json", spec={"runtime": ["eager", "compiled"]})
    latencies = {"latency_p50_ms": 71.5, "latency_p90_ms": 80.25, "latency_p99_ms": None, "energy_j": 0.0512}
    cells = {
        "none-full": (timed("eager", 100, 1, 0.625), timed("compiled", 160, 1, 1, compile_s=12.5)),
        "tome-r-8": (timed("eager", 130, 1.3, 0.8125, **latencies), timed("compiled", 240, 1.5, 1.5, compile_s=14)),
        "mctf-r-8": (
            timed("eager", 120, 1.2, 0.75, attention="explicit x 12", reads_map=True),
            {"runtime": "compiled", "note": "torch.compile failed: no compiler", **dict.fromkeys(
                f"{name}{end}" for name in ("im_s", "speedup") for end in ("", "_low", "_high"))},
        ),
    }  # fmt: skip
    for key, runtimes in cells.items():
        of = {one["runtime"]: one for one in runtimes}
        write_json(out / "cells" / key / "speed.json", {"runtimes": of, "schema": SCHEMA})
    return out


def test_speeds_have_a_row_for_every_cell_and_runtime(run):
    speeds = speeds_of(load_frame(run))
    assert len(speeds) == 6
    row = speeds.loc["tome-r-8", "eager"]
    assert (row.im_s, row.speedup, row.speedup_fastest, row.fastest_runtime) == (130, 1.3, 0.8125, "compiled")
    assert (row.latency_p50_ms, row.energy_j) == (71.5, 0.0512)
    assert pd.isna(row.latency_p99_ms)
    failed = speeds.loc["mctf-r-8", "compiled"]
    assert pd.isna(failed.im_s)
    assert failed.speed_note == "torch.compile failed: no compiler"


def test_a_gain_over_eager_that_compiling_alone_exceeds_is_seen_in_the_table_of_the_run(run):
    frame = load_frame(run)
    write_tables(frame, run / "report")
    header, row = (
        [cell.strip() for cell in line.split("|")]
        for line in (run / "report" / "table.md").read_text().splitlines()
        if line.startswith(("| Reducer", "| tome"))
    )
    shown = dict(zip(header, row, strict=True))
    assert shown["Speed-up"] == "1.30 [1.29, 1.31]"
    assert shown["Against the fastest"] == "0.81 [0.80, 0.82]"
    text = " ".join((run / "report" / "table.md").read_text().split())
    assert "Speed-up is over the unreduced model eager as well; it is faster compiled" in text
    assert "flash x 12: none, tome; explicit x 12 (reads the map): mctf." in text


def test_a_run_under_its_fastest_runtime_needs_no_second_column(run):
    rewrite(run / "run.json", spec={"runtime": ["compiled", "eager"]})
    write_tables(load_frame(run), run / "report")
    text = (run / "report" / "table.md").read_text()
    assert "Against the fastest" not in text
    assert "| 1.50 [" in text


def test_runtimes_have_a_table_of_their_own_in_files_and_in_a_terminal(run, capsys):
    frame = load_frame(run)
    written = write_report(run)[0]
    assert {"speed.csv", "speed.md"} <= {file.name for file in written}
    back = pd.read_csv(run / "report" / "speed.csv", keep_default_na=False)
    assert back.columns[:2].tolist() == ["key", "runtime"]
    assert back[back.key == "tome-r-8"].latency_p99_ms.tolist() == ["n/a", "n/a"]
    text = (run / "report" / "speed.md").read_text()
    assert (
        "| tome | r=8 → r=9 | eager | 130 ± 1 | 1.30 [1.29, 1.31] | 0.81 [0.80, 0.82] | 71.5 | 80.2 | 0.0512 | n/a |"
        in text
    )
    assert "torch.compile failed: no compiler" in text
    for width in (60, 200):
        table = speeds_table(frame, width)
        headers = [str(column.header) for column in table.shown.columns]
        assert width == 60 or headers[:6] == [
            "Reducer", "Rate", "Runtime", "im/s", "Speed-up", "Against the fastest"
        ]  # fmt: skip
        assert "below 1, not to reduce is faster" in str(table.shown.caption)
    assert console_table(frame) is not None


def test_one_runtime_without_single_images_has_no_table_of_its_own_in_a_terminal_and_nothing_timed_has_no_file(
    tmp_path,
):
    out = write_run(tmp_path / "run", {"tome": 4.0})
    frame = load_frame(out)
    assert speeds_table(frame) is None
    assert len(write_speeds(frame, out)) == 2
    for path in out.glob("cells/*/speed.json"):
        path.unlink()
    assert write_speeds(load_frame(out), out) == []
    assert not (out / "speed.csv").exists()


def test_methods_and_runtimes_are_crossed_and_a_change_of_places_beyond_the_noise_is_told(run):
    of = {one["runtime"]: one for one in (timed("eager", 120, 1.2, 0.75), timed("compiled", 260, 1.7, 1.7))}
    write_json(run / "cells" / "mctf-r-8" / "speed.json", {"runtimes": of, "schema": SCHEMA})
    files = {path.name for path in write_report(run)[0]}
    assert {"runtimes.png", "runtimes.svg", "runtimes.pdf"} <= files
    text = (run / "report" / "speed.md").read_text()
    assert "| Speed-up · im/s | eager | compiled |" in text
    assert "| none | 1.00 · 100 | 1.00 · 160 |" in text
    assert "| tome r=8 → r=9 | 1.30 · 130 | 1.50 · 240 |" in text
    assert "- tome r=8 → r=9 is faster than mctf r=8 → r=9 in eager and slower in compiled." in text


def test_what_the_noise_leaves_open_changes_no_places_and_what_has_no_speed_is_no_data(run):
    write_report(run)
    text = (run / "report" / "speed.md").read_text()
    assert "No two methods change places" in text
    assert "| mctf r=8 → r=9 | 1.20 · 120 | n/a |" in text


def test_a_single_runtime_has_no_grid(run):
    for cell in (run / "cells").iterdir():
        of = {"eager": timed("eager", 100, 1, 1)}
        write_json(cell / "speed.json", {"runtimes": of, "schema": SCHEMA})
    assert not {path.name for path in write_report(run)[0] if path.name.startswith("runtimes")}
    assert "Speed-up · im/s" not in (run / "report" / "speed.md").read_text()


def test_every_runtime_is_an_axis_of_the_page_and_has_a_plot_of_its_own(run):
    files = {file.name for file in write_report(run)[0]}
    assert {"pareto_speed.png", "pareto_speed-compiled.png"} <= files
    (part,) = groups(load_frame(run))
    axes = {axis["name"]: axis for axis in axes_of(part)}
    assert axes["im_s"]["at"] == {"none-full": 100, "tome-r-8": 130, "mctf-r-8": 120}
    assert axes["im_s compiled"]["at"] == {"none-full": 160, "tome-r-8": 240}  # mctf did not compile
    assert axes["im_s compiled"]["label"] == "Images per second, compiled"


def test_curves_are_drawn_with_the_times_of_a_runtime_that_there_is(run):
    layers = layers_of([run])
    assert layers_under(layers, "eager")[0].group.frame.equals(layers[0].group.frame)
    compiled = layers_under(layers, "compiled")[0].group
    assert compiled.seen("runtime") == ["compiled"]
    assert compiled.frame.loc["tome-r-8", ["im_s", "speedup"]].tolist() == [240, 1.5]
    assert compiled.frame.gmacs.equals(layers[0].group.frame.gmacs)
    with pytest.raises(RequestError, match="runtime of these runs 'graphs'"):
        layers_under(layers, "graphs")
