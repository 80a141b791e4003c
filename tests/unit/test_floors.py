"""Floors that are runs of their own stand in the table and the figure of the model that they are floors of."""

import io
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from reports.frame import load_frame
from reports.groups import groups
from reports.marks.floor_rows import hosted
from reports.pareto.layers import layers_of
from reports.tables.curves import curve_table
from reports.tables.results import console_table
from suite import RequestError, run
from suite.sweep.progress import Progress
from suite.sweep.study import make_study

ASKED = {"task": "scenes", "limit": 24, "reducers": ["tome", "resize"], "flops": ["-50%"], "speed": False, "workers": 0}
DECODED = "resize (mode=decode)"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("floors") / "study"
    return run(ASKED, floor_sides="80,72", floor_models="scenes_eva", out=str(out), progress=Progress(quiet=True))


def lines_of(study):
    return [line for line in (study.out / "report" / "table.md").read_text().splitlines() if line.startswith("|")]


def test_a_smaller_image_that_is_decoded_so_is_a_run_of_the_unreduced_model():
    members = make_study({**ASKED, "floor_sides": 80}).members
    names = [(one.name, one.spec.image_size, one.spec.reducers) for one in members]
    assert names == [("scenes_vit", None, ("tome", "resize")), ("scenes_vit-80px", 80, ("none",))]


def test_of_several_models_and_named_runs_each_has_its_own_floors():
    asked = {**ASKED, "models": ["scenes_vit", "scenes_eva"], "floor_sides": "80"}
    assert [one.name for one in make_study(asked).members] == [
        "scenes_vit", "scenes_vit-80px", "scenes_eva", "scenes_eva-80px",
    ]  # fmt: skip
    runs = {"runs": [{**ASKED, "out": "mine"}], "floor_sides": [80]}
    assert [one.name for one in make_study(runs).members] == ["mine", "mine-80px"]


@pytest.mark.parametrize("sides", ["80,", "eighty", [0], ["80x"], 80.5])
def test_sides_that_are_none_are_refused(sides):
    with pytest.raises(RequestError, match="is no list of sides in pixels; write for example 176,160"):
        make_study({**ASKED, "floor_sides": sides})


def test_the_one_table_has_both_modes_of_resize_and_the_floor_model(study):
    lines = lines_of(study)
    assert sum("---" in line for line in lines) == 1  # one table
    decoded = [line for line in lines if DECODED in line]
    assert ["side=80" in decoded[0], "side=72" in decoded[1], len(decoded)] == [True, True, 2]
    assert any("scenes_eva unreduced" in line for line in lines)
    assert any(line.startswith("| resize |") for line in lines)
    order = [line.split("|")[1].strip() for line in lines[2:]]
    assert order == ["none", "resize", DECODED, DECODED, "scenes_eva unreduced", "tome"]


def test_a_floors_flops_are_seen_against_the_host_and_what_was_measured_against_its_own_model_is_not(study):
    (host,) = hosted(list(groups(load_frame(study.out))))
    frame = host.frame.set_index("reducer")
    full = frame.gmacs["none"]
    assert frame.reduction["scenes_eva unreduced"] == pytest.approx(frame.gmacs["scenes_eva unreduced"] / full - 1)
    assert frame.agreement[["scenes_eva unreduced"]].isna().all()
    resized = host.frame[host.frame.reducer == "resize"].set_index("rate").gmacs
    assert resized["flops=-50%"] == resized["side=80"]  # the same side: shrinking has no multiply-accumulates


def test_a_floor_model_stands_in_the_tables_of_all_its_hosts_and_on_a_page_once(study):
    host, *_, floor = groups(load_frame(study.out))
    parts = [host, replace(host, model="twin"), floor]
    assert [(part.model, "scenes_eva unreduced" in set(part.frame.reducer)) for part in hosted(parts)] == [
        ("scenes_vit", True), ("twin", True),
    ]  # fmt: skip
    assert ["scenes_eva unreduced" in set(part.frame.reducer) for part in hosted(parts, once=True)] == [True, False]


def test_models_that_are_all_unreduced_have_tables_of_their_own(study):
    *_, one, other = groups(load_frame(study.out))
    assert all(found is part for found, part in zip(hosted([one, other]), [one, other], strict=True))


def test_the_figure_the_page_and_the_terminal_have_them_too(study):
    report, console = study.out / "report", Console(record=True, width=200, file=io.StringIO())
    console.print(console_table(load_frame(study.out), 200))
    terminal = console.export_text()
    for name in (DECODED, "scenes_eva unreduced"):
        assert name in (report / "pareto_flops.svg").read_text()
        assert name in (report / "index.html").read_text()
        assert name in terminal
    assert "A:" not in (report / "pareto_flops.svg").read_text()  # one model's figure


def test_the_frame_and_the_csv_stay_one_row_a_cell_of_its_own_run(study):
    frame, csv = study.frame(), pd.read_csv(study.out / "report" / "table.csv")
    assert sorted(csv.key) == sorted(frame.index)
    assert set(frame.reducer) == {"none", "tome", "resize"}


def test_curves_are_compared_with_those_of_floors(study):
    table = curve_table(layers_of([study.out]))
    assert [line[0] for line in table.lines if "decode" in line[0]] == [DECODED]
