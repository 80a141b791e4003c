"""The work of a run, done by this process, beside others that were given a command for the same folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby

import torch

from suite.measure.precision import dtype_of
from suite.store.claims import Claims
from suite.sweep.evaluate import Work, evaluate
from suite.sweep.images import load
from suite.sweep.lane import Lane, StoredCell
from suite.sweep.plan import resolve_device
from suite.sweep.progress import Progress
from suite.sweep.record import Record
from suite.sweep.timing import time_lane

WAIT = 0.5  # seconds between looks at what other processes have done


class Local:
    """This process, on one device."""

    def __init__(self, device: str) -> None:
        self.device = resolve_device(device)

    def evaluate(self, lanes: Sequence[Lane], count: Callable[[Progress], None], progress: Progress) -> None:
        count(progress)
        for lane in lanes:
            lane.plan.model.to(dtype_of(lane.plan.spec.precision))
        evaluate_lanes(lanes, self.device, progress)

    def time(self, lanes: Sequence[Lane], progress: Progress) -> None:
        for lane in lanes:
            time_lane(lane, self.device, progress)


def evaluate_lanes(lanes: Sequence[Lane], device: torch.device, progress: Progress) -> None:
    """Score every sample that a cell has no stored outcome for. Batches are decoded once for all lanes that can share
    them; RequestError for a sample whose file changed meanwhile."""
    order = {key: place for place, key in enumerate(dict.fromkeys(lane.decoded_alike for lane in lanes))}
    for _, alike in groupby(sorted(lanes, key=lambda lane: order[lane.decoded_alike]), lambda lane: lane.decoded_alike):
        _evaluate_alike(list(alike), device, progress)


def _evaluate_alike(lanes: Sequence[Lane], device: torch.device, progress: Progress) -> None:
    plan, batches = lanes[0].plan, lanes[0].batches
    with ExitStack() as stack:
        records = [stack.enter_context(Record(lane, progress)) for lane in lanes]
        shares = [_Share(record, stack.enter_context(record.lane.folder.claims())) for record in records]
        for share in shares:
            share.look()
        total = sum(len(batches[n]) for share in shares for numbers in share.todo.values() for n in numbers)
        advance = stack.enter_context(progress.images(total, sum(len(lane.cells) for lane in lanes)))
        for record in records:
            record.advance = advance
        waiting = False
        while numbers := sorted(set().union(*(share.numbers for share in shares))):
            works = [share.work for share in shares]
            evaluate(works, load(plan, batches, _taken(shares, numbers), pinned=device.type == "cuda"), device)
            if not any(work.todo[key] for work in works for key in work.todo):
                if not waiting:
                    progress.note("the rest is being evaluated by another command for this folder; waiting for it")
                waiting = True
                time.sleep(WAIT)
            for share in shares:
                share.look()
        for share in shares:
            for cell in share.alive:
                share.record.finish(cell)


class _Share:
    """What of a lane is still to be done, and which of it is this process' own."""

    def __init__(self, record: Record, claims: Claims) -> None:
        self.record, self.claims = record, claims
        self.failed: set[str] = set()

    def look(self) -> None:
        """See what is stored now. What failed here is left to others: they would wait for it."""
        for key in self.failed:
            self.claims.give_up(key)
        self.todo = self.record.todo(self.alive)
        self.work = Work(self.record.lane.plan, self.alive, {key: set() for key in self.todo}, self.record, self.failed)

    @property
    def alive(self) -> list[StoredCell]:
        return [cell for cell in self.record.lane.cells if cell.key not in self.failed]

    @property
    def numbers(self) -> set[int]:
        return set().union(*self.todo.values())

    def take(self, number: int) -> bool:
        """Make this process' own what it can of a batch; False if it is all others'."""
        taken = [key for key, numbers in self.todo.items() if number in numbers and self.claims.take(key, number)]
        for key in taken:
            self.work.todo[key].add(number)
        return bool(taken)


def _taken(shares: Sequence[_Share], numbers: Sequence[int]) -> Iterator[int]:
    """The batches that this process does, taken as late as it can be."""
    for number in numbers:
        if sum(share.take(number) for share in shares):  # every lane takes what it can
            yield number
