"""Logs of rows that are made batch by batch: one file a writing process, appended to and never changed.

A frame is a batch of one stream of rows, such as the outcomes of a cell, with a checksum of its own: what a kill or a
fault of the disk leaves is found frame by frame, and the frames around it are good. A process that is killed has handed
all but the frame it was making to the operating system; a machine that loses power loses the last `SYNC` seconds.

Logs last as long as a run does: what is in them is then joined into one file a stream (`suite.store.shards`).
"""

from __future__ import annotations

import os
import struct
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import pyarrow as pa

from suite.store.files import left_behind, lock_file, unlock_file

HEAD = struct.Struct("<4sHI16s")  # mark, bytes of the name, bytes of the rows, digest of both
MARK = b"RBL1"
SYNC = 5.0  # seconds between what is written and what is on the disk


@dataclass(frozen=True)
class Frame:
    """Where the rows of batch `number` of a stream lie in a log."""

    log: Path
    number: int
    offset: int
    size: int


@dataclass
class _Scanned:
    """What is known of a log up to byte `end`. faults: where the frames lie that do not fit their checksums."""

    frames: dict[str, list[Frame]] = field(default_factory=lambda: defaultdict(list))
    faults: list[int] = field(default_factory=list)
    end: int = 0


_SCANNED: dict[Path, _Scanned] = {}  # names of logs are never used again


class LogWriter:
    """A log that this process writes, from any thread. Other processes see by its lock that the writer is alive."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._synced, self._writing = time.monotonic(), Lock()
        while True:
            self.path = folder / f"{uuid.uuid4().hex}.log"
            self._file = self.path.open("xb", buffering=0)
            lock_file(self._file.fileno())
            if self.path.exists():  # else it was taken for one that is left before it was locked
                return
            self._file.close()

    def append(self, stream: str, number: int, rows: pa.RecordBatch) -> None:
        """Add the rows of a batch, in one call to the operating system."""
        self.append_packed(stream, number, pack(rows))

    def append_packed(self, stream: str, number: int, packed: bytes) -> None:
        """The same of rows that are packed already, as a worker elsewhere sends them."""
        name = f"{number} {stream}".encode()
        left = memoryview(b"".join((HEAD.pack(MARK, len(name), len(packed), _digest(name, packed)), name, packed)))
        with self._writing:
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]
        if time.monotonic() - self._synced > SYNC:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Let go of the log; its rows stay in it."""
        unlock_file(self._file.fileno())  # by itself, it would last as long as a process that was forked meanwhile
        self._file.close()


class Logs:
    """All logs of a run: those that are written now, and what earlier processes left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))

    @contextmanager
    def left(self) -> Iterator[list[Path]]:
        """Those whose writers are gone; meanwhile no other process takes them for that. They are read anew."""
        with ExitStack() as held:
            found = [path for path in self.paths() if held.enter_context(left_behind(path))]
            for path in found:
                _SCANNED.pop(path, None)
            yield found

    def frames(self, stream: str) -> list[Frame]:
        """The good frames of a stream in all logs, in the order of batches; what two processes made is there twice."""
        found = (frame for path in self.paths() for frame in _scan(path).frames.get(stream, ()))
        return sorted(found, key=lambda frame: frame.number)

    def streams(self, paths: Iterable[Path]) -> list[str]:
        """The streams that have frames in some logs."""
        return sorted({stream for path in paths for stream in _scan(path).frames})

    def faults(self, paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
        """Logs of frames that were written whole and do not fit their checksums now, and where in them these lie."""
        for path in paths:
            for offset in _scan(path).faults:
                yield path, offset

    def remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
            _SCANNED.pop(path, None)


def pack(rows: pa.RecordBatch) -> bytes:
    """An Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def read_frames(frames: Sequence[Frame], columns: Sequence[str] | None = None) -> list[pa.Table]:
    """Their rows, a table each; of logs that are gone, nothing: what was in one stands in the stream's own file."""
    found = []
    with ExitStack() as opened:
        files = {log: _open(log, opened) for log in {frame.log for frame in frames}}
        for frame in frames:
            if (file := files[frame.log]) is not None:
                table = pa.ipc.open_stream(os.pread(file.fileno(), frame.size, frame.offset)).read_all()
                found.append(table.select(list(columns)) if columns is not None else table)
    return found


def _open(log: Path, opened: ExitStack) -> BinaryIO | None:
    try:
        return opened.enter_context(log.open("rb"))
    except FileNotFoundError:
        return None


def _scan(path: Path) -> _Scanned:
    """What is in a log now; what was read before is not read again."""
    known = _SCANNED.setdefault(path, _Scanned())
    try:
        with path.open("rb") as file:
            file.seek(known.end)
            size = os.fstat(file.fileno()).st_size
            while known.end < size and _scan_frame(path, file, size, known):
                file.seek(known.end)
    except FileNotFoundError:
        _SCANNED.pop(path, None)
        return _Scanned()
    return known


def _scan_frame(path: Path, file: BinaryIO, size: int, known: _Scanned) -> bool:
    """Take in the frame that begins at `known.end`, or what is damaged up to the next one. False if it is not all
    there, as the last one of a process that was killed, or is still writing."""
    head = file.read(HEAD.size)
    mark, length, rows, digest = HEAD.unpack(head) if len(head) == HEAD.size else (b"", 0, 0, b"")
    start = known.end + HEAD.size + length
    if mark == MARK and start + rows <= size:
        name, data = file.read(length), file.read(rows)
        if digest == _digest(name, data):
            number, _, stream = name.decode().partition(" ")
            known.frames[stream].append(Frame(path, int(number), start, rows))
            known.end = start + rows
            return True
    # neither its length nor its name can be believed: go on at the next mark that a good frame stands at
    file.seek(known.end)
    rest = file.read()
    skipped = _next_good(rest, 1)
    cut = len(head) < HEAD.size or (mark == MARK and start + rows > size)
    if cut and skipped == len(rest):
        return False
    known.faults.append(known.end)
    known.end += skipped
    return True


def _next_good(data: bytes, at: int) -> int:
    """Where the next frame that fits its checksum begins; the end where there is none."""
    while (at := data.find(MARK, at)) >= 0:
        if len(data) >= at + HEAD.size:
            _, length, size, digest = HEAD.unpack_from(data, at)
            start = at + HEAD.size + length
            if digest == _digest(data[at + HEAD.size : start], data[start : start + size]):
                return at
        at += 1
    return len(data)


def _digest(name: bytes, rows: bytes) -> bytes:
    digest = blake2b(name, digest_size=16)
    digest.update(b"\0")
    digest.update(rows)
    return digest.digest()
