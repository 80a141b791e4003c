"""What becomes of a run's batches, as it is written into its folder: by whoever evaluates, or on behalf of who does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import pyarrow as pa

from suite.contract.task import ReadError, Sample
from suite.errors import MachineError
from suite.sweep.changes import note_contents
from suite.sweep.evaluate import Cell
from suite.sweep.lane import Lane, StoredCell
from suite.sweep.partial import Partial
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress

Advance = Callable[[str, int], None]
Unreadable = dict[str, dict[str, str]]


class Record:
    """A log of this process for one lane, as a `Sink`; at the end of the `with` its rows stand in the cells' files."""

    def __init__(self, lane: Lane, progress: Progress) -> None:
        self.lane, self.progress = lane, progress
        self.cells = {cell.key: cell for cell in lane.cells}
        self.advance: Advance = lambda name, images: None
        self.missing = still_unreadable(lane.plan, lane.folder.read_missing())
        self._write_missing()
        self.log = lane.folder.log()
        self.joined: set[str] = set()
        self.partial = Partial(lane)

    def decoded(self, number: int, samples: Sequence[Sample], errors: Sequence[ReadError]) -> None:
        """RequestError for a sample that holds something else than when other outcomes were made of it."""
        if errors:
            self.add_missing(errors)
        note_contents(self.log, number, samples, self.lane.known)

    def scored(self, cell: Cell, number: int, rows: pa.RecordBatch) -> None:
        stored = self.cells[cell.key]
        self.log.append(stored.folder.shards.stream, number, rows)
        self.partial.add(cell.key, rows)
        self.advance(stored.name, len(rows))

    def received(self, key: str, number: int, packed: bytes, rows: int) -> None:
        """The same of a worker elsewhere, which sends them packed."""
        stored = self.cells[key]
        self.log.append_packed(stored.folder.shards.stream, number, packed)
        self.advance(stored.name, rows)

    def failed(self, cell: Cell, number: int, reason: str) -> None:
        stored = self.cells[cell.key]
        stored.folder.fail(reason)
        self.progress.failed(stored.name, reason)

    def add_missing(self, errors: Sequence[ReadError]) -> None:
        """Samples that cannot be read, to those that are known; another process may have found more."""
        with self.lane.folder.locked():
            self.missing |= {record["id"]: record for record in self.lane.folder.read_missing()}
            self.missing |= {error.id: {"id": error.id, "path": error.path, "reason": error.reason} for error in errors}
            self._write_missing()

    def _write_missing(self) -> None:
        self.lane.folder.write_missing([self.missing[id] for id in sorted(self.missing)])

    def expected(self) -> list[list[str]]:
        """Ids of the samples of every batch that can be read."""
        batches = self.lane.plan.batches
        return [[sample.id for sample in batch if sample.id not in self.missing] for batch in batches]

    def todo(self, cells: Sequence[StoredCell]) -> dict[str, set[int]]:
        """By the keys of cells: the batches of which samples have no outcome yet. What was scored of these cells before
        is out of date where there are any.

        MachineError where somebody has removed the log: what is evaluated would be written out of sight, for ever anew.
        """
        if not self.log.path.exists():
            raise MachineError(f"'{self.log.path}' was removed while it was being written")
        expected = self.expected()
        found = {cell.key: set(cell.folder.shards.missing(expected)) for cell in cells}
        for cell in cells:
            if found[cell.key]:
                cell.folder.remove_scores()
        return found

    def finish(self, cell: StoredCell) -> None:
        """Close a cell whose readable samples all have outcomes; it fails if more are missing than allowed."""
        with self.lane.folder.locked():
            cell.folder.shards.compact(self.lane.ids, self.lane.support_ids)
        self.joined.add(cell.folder.shards.stream)
        if cell.folder.read("accuracy") != (ran := {"batch_size": cell.batch_size}):
            cell.folder.write("accuracy", ran)
        if len(missing := list(self.missing.values())) > self.lane.plan.spec.allow_missing:
            first = missing[0]
            more = f" and {len(missing) - 1} more (missing.jsonl)" if len(missing) > 1 else ""
            reason = f"unreadable image {first['path'] or first['id']}: {first['reason']}{more}"
            cell.folder.fail(f"{reason}; repair it, or pass --allow-missing {len(missing)}")
            self.progress.failed(cell.name, reason)

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.close()
        for line in self.lane.folder.join_logs(self.lane.ids, self.lane.support_ids, self.joined):
            self.progress.note(line)


def still_unreadable(plan: Plan, records: Sequence[dict[str, str]]) -> Unreadable:
    """By their ids, the records whose samples cannot be read today either; a repaired image is scored with the rest."""
    samples = {sample.id: sample for sample in plan.task.forwarded} if records else {}
    preprocessing = plan.task.preprocessing(plan.model, plan.spec.image_size)
    kept = {}
    for record in records:
        try:
            plan.task.load(samples[record["id"]], preprocessing)
        except ReadError as error:
            kept[error.id] = {"id": error.id, "path": error.path, "reason": error.reason}
    return kept
