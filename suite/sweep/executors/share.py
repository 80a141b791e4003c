"""What of a run is still to be evaluated, and which of it is this process' own, beside others with the same folder."""

from __future__ import annotations

from suite.store.claims import Claims
from suite.sweep.lane import StoredCell
from suite.sweep.record import Record

WAIT = 0.5  # seconds between looks at what other processes have done
WAITING = "the rest is being evaluated by another command for this folder; waiting for it"


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
