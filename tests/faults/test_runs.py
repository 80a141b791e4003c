"""A run that is hit by a fault says so, keeps what it has, and can be continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from reports.write import write_report
from suite.api import run
from suite.contract.task import Batch, Sample
from suite.errors import CellError, MachineError, RequestError
from suite.store import sources
from suite.store.claims import Claims
from suite.store.files import atomic_path
from suite.store.folder import RunFolder
from suite.store.log import Frame
from suite.sweep.answers import Answers
from suite.sweep.evaluate import Cell, forward, rows_of
from suite.sweep.progress import Progress
from suite.sweep.record import Record
from suite.sweep.spec import make_spec
from tasks.scenes.classes import Scenes
from tests.unit.test_views import Detached

ROOT = Path(__file__).parents[2]
QUIET = Progress(quiet=True)


def report_bytes(out: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((Path(out) / "report").iterdir())}


def logged(out: str | Path) -> dict[str, list[Frame]]:
    """The batches of every cell that are in logs."""
    logs = RunFolder(out).logs
    return {stream: logs.frames(stream) for stream in logs.streams(logs.paths()) if stream != "contents"}


def first_photo(photos: Path) -> Path:
    return min(photos.rglob("*.JPEG"))


def write_reducer(path: Path, body: str) -> str:
    """A reducer file outside the repository; returns how a run names it."""
    path.write_text(
        "import torch\nfrom suite.reducers.base import Reducer\n\n\nclass Broken(Reducer):\n"
        f"    def after_attention(self, tokens, signals, amount):\n        {body}\n"
    )
    return f"{path}:Broken"


@pytest.mark.parametrize("part", ["", "logs"])
def test_a_run_whose_rows_are_removed_while_it_writes_them_says_so_and_ends(part, tiny_run, monkeypatch):
    out, scored = Path(tiny_run["out"]), Record.scored

    def remove(record, cell, number, rows):
        scored(record, cell, number, rows)
        shutil.rmtree(out / part, ignore_errors=True)

    monkeypatch.setattr(Record, "scored", remove)
    with pytest.raises(MachineError, match=r"logs/\w+\.log' was removed while it was being written"):
        run(tiny_run, progress=QUIET)
    monkeypatch.undo()
    assert not run(tiny_run, progress=QUIET).failed


def test_the_same_command_again_runs_nothing_and_gives_the_same_report(tiny_run):
    run(tiny_run, progress=QUIET)
    before = report_bytes(tiny_run["out"])
    stored = {path: path.stat().st_mtime_ns for path in Path(tiny_run["out"]).rglob("samples.parquet")}
    run(tiny_run, progress=QUIET)
    assert report_bytes(tiny_run["out"]) == before
    assert stored == {path: path.stat().st_mtime_ns for path in stored}


@pytest.mark.slow
def test_a_run_that_is_killed_continues_and_ends_with_the_bytes_of_an_uninterrupted_one(tiny_run, tmp_path):
    whole = run({**tiny_run, "batch_size": 1, "out": str(tmp_path / "whole")}, progress=QUIET)
    spec = {**tiny_run, "batch_size": 1, "out": str(tmp_path / "killed")}
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    command = [sys.executable, str(ROOT / "run_bench.py"), "run", str(tmp_path / "spec.yaml")]
    process = subprocess.Popen(command, env={"OMP_NUM_THREADS": "1", **os.environ}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and sum(map(len, logged(spec["out"]).values())) < 9:  # of 3 cells
        assert time.monotonic() < deadline, "no batch was stored"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(Path(spec["out"]).glob("report/*")), "it ended before it was killed; nothing was proved"
    run(spec, progress=QUIET)
    assert report_bytes(spec["out"]) == report_bytes(whole.out)


def test_where_all_but_the_report_was_removed_the_same_command_begins_anew(tiny_run):
    out = run(tiny_run, progress=QUIET).out
    report = report_bytes(out)
    for name in ("run.json", "environment.json", "contents.parquet"):
        (out / name).unlink()
    shutil.rmtree(out / "cells")
    (out / "exhibits" / "of.before").write_text("")
    run(tiny_run, progress=QUIET)
    assert report_bytes(out) == report
    assert not (out / "exhibits" / "of.before").exists()


@pytest.mark.slow
def test_a_run_that_another_process_is_just_beginning_is_no_strange_folder(tmp_path):
    with atomic_path(tmp_path / "run.json"):
        assert RunFolder(tmp_path).check({}, []) is None
    (tmp_path / "run.json").unlink()
    (tmp_path / "report").mkdir()
    assert RunFolder(tmp_path).check({}, []) is None
    for name in ("notes.txt", "report/notes.txt"):
        (tmp_path / name).write_text("of somebody else")
        with pytest.raises(RequestError, match="is not empty and holds no run"):
            RunFolder(tmp_path).check({}, [])
        (tmp_path / name).unlink()


@pytest.mark.parametrize("asked", [(["tome", "evit"], ["tome", "evit"]), (["tome"], ["evit"])])
def test_two_processes_on_one_folder_share_the_work_and_lose_no_cell(asked, tiny_run, tmp_path):
    whole = run({**tiny_run, "batch_size": 1, "out": str(tmp_path / "whole")}, progress=QUIET)
    both = []
    for number, reducers in enumerate(asked):
        spec = {**tiny_run, "batch_size": 1, "out": str(tmp_path / "shared"), "reducers": reducers}
        (tmp_path / f"{number}.yaml").write_text(json.dumps(spec))
        command = [sys.executable, str(ROOT / "run_bench.py"), "run", str(tmp_path / f"{number}.yaml")]
        both.append(subprocess.Popen(command, env={"OMP_NUM_THREADS": "1", **os.environ}))
    assert [process.wait() for process in both] == [0, 0]
    write_report(tmp_path / "shared")  # that of the first to end has what was there then
    assert report_bytes(tmp_path / "shared") == report_bytes(whole.out)


def test_a_cell_that_fails_in_one_process_is_left_to_another(tmp_path):
    claims = [Claims(tmp_path / "claims")]
    assert claims[0].take("0123456789abcdef", 3)
    assert claims[0].take("fedcba9876543210", 3)
    asks = "import sys; from pathlib import Path; from suite.store.claims import Claims\n"
    asks += f"claims = Claims(Path({str(tmp_path / 'claims')!r}))\n"
    asks += "print([claims.take(key, 3) for key in ('0123456789abcdef', 'fedcba9876543210')], claims.take('f', 4))"

    def another() -> str:
        return subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, cwd=ROOT).stdout.strip()

    assert another() == "[False, False] True"
    claims[0].give_up("0123456789abcdef")
    assert another() == "[True, False] True"


def test_a_run_that_lost_its_first_file_before_it_had_any_cell_begins_anew(tiny_run, tmp_path):
    whole = run({**tiny_run, "out": str(tmp_path / "whole")}, progress=QUIET)
    (tmp_path / "run").mkdir()
    for name in ("environment.json", "manifest.parquet"):
        (tmp_path / "run" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    run(tiny_run, progress=QUIET)
    assert report_bytes(tiny_run["out"]) == report_bytes(whole.out)


def test_a_torn_shard_is_run_again(tiny_run, tmp_path):
    whole = run(tiny_run, progress=QUIET)
    spec = {**tiny_run, "out": str(tmp_path / "torn")}
    run(spec, progress=QUIET)
    cell = next(Path(spec["out"]).glob("cells/*/samples.parquet"))
    cell.write_bytes(cell.read_bytes()[:100])
    run(spec, progress=QUIET)
    assert report_bytes(spec["out"]) == report_bytes(whole.out)


def test_a_truncated_image_fails_the_cells_by_path_and_a_repaired_one_completes_them(tiny_run, photos):
    photo = first_photo(photos)
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    failed = run(tiny_run, progress=QUIET).failed
    assert len(failed) == 3
    assert all(str(photo) in reason for reason in failed)
    photo.write_bytes(whole)
    results = run(tiny_run, progress=QUIET)
    assert results.failed == []
    assert set(results.frame().samples) == {12}


def test_allowed_missing_images_are_stamped_on_every_table(tiny_run, photos):
    first_photo(photos).write_text("not a picture")
    results = run({**tiny_run, "allow_missing": 1}, progress=QUIET)
    assert results.failed == []
    assert set(results.frame().samples) == {11}
    for name in ("table.md", "table.tex"):
        assert "11 of 12" in (results.out / "report" / name).read_text()


def test_nan_logits_fail_their_cell_by_batch_and_sample_and_no_other(tiny_run, tmp_path):
    bad = write_reducer(tmp_path / "nan.py", "return tokens.keep(torch.arange(1, tokens.count - amount).expand("
                        "len(tokens.x), -1)).with_features(tokens.x[:, amount:] * float('nan'))")  # fmt: skip
    results = run({**tiny_run, "reducers": ["tome", bad]}, progress=QUIET)
    assert len(results.failed) == 1
    assert "batch 0" in results.failed[0]
    assert "NaN" in results.failed[0]
    assert "n01440764_0.JPEG" in results.failed[0]
    frame = results.frame().set_index("reducer")
    assert frame.status["tome"] == "done"
    assert frame.top1.isna()[bad]


def test_a_reducer_that_does_not_reduce_is_caught(tiny_run, tmp_path):
    lazy = write_reducer(tmp_path / "lazy.py", "return tokens")
    (reason,) = run({**tiny_run, "reducers": ["tome", lazy]}, progress=QUIET).failed
    assert "17 tokens" in reason
    assert "plans 16" in reason


def test_a_reducer_that_raises_fails_its_cell_and_not_the_sweep(tiny_run, tmp_path):
    broken = write_reducer(tmp_path / "raises.py", "raise AttributeError('no idea what to drop')")
    results = run({**tiny_run, "reducers": ["tome", broken]}, progress=QUIET)
    (reason,) = results.failed
    assert "no idea what to drop" in reason
    assert list(results.frame().set_index("reducer").status[["none", "tome"]]) == ["done", "done"]


def test_a_run_never_continues_in_the_folder_of_another_one(tiny_run):
    run(tiny_run, progress=QUIET)
    with pytest.raises(RequestError, match=r"batch_size=5, not 6; give another --out"):
        run({**tiny_run, "batch_size": 6}, progress=QUIET)


def test_other_data_under_the_same_names_is_another_run(tiny_run, photos, tmp_path):
    run(tiny_run, progress=QUIET)
    moved = photos.rename(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="holds a run with data="):
        run({**tiny_run, "data": str(moved)}, progress=QUIET)


def test_a_failure_of_an_earlier_request_is_not_one_of_the_next(tiny_run):
    assert run({**tiny_run, "rates": [], "flops": ["-97%"], "reducers": ["tome"]}, progress=QUIET).failed
    assert run(tiny_run, progress=QUIET).failed == []


def test_the_batch_that_fitted_in_memory_is_remembered(tiny_run):
    run(tiny_run, progress=QUIET)
    path = next(Path(tiny_run["out"]).glob("cells/*/accuracy.json"))
    path.write_text('{"batch_size": 2}')
    run(tiny_run, progress=QUIET)
    assert json.loads(path.read_text()) == {"batch_size": 2}


def test_more_rates_extend_a_run(tiny_run):
    run(tiny_run, progress=QUIET)
    results = run({**tiny_run, "rates": ["r=2"]}, progress=QUIET)
    assert sorted(results.frame().rate) == ["", "r=1", "r=1", "r=2", "r=2"]


def test_a_changed_reducer_is_measured_again_and_replaces_its_old_cell(tiny_run, tmp_path, monkeypatch):
    name = write_reducer(tmp_path / "mine.py", "return tokens.keep(torch.arange(1, tokens.count - amount).expand("
                         "len(tokens.x), -1))")  # fmt: skip
    spec = {**tiny_run, "reducers": [name]}
    before = run(spec, progress=QUIET).frame()
    source = Path(name.rsplit(":", 1)[0])
    source.write_text(source.read_text() + "# changed\n")
    monkeypatch.setattr(sources, "READ", {})  # as another process would begin
    after = run(spec, progress=QUIET).frame()
    assert len(before) == len(after) == 2
    assert set(before.index) != set(after.index)


def test_a_folder_that_holds_something_else_is_not_written_to(tiny_run):
    out = Path(tiny_run["out"])
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    with pytest.raises(RequestError, match="not empty"):
        run(tiny_run, progress=QUIET)


def test_damaged_json_in_the_store_is_named_and_made_again(tiny_run):
    results = run(tiny_run, progress=QUIET)
    path, before = next(Path(tiny_run["out"]).glob("cells/*/flops.json")), report_bytes(tiny_run["out"])
    path.write_text("{")
    (said,) = results.frame().attrs["damaged"]
    assert f"{path} is damaged" in said
    run(tiny_run, progress=QUIET)
    assert report_bytes(tiny_run["out"]) == before
    assert path.with_name("flops.json.damaged-1").read_text() == "{"


SAMPLES = [Sample(f"sample {i}", i % 3) for i in range(11)]


def three_classes() -> Scenes:
    task = Scenes(scenes=1)
    task.num_classes = 3
    return task


class MemoryOf(torch.nn.Module):
    """A real forward that has room for `room` images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.mean(dim=(2, 3))


def test_out_of_memory_halves_the_batch_and_scores_the_same_images(tmp_path):
    images, task = torch.randn(11, 3, 4, 4), three_classes()
    cell = Cell("key", Detached(), batch_size=11)
    rows = rows_of(
        task, forward(task, Answers(MemoryOf(3), "eager"), cell, images, Batch(SAMPLES, images, [], [1] * 11))
    ).to_pylist()
    assert [row["id"] for row in rows] == [sample.id for sample in SAMPLES]
    assert [row["prediction"] for row in rows] == images.mean(dim=(2, 3)).argmax(1).tolist()
    assert cell.batch_size == 3


def test_out_of_memory_with_one_image_is_an_error(tmp_path):
    cell = Cell("key", Detached(), batch_size=4)
    images = torch.randn(4, 3, 4, 4)
    with pytest.raises(CellError, match=r"from sample .* on: OutOfMemoryError: CUDA out of memory"):
        forward(three_classes(), Answers(MemoryOf(0), "eager"), cell, images, Batch(SAMPLES[:4], images, [], [1] * 4))


def test_a_spec_is_stored_with_every_default_spelled_out(tiny_run):
    run(tiny_run, progress=QUIET)
    spec = json.loads((Path(tiny_run["out"]) / "run.json").read_text())["spec"]
    assert make_spec(spec) == make_spec(tiny_run)
