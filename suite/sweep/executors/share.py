"""What of a run is still to be evaluated, and which of it is this process' own, beside others with the same folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from suite.store.claims import Claims
from suite.sweep.lane import Lane, StoredCell, drop_failed
from suite.sweep.progress import Progress
from suite.sweep.record import Record

WAIT = 0.5  # seconds between looks at what other processes have done


class Share:
    """todo: by the keys of cells, the batches that had no outcomes at the last `look`. failed: cells that are out."""

    def __init__(self, record: Record, claims: Claims) -> None:
        self.record, self.claims = record, claims
        self.failed: set[str] = set()
        self.look()

    def look(self) -> None:
        """See what is stored now. What failed here is left to others: they would wait for it."""
        for key in self.failed:
            self.claims.give_up(key)
        self.todo = self.record.todo(self.alive)

    @property
    def alive(self) -> list[StoredCell]:
        return [cell for cell in self.record.lane.cells if cell.key not in self.failed]

    @property
    def numbers(self) -> set[int]:
        return set().union(*self.todo.values())

    def take(self, number: int) -> list[str]:
        """Make this process' own what it can of a batch: the keys of its cells."""
        return [key for key, numbers in self.todo.items() if number in numbers and self.claims.take(key, number)]

    @property
    def images(self) -> int:
        """Forwards of an image that are to do."""
        sizes = [len(batch) for batch in self.record.lane.plan.batches]
        return sum(sizes[number] for numbers in self.todo.values() for number in numbers)


def work_off(
    lanes: Sequence[Lane],
    work: Callable[[list[Share]], bool],
    progress: Progress,
    where: Callable[[], str] = lambda: "",
    before_end: Callable[[], None] = lambda: None,
) -> None:
    """Let `work` do what is left of some lanes, until nothing is, and close their cells.

    work: does what it can of the shares as they were looked at last; whether there was anything that nobody else does.
    where: on what, for the counter. before_end: what has to be over before a cell is closed.
    """
    with ExitStack() as stack:
        records = [stack.enter_context(Record(lane, progress)) for lane in lanes]
        shares = [Share(record, stack.enter_context(record.lane.folder.claims())) for record in records]
        images, cells = sum(share.images for share in shares), sum(len(lane.cells) for lane in lanes)
        partials = [record.partial for record in records]
        advance = stack.enter_context(progress.images(images, cells, where, partials))
        for record in records:
            record.advance = advance
        waiting = False
        while any(share.numbers for share in shares):
            if not work(shares):
                if not waiting:
                    progress.note("the rest is being evaluated by another command for this folder; waiting for it")
                waiting = True
                time.sleep(WAIT)
            for share in shares:
                share.look()
        before_end()
        for share in shares:
            for cell in drop_failed(share.alive):
                share.record.finish(cell)
