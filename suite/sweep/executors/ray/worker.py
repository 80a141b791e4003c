"""A worker: one process of a cluster, on one device or on some cores of its node."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread

import pyarrow as pa
import torch

from suite.contract.baseline import BASELINE
from suite.contract.task import ReadError, Sample
from suite.errors import RequestError, describe_error
from suite.measure.exclusive import alone
from suite.measure.heap import keep_freed_memory
from suite.measure.machine import device_name
from suite.measure.precision import dtype_of
from suite.rates.rate import stored_rate
from suite.store.log import pack
from suite.store.sources import digest_sources
from suite.sweep.evaluate import Cell, Work, evaluate
from suite.sweep.executors.ray.inbox import Inbox
from suite.sweep.executors.ray.messages import (
    WINDOW,
    About,
    Assignment,
    Broken,
    Event,
    Failed,
    Measured,
    Opened,
    Read,
    Refused,
    Scored,
    TimeOrder,
)
from suite.sweep.executors.ray.units import Pair, Piece
from suite.sweep.images import load
from suite.sweep.pace import seconds_per_image
from suite.sweep.plan import Plan, make_plan, resolve_device
from suite.sweep.spec import RunSpec
from suite.sweep.timing import time_cells

DECODERS = 8  # processes of a worker that decode, at most
WAIT = 2.0  # seconds without anything to say
LINGER = 0.02  # seconds in which events are said together: an answer costs the driver as much as some events


class Worker:
    """Does what it is given, in order, in a thread of its own; a plan is made once, and its model loaded once."""

    def __init__(self, kind: str, cores: int) -> None:
        """kind: 'cpu' or 'cuda'. cores: of the node, for this worker."""
        keep_freed_memory()
        self.device, self.cores = resolve_device(kind), cores
        self.assignments: dict[int, Assignment] = {}
        self.opened: dict[int, _Opened] = {}
        self.inbox, self.outbox = Inbox(), _Outbox()
        Thread(target=self._work, name="work", daemon=True).start()

    def about(self) -> About:
        return About(socket.gethostname(), os.getpid(), device_name(self.device), sources_here())

    def exchange(
        self,
        acknowledged: int,
        assignments: dict[int, Assignment],
        orders: Sequence[Piece | TimeOrder],
        dropped: Sequence[Pair],
    ) -> list[Event]:
        """Take orders, and say what has happened since, in order, as soon as anything has.

        acknowledged: how many events of before have arrived. assignments: plans not heard of before. dropped: what was
        ordered, and others do.
        """
        for lane, told in assignments.items():
            self.assignments[lane] = told
            self.opened.pop(lane, None)
        self.inbox.put(orders, dropped)
        return self.outbox.take(acknowledged)

    def pace(self, spec: dict[str, object]) -> float:
        """Seconds that the unreduced model takes for an image here."""
        torch.set_num_threads(self.cores)
        return seconds_per_image(make_plan(self._spec(spec)))

    def _work(self) -> None:
        torch.set_num_threads(self.cores)  # a thread has its own number
        while True:
            order = self.inbox.first()
            try:
                opened = self._open(order.lane)
            except Exception as error:  # of this node: others may have the file, the package or the memory
                self.outbox.put(Refused(describe_error(error)))
                return
            try:
                if isinstance(order, TimeOrder):
                    self._time(opened, order)
                else:
                    numbers = self.inbox.numbers(order.lane)
                    batches = load(opened.plan, opened.plan.batches, numbers, pinned=self.device.type == "cuda")
                    evaluate([_Ordered(opened, self.inbox, self.outbox)], batches, self.device)
            except Exception as error:
                self.outbox.put(Broken(describe_error(error), not isinstance(error, RequestError)))
                return

    def _open(self, lane: int) -> _Opened:
        """The plan, on the device; others leave it."""
        for other, opened in self.opened.items():
            if other != lane:
                opened.plan.model.to("cpu")
        if lane not in self.opened:
            told = self.assignments[lane]
            plan = make_plan(self._spec(told.spec))
            check_same(told, plan)
            plan.model.to(dtype_of(plan.spec.precision))
            cells = {
                key: Cell(key, plan.handle(plan.methods[key], stored_rate(rate)), told.batch_sizes[key])
                for key, rate in told.rates.items()
            }
            self.opened[lane] = _Opened(lane, plan, cells)
            self.outbox.put(Opened(lane))
        self.opened[lane].plan.model.to(self.device)
        return self.opened[lane]

    def _spec(self, told: dict[str, object]) -> RunSpec:
        decoders = min(DECODERS, self.cores // 2)
        here = {"device": self.device.type, "workers": decoders if told["workers"] is None else told["workers"]}
        return RunSpec.model_validate({**told, **here})

    def _time(self, opened: _Opened, order: TimeOrder) -> None:
        self.inbox.drop_first()
        plan = opened.plan
        reduced = plan.methods[order.key].reducer != BASELINE
        handles = {order.key: opened.cells[order.key].handle} if reduced else {}
        with alone(self.device):
            files = {
                file: time_cells(plan, handles, file, runtimes, self.device) for file, runtimes in order.files.items()
            }
        self.outbox.put(Measured(order.lane, order.key, files))


def sources_here() -> str:
    """Digest of the code of workers, as it is on this node."""
    return digest_sources([__name__])


def check_same(told: Assignment, plan: Plan) -> None:
    """RequestError where the plan that a worker makes is another than the driver's."""
    if told.rates.keys() <= plan.methods.keys():
        return
    other = [
        f"{name} is {plan.identity[name]!r} there, and {value!r} here"
        for name, value in told.identity.items()
        if plan.identity[name] != value
    ]
    raise RequestError("; ".join(other) or "the sources of its task, model or methods are others than those here")


@dataclass
class _Opened:
    lane: int
    plan: Plan
    cells: dict[str, Cell]


class _Ordered(Work):
    """A plan's work, piece by piece as it is ordered."""

    def __init__(self, opened: _Opened, inbox: Inbox, outbox: _Outbox) -> None:
        super().__init__(opened.plan, list(opened.cells.values()), {}, _Sender(opened, inbox, outbox))
        self.opened, self.inbox = opened, inbox

    def pending(self, number: int) -> Iterator[Cell]:
        return (self.opened.cells[key] for key in self.inbox.cells())

    @property
    def over(self) -> bool:
        return False  # whether a cell goes on is not for a worker to say

    def fail(self, cell: Cell, number: int, reason: str) -> None:
        self.sink.failed(cell, number, reason)


class _Sender:
    """A sink that tells the driver."""

    def __init__(self, opened: _Opened, inbox: Inbox, outbox: _Outbox) -> None:
        self.opened, self.inbox, self.outbox = opened, inbox, outbox

    def decoded(self, number: int, samples: Sequence[Sample], errors: Sequence[ReadError]) -> None:
        self.outbox.put(Read(self.opened.lane, number, samples, errors))
        for key in () if samples else self.inbox.cells():  # nothing of it is run
            self.outbox.put(Scored(self._pair(key, number), b"", 0, self.opened.cells[key].batch_size))

    def scored(self, cell: Cell, number: int, rows: pa.RecordBatch) -> None:
        self.outbox.put(Scored(self._pair(cell.key, number), pack(rows), len(rows), cell.batch_size))

    def failed(self, cell: Cell, number: int, reason: str) -> None:
        self.outbox.put(Failed(self._pair(cell.key, number), reason))

    def _pair(self, key: str, number: int) -> Pair:
        return Pair(self.opened.lane, number, key)


class _Outbox:
    """Events that wait to be taken; who puts one waits while `WINDOW` are not acknowledged."""

    def __init__(self) -> None:
        self._room, self._events = Semaphore(WINDOW), SimpleQueue[Event]()

    def put(self, event: Event) -> None:
        self._room.acquire()
        self._events.put(event)

    def take(self, acknowledged: int) -> list[Event]:
        """What there is within `LINGER` of the first; waits `WAIT` for that."""
        for _ in range(acknowledged):
            self._room.release()
        found: list[Event] = []
        with suppress(Empty):
            found.append(self._events.get(timeout=WAIT))
            end = time.monotonic() + LINGER
            while len(found) < WINDOW // 2:
                found.append(self._events.get(timeout=max(end - time.monotonic(), 0)))
        return found
