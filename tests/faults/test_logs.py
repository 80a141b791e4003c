"""Logs of a run: what a kill, a fault of the disk or another process leaves in them is found; nothing else is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from suite.api import run
from suite.store.folder import RunFolder
from suite.store.log import HEAD, MARK, Logs, LogWriter, read_frames
from suite.store.shards import in_order
from suite.sweep.progress import Progress
from tests.faults.test_runs import ROOT, logged, report_bytes

QUIET = Progress(quiet=True)


def rows(*ids: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": list(ids)})


def stored(logs: Logs, stream: str = "cell/samples") -> list[list[str]]:
    return [table["id"].to_pylist() for table in read_frames(logs.frames(stream))]


@pytest.fixture
def log(tmp_path) -> Path:
    """A log of three batches, whose writer is gone."""
    writer = LogWriter(tmp_path)
    for number, ids in enumerate(("ab", "cd", "ef")):
        writer.append("cell/samples", number, rows(*ids))
    writer.close()
    return writer.path


def frame_starts(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(MARK, at)]


def test_rows_come_back_by_stream_in_the_order_of_their_batches(tmp_path):
    first, second = LogWriter(tmp_path), LogWriter(tmp_path)
    second.append("cell/samples", 1, rows("c"))
    first.append("cell/samples", 0, rows("a", "b"))
    second.append("other/samples", 0, rows("x"))
    logs = Logs(tmp_path)
    assert stored(logs) == [["a", "b"], ["c"]]
    assert stored(logs, "other/samples") == [["x"]]
    first.append("cell/samples", 2, rows("d"))
    assert stored(logs) == [["a", "b"], ["c"], ["d"]]


@pytest.mark.parametrize("cut", [1, HEAD.size - 1, HEAD.size + 3, -1])
def test_a_frame_that_a_kill_cut_short_is_not_there_and_the_others_are(log, cut):
    data = log.read_bytes()
    start = frame_starts(data)[2]
    log.write_bytes(data[: start + cut] if cut > 0 else data[:cut])
    logs = Logs(log.parent)
    assert stored(logs) == [["a", "b"], ["c", "d"]]
    assert list(logs.faults(logs.paths())) == []


def test_wherever_a_byte_of_a_log_is_damaged_the_other_frames_are_found(log, tmp_path):
    data = log.read_bytes()
    starts = [*frame_starts(data), len(data)]
    for at in range(starts[1], starts[2], 7):
        hurt = tmp_path / str(at)
        hurt.mkdir()
        (hurt / f"{at}.log").write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        logs = Logs(hurt)
        assert stored(logs) == [["a", "b"], ["e", "f"]], at
        assert len(list(logs.faults(logs.paths()))) >= 1, at


def test_a_log_is_left_when_its_writer_has_closed_it_and_not_before(tmp_path):
    writer, logs = LogWriter(tmp_path), Logs(tmp_path)
    with logs.left() as left:
        assert left == []
    writer.close()
    with logs.left() as left:
        assert left == [writer.path]


def test_of_rows_that_are_there_twice_the_first_counts():
    table = pa.table({"id": ["b", "a", "b", "c"], "of": [1, 2, 3, 4]})
    assert in_order(table, ["a", "b", "gone", "c"])["of"].to_pylist() == [2, 1, 4]


def test_batches_that_an_earlier_version_stored_in_files_are_continued(tmp_path):
    folder = RunFolder(tmp_path)
    shards = folder.cell("0123456789abcdef").shards
    for number, ids in enumerate(("ab", "cd")):
        shards.files.write_rows(f"{shards.stream}/batch-{number:05d}.parquet", pa.table({"id": list(ids)}))
    batches = [["a", "b"], ["c", "d"], ["e"], ["f"]]
    assert shards.missing(batches) == [2, 3]
    with_log = folder.log()
    with_log.append(shards.stream, 3, rows("f"))
    assert shards.missing(batches) == [2]
    assert shards.read_ids() == set("abcdf")
    with_log.close()
    assert folder.join_logs(list("abcdef")) == []
    assert shards.files.read_rows(shards.whole)["id"].to_pylist() == list("abcdf")
    assert list(shards.names()) == [shards.whole]
    assert folder.logs.paths() == []


def test_a_run_has_as_many_files_with_many_batches_as_with_few(tiny_run, tmp_path):
    def files(batch_size: int) -> int:
        out = tmp_path / str(batch_size)
        run({**tiny_run, "batch_size": batch_size, "out": str(out)}, report=False, progress=QUIET)
        return sum(path.is_file() for path in out.rglob("*"))

    assert files(1) == files(12)


def test_a_damaged_part_of_a_log_is_named_and_made_again(tiny_run, tmp_path, capsys):
    whole = run({**tiny_run, "batch_size": 2, "out": str(tmp_path / "whole")}, progress=QUIET)
    spec = {**tiny_run, "batch_size": 2, "out": str(tmp_path / "hurt")}
    kill_while_it_runs(spec, tmp_path, frames=6)
    (log,) = RunFolder(spec["out"]).logs.paths()
    data = bytearray(log.read_bytes())
    data[frame_starts(bytes(data))[2] + HEAD.size + 40] ^= 0xFF
    log.write_bytes(data)
    run(spec, progress=Progress())
    assert f"{log} is damaged" in " ".join(capsys.readouterr().err.split())
    assert report_bytes(spec["out"]) == report_bytes(whole.out)


def kill_while_it_runs(spec: dict, tmp_path: Path, frames: int) -> None:
    """Begin a run, and kill it when so many batches of cells are stored."""
    (tmp_path / "spec.yaml").write_text(json.dumps({**spec, "workers": 0}))
    command = [sys.executable, str(ROOT / "run_bench.py"), "run", str(tmp_path / "spec.yaml")]
    process = subprocess.Popen(command, env={"OMP_NUM_THREADS": "1", **os.environ}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and sum(map(len, logged(spec["out"]).values())) < frames:
        assert time.monotonic() < deadline, "no batch was stored"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert RunFolder(spec["out"]).logs.paths(), "it ended before it was killed; nothing was proved"
