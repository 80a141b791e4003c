"""Runs that the previous version wrote are reported, compared and continued. data/schema-3.tar.xz holds two of them.

They were made by the version that wrote schema 3: scenes by `run --limit 12 --reducers tome,topk,dtem --rates r=8
--flops=-30% --speed-rounds 2 --batch-size 8`, scenes-seg by `run --task scenes-seg --limit 6 --reducers tome
--rates r=8 --flops=-97% --speed-rounds 2 --batch-size 4` (a rate that it cannot reach).
scenes.parquet is a baseline of the first.
"""

import shutil
import tarfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from suite import load
from suite.cli.app import main
from suite.store.folder import RUN, CellFolder, RunFolder
from suite.store.schema import OLDEST, SCHEMA
from suite.store.sealed import DamagedError, SealedFiles
from suite.store.upgrade import STEPS
from suite.sweep.plan import VERSIONS

DATA = Path(__file__).parent / "data"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A folder with the runs 'scenes' and 'scenes-seg' and the baseline 'scenes.parquet'; it is the current one."""
    with tarfile.open(DATA / "schema-3.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exit_code(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.mark.parametrize("name", ["scenes", "scenes-seg"])
def test_the_table_of_an_old_run_is_what_it_was(name, old, capsys):
    table = old / name / "report" / "table.csv"
    before = pd.read_csv(table, dtype=str, keep_default_na=False)
    table.unlink()
    assert exit_code("report", name) == 0
    after = pd.read_csv(table, dtype=str, keep_default_na=False)  # it has further columns since
    assert [name for name in after if name in before] == list(before)
    pd.testing.assert_frame_equal(after[list(before)], before)
    assert (table.parent / "index.html").is_file()
    assert "damaged" not in "".join(capsys.readouterr())


def test_the_frame_of_an_old_run_has_its_rows(old):
    frame = load("scenes").frame()
    assert sorted(frame.reducer + " " + frame.rate) == [
        "dtem flops=-30%", "dtem r=8", "none ", "tome flops=-30%", "tome r=8", "topk flops=-30%", "topk r=8"
    ]  # fmt: skip
    assert (frame.samples == 12).all()
    masks = load("scenes-seg").frame()
    assert set(masks.status) == {"done", "failed"}
    assert masks.whole_s.notna().sum() == 2


@pytest.mark.parametrize("other", ["scenes:tome r=8", "scenes.parquet:tome r=8"])
def test_an_old_run_is_compared_with_itself_and_with_an_old_baseline(other, old, capsys):
    assert exit_code("compare", "scenes:topk r=8", other) == 0
    printed = capsys.readouterr().out
    assert "topk r=8" in printed
    assert "n = 12" in printed


def test_an_old_run_goes_on_with_nothing_lost_or_shown_twice(old, capsys):
    made_by_libraries_of_today(old / "scenes")
    before = load("scenes").frame()
    kept = {path: path.read_bytes() for path in (old / "scenes" / "cells").rglob("*.*") if path.is_file()}
    request = ["--limit", 12, "--batch-size", 8, "--reducers", "tome,topk", "--rates", "r=8", "--no-speed"]
    assert exit_code("run", *request, "--workers", 0, "--out", "scenes") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "cells that are measured again, because code or weights have changed since: 3; what was stored" in said
    after = load("scenes").frame()
    assert after.status.eq("done").all()
    shown = ["reducer", "rate", "top1", "gmacs"]
    assert after[shown].to_numpy().tolist() == before[shown].to_numpy().tolist()
    assert len(set(after.index) & set(before.index)) == 4  # what was not asked for again is shown as it was
    assert {path: path.read_bytes() for path in kept} == kept
    assert exit_code("run", *request, "--workers", 0, "--out", "scenes") == 0
    assert "measured again" not in capsys.readouterr().err


def test_old_runs_are_merged_and_their_tables_stay_what_they_were(old):
    shutil.copytree("scenes", "copy")
    lost = sorted(RunFolder("copy").read_run()["cells"])[0]
    shutil.rmtree(Path("copy", "cells", lost))
    assert exit_code("merge", "copy", "scenes", "--out", "merged") == 0
    pd.testing.assert_frame_equal(load("merged").frame(), load("scenes").frame())


def made_by_libraries_of_today(run: Path) -> None:
    """Give a run the releases that are installed: with others it is another run, which is refused."""
    stored = RunFolder(run).files.read_json(RUN)
    stored["identity"] |= {name: version(name) for name in VERSIONS}
    RunFolder(run).files.write_json(RUN, stored)


def test_an_old_run_of_other_libraries_is_not_gone_on_with(old, capsys):
    stored = RunFolder(old / "scenes").files.read_json(RUN)
    stored["identity"]["torch"] = "2.0"
    RunFolder(old / "scenes").files.write_json(RUN, stored)
    assert exit_code("run", "--limit", 12, "--batch-size", 8, "--reducers", "tome", "--out", "scenes") == 2
    assert "holds a run with torch='2.0'" in capsys.readouterr().err


def test_there_is_a_step_from_every_version_that_is_read_to_the_next():
    assert list(STEPS) == list(range(OLDEST, SCHEMA))


def test_a_file_of_a_cell_says_its_version_and_one_that_says_another_is_damaged(tmp_path):
    cell = CellFolder(tmp_path / "key")
    cell.write("accuracy", {"batch_size": 8})
    assert cell.files.read_json("key/accuracy.json") == {"batch_size": 8, "schema": SCHEMA}
    assert cell.read("accuracy") == {"batch_size": 8}
    for schema in (OLDEST - 1, SCHEMA + 1, "4", None):
        cell.files.write_json("key/accuracy.json", {"batch_size": 8, "schema": schema})
        with pytest.raises(DamagedError, match="it has schema"):
            cell.read("accuracy")


@pytest.mark.parametrize("shown", [None, [], {"metrics": 3}, {"metrics": ["top1"]}])
def test_what_no_version_has_written_is_damaged(shown, tmp_path):
    SealedFiles(tmp_path).write_json(RUN, {"schema": OLDEST, "shown": shown})
    with pytest.raises(DamagedError, match=rf"none of schema {OLDEST}"):
        RunFolder(tmp_path).read_run()
