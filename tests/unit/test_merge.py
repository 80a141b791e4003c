"""Runs of several machines become one: the same cells once, what completes each other joined, all else a conflict."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from reports.frame import load_frame
from reports.groups import groups
from reports.tables.results import write_tables
from reports.tables.speeds import speeds_of, write_speeds
from reports.text.headings import notes
from suite.api import run
from suite.cli.app import main
from suite.errors import RequestError
from suite.store.folder import RUN, RunFolder
from suite.store.merging.folders import merge_folders
from suite.store.sealed import DamagedError
from suite.sweep.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture
def other_photos(photos, tmp_path) -> Path:
    return Path(shutil.copytree(photos, tmp_path / "elsewhere"))


@pytest.fixture
def parts(tiny_run, other_photos, tmp_path) -> list[Path]:
    """The unreduced model and tome, and the unreduced model and evit, on copies of the same data."""
    spec = tiny_run | {"out": str(tmp_path / "a"), "reducers": ["tome"]}
    run(spec, progress=QUIET, report=False)
    run(spec | {"out": str(tmp_path / "b"), "reducers": ["evit"], "data": str(other_photos)}, progress=QUIET)
    return [tmp_path / "a", tmp_path / "b"]


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keep_rows(folder: Path, rows: slice) -> None:
    """Leave some rows of every cell, as if the run had been stopped."""
    store = RunFolder(folder)
    for cell in map(store.cell, store.read_run()["cells"]):
        table = cell.files.read_rows(cell.shards.whole)
        cell.files.write_rows(cell.shards.whole, table.take(list(range(len(table)))[rows]))
        cell.remove_scores()


def cell_of(folder: Path, reducer: str):
    store = RunFolder(folder)
    return next(cell for cell in map(store.cell, store.read_run()["cells"]) if cell.read("cell")["reducer"] == reducer)


def change_outcome(folder: Path, reducer: str, row: int) -> str:
    """Another prediction for a sample, whose id is returned."""
    cell = cell_of(folder, reducer)
    rows = cell.files.read_rows(cell.shards.whole).to_pylist()
    rows[row]["prediction"] += 1
    schema = cell.files.read_rows(cell.shards.whole).schema
    cell.shards.replace([], rows, schema)
    return rows[row]["id"]


def change_identity(folder: Path, **values: object) -> None:
    store = RunFolder(folder)
    stored = store.read_run()
    store.files.write_json(RUN, stored | {"identity": stored["identity"] | values})


def test_runs_of_two_machines_are_the_run_that_one_would_have_made(parts, tiny_run, tmp_path):
    before = [contents_of(part) for part in parts]
    (merged,) = merge_folders(parts, tmp_path / "c").values()
    assert merged.cells == ["none", "tome r=1", "evit r=1"]
    assert not merged.joined
    run(tiny_run, progress=QUIET)
    both, one = load_frame(tmp_path / "c"), load_frame(tiny_run["out"])
    pd.testing.assert_frame_equal(both, one)
    write_tables(both, tmp_path / "tables")
    assert (tmp_path / "tables" / "table.csv").read_bytes() == Path(tiny_run["out"], "report/table.csv").read_bytes()
    assert [contents_of(part) for part in parts] == before


def test_the_first_runs_command_continues_a_merged_run_and_runs_nothing_again(parts, tiny_run, tmp_path):
    merge_folders(parts, tmp_path / "c")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").glob("cells/*/samples.parquet")}
    scores = {path: path.read_bytes() for path in (tmp_path / "c").glob("cells/*/scores.json")}
    results = run(tiny_run | {"out": str(tmp_path / "c")}, progress=QUIET, report=False)
    assert len(before) == len(scores) == len(results.cells) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c").glob("cells/*/samples.parquet")} == before
    assert {path: path.read_bytes() for path in scores} == scores


def test_what_two_stopped_runs_have_of_a_cell_is_joined_and_scored_when_the_run_is_continued(parts, tiny_run, tmp_path):
    whole = shutil.copytree(parts[0], tmp_path / "whole")
    shutil.rmtree(parts[1])
    shutil.copytree(parts[0], parts[1])
    keep_rows(parts[0], slice(0, 7))
    keep_rows(parts[1], slice(5, None))
    (merged,) = merge_folders(parts, tmp_path / "c").values()
    assert merged.joined == merged.unscored == ["none", "tome r=1"]
    frame = load_frame(tmp_path / "c")
    assert set(frame.status) == {"running"}
    assert set(frame.samples) == {12}
    run(tiny_run | {"out": str(tmp_path / "c"), "reducers": ["tome"]}, progress=QUIET, report=False)
    pd.testing.assert_frame_equal(load_frame(tmp_path / "c"), load_frame(whole))


def test_rows_that_are_in_logs_still_are_merged(parts, tmp_path):
    store = RunFolder(parts[0])
    cell = cell_of(parts[0], "tome")
    batch = cell.files.read_rows(cell.shards.whole).combine_chunks().to_batches()[0]
    log = store.log()
    log.append(cell.shards.stream, 0, batch)
    cell.files.remove(cell.shards.whole)
    cell.remove_scores()
    merge_folders(parts, tmp_path / "c")
    log.close()
    assert dict(load_frame(tmp_path / "c").set_index("reducer").samples) == {"none": 12, "tome": 12, "evit": 12}


def test_another_outcome_of_a_sample_is_refused_by_its_name_unless_a_run_is_preferred(parts, tmp_path):
    sample = change_outcome(parts[1], "none", 4)
    change_outcome(parts[1], "none", 9)
    with pytest.raises(RequestError, match=f"none: sample '{sample}' has another outcome in .*a and .*b; .*--prefer"):
        merge_folders(parts, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    for number, part in enumerate(parts):
        merge_folders(parts, tmp_path / f"c{number}", preferred=part)
        taken, own = (cell_of(of, "none") for of in (tmp_path / f"c{number}", part))
        assert taken.shards.outcomes().equals(own.shards.outcomes())
    with pytest.raises(RequestError, match="none of them"):
        merge_folders(parts, tmp_path / "d", preferred=tmp_path)


def test_another_count_of_flops_is_a_conflict(parts, tmp_path):
    cell = cell_of(parts[1], "none")
    cell.write("flops", cell.read("flops") | {"total": 1.0})
    with pytest.raises(RequestError, match=r"none: FLOPs are .* and 1 in"):
        merge_folders(parts, tmp_path / "c")


def test_stopped_cells_of_other_code_do_not_complete_each_other(parts, tmp_path):
    """The same slot under another key."""
    store = RunFolder(parts[1])
    stored, cell = store.read_run(), cell_of(parts[1], "none")
    key, other = cell.path.name, "0" * 16
    keep_rows(parts[1], slice(0, 3))
    rows = cell.files.read_rows(cell.shards.whole)
    cell.path.rename(cell.path.with_name(other))
    store.cell(other).files.write_rows(store.cell(other).shards.whole, rows)
    for path in store.cell(other).path.glob("*.json"):
        path.unlink()
    slots = {other if k == key else k: slot for k, slot in stored["slots"].items()}
    store.files.write_json(RUN, stored | {"cells": list(slots), "slots": slots})
    with pytest.raises(RequestError, match="not all outcomes are there to be compared"):
        merge_folders(parts, tmp_path / "c")


@pytest.mark.parametrize("change", [{"limit": 6}, {"batch_size": 4}, {"image_size": 32}])
def test_runs_of_other_samples_or_circumstances_are_two_runs(parts, tiny_run, change, tmp_path):
    run(tiny_run | {"reducers": ["evit"]} | change, progress=QUIET, report=False)
    (name,) = change
    with pytest.raises(RequestError, match=f"{name if name != 'limit' else 'samples'} is .*; these are two runs"):
        merge_folders([parts[0], Path(tiny_run["out"])], tmp_path / "c")


def test_a_file_that_is_another_one_on_the_other_machine_is_named(parts, tmp_path):
    store = RunFolder(parts[1])
    rows = store.files.read_rows(store.contents.whole).to_pylist()
    rows[3]["digest"] = "0" * 32
    store.contents.replace([], rows, store.files.read_rows(store.contents.whole).schema)
    with pytest.raises(RequestError, match=f"the file of sample '{rows[3]['id']}' is not the same"):
        merge_folders(parts, tmp_path / "c")


def test_another_release_of_torch_is_a_conflict_that_can_be_allowed_and_is_said_in_every_table(parts, tmp_path):
    change_identity(parts[1], torch="1.0")
    with pytest.raises(
        RequestError, match=r"torch is .* in .*a and '1.0' in .*b; allow it with --allow-different torch"
    ):
        merge_folders(parts, tmp_path / "c")
    merge_folders(parts, tmp_path / "c", allowed=["torch"])
    (group,) = groups(load_frame(tmp_path / "c"))
    assert any("Made with torch 1.0 (evit r=1)" in note for note in notes(group))
    merge_folders([tmp_path / "c", parts[0]], tmp_path / "d")  # of a merged run, too
    (group,) = groups(load_frame(tmp_path / "d"))
    assert any("Made with torch 1.0 (evit r=1)" in note for note in notes(group))


def test_a_damaged_file_is_named_and_nothing_is_written(parts, tmp_path):
    path = cell_of(parts[1], "evit").path / "scores.json"
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    with pytest.raises(DamagedError, match=r"scores\.json"):
        merge_folders(parts, tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "c"))) == []


def test_speeds_on_different_devices_stand_in_no_column_together(tiny_run, parts, tmp_path):
    for part, reducer in zip(parts, ("tome", "evit"), strict=True):
        spec = tiny_run | {"out": str(part), "reducers": [reducer], "speed": True, "speed_rounds": 2}
        run(spec | {"data": RunFolder(part).read_run()["identity"]["data"]}, progress=QUIET, report=False)
    store = RunFolder(parts[1])
    for cell in map(store.cell, store.read_run()["cells"]):
        timed = cell.read("speed")
        timed["runtimes"]["eager"] |= {"device": "Another GPU", "im_s": 12345.0}
        cell.write("speed", timed)
    own = load_frame(parts[0]).set_index("reducer").im_s
    (merged,) = merge_folders(parts, tmp_path / "c").values()
    assert merged.apart == ["Another GPU"]
    frame = load_frame(tmp_path / "c")
    (group,) = groups(frame)
    assert group.seen("device") == [merged.device]
    shown = frame.set_index("reducer").im_s
    assert shown[["none", "tome"]].equals(own)
    assert pd.isna(shown["evit"])
    speeds = speeds_of(frame)
    assert dict(zip(speeds.reducer + " on " + speeds.device, speeds.im_s, strict=True)) == {
        f"none on {merged.device}": own["none"], "none on Another GPU": 12345.0,
        f"tome on {merged.device}": own["tome"], "evit on Another GPU": 12345.0,
    }  # fmt: skip
    _, markdown = write_speeds(frame, tmp_path)
    assert "| Another GPU |" in markdown.read_text()
    assert "Also timed on Another GPU, which stands apart in speed.md." in notes(group)
    (again,) = merge_folders([tmp_path / "c", parts[1]], tmp_path / "d").values()
    assert again.apart == merged.apart
    pd.testing.assert_frame_equal(speeds_of(load_frame(tmp_path / "d")), speeds)


@pytest.mark.parametrize("flags", [["--allow-different", "weights"], ["--prefer", "nothing"]])
def test_what_cannot_be_merged_is_one_line_and_no_folder(parts, flags, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["merge", *map(str, parts), "--out", str(tmp_path / "c"), *flags])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert flags[1] in line
    assert not (tmp_path / "c").exists()


def test_the_verb_says_what_became_of_the_runs_and_writes_to_no_folder_that_is_in_use(parts, tmp_path, capsys):
    arguments = ["merge", *map(str, parts), "--out", str(tmp_path / "c")]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    assert f"{tmp_path / 'c'}: 3 cells" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "is there already and not empty" in capsys.readouterr().err


def test_studies_are_merged_run_by_run(tiny_run, other_photos, tmp_path):
    spec = {name: value for name, value in tiny_run.items() if name not in ("model", "reducers")}
    asked = {
        "a": {"models": ["test_vit", "test_vit2"], "reducers": ["tome"]},
        "b": {"models": ["test_vit2", "test_vit3"], "reducers": ["tofu"], "data": str(other_photos)},
    }
    for name, of in asked.items():
        run({**spec, **of, "out": str(tmp_path / name)}, progress=QUIET, report=False)
    merged = merge_folders([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert {out.name: made.cells for out, made in merged.items()} == {
        "test_vit": ["none", "tome r=1"],
        "test_vit2": ["none", "tome r=1", "tofu r=1"],
        "test_vit3": ["none", "tofu r=1"],
    }
    frame = load_frame(tmp_path / "c")
    assert list(zip(frame.model, frame.reducer, strict=True)) == [
        (out.name, cell.split(" ")[0])
        for out, made in merged.items()
        for cell in sorted(made.cells, key=lambda cell: (cell != "none", cell))
    ]
    assert set(frame.status) == {"done"}
    with pytest.raises(RequestError, match=r"is one run and .*a holds several; name one of them: .*test_vit2"):
        merge_folders([tmp_path / "a", tmp_path / "b" / "test_vit2"], tmp_path / "d")
