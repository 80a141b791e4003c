"""The driver: hands out batches, and writes what workers find into the runs' folders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread

from suite.contract.task import ReadError
from suite.errors import RequestError
from suite.sweep.evaluate import AHEAD
from suite.sweep.executors.ray.cluster import Crew, Joined, Lost, News
from suite.sweep.executors.ray.messages import WINDOW, Assignment, Failed, Read, Scored
from suite.sweep.executors.ray.timing import time_lanes
from suite.sweep.executors.ray.units import KILLS, Pair, Schedule
from suite.sweep.executors.share import Share, work_off
from suite.sweep.lane import Lane
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress
from suite.sweep.record import still_unreadable
from suite.sweep.spec import RunSpec

IN_FLIGHT = WINDOW + AHEAD + 2  # what a worker may have begun beyond what it has reported


class Ray:
    """The workers of a cluster. `kind` is that of their devices: 'cuda' or 'cpu'."""

    leads = True

    def __init__(self, spec: RunSpec, progress: Progress) -> None:
        self.crew = Crew(spec, progress)
        self.kind = self.crew.kind
        if self.crew.dashboard:
            progress.note(f"Ray's dashboard: {self.crew.dashboard}")

    def evaluate(self, lanes: Sequence[Lane], count: Callable[[Progress], None], progress: Progress) -> None:
        """What cells cost is counted here, while they are evaluated."""
        self.crew.forget()
        with beside(count, Progress(progress.console, quiet=True)) as counted:
            work_off(lanes, lambda shares: Round(self.crew, shares).run(), progress, self._where, counted)

    def _where(self) -> str:
        return f" on {len(self.crew.ready())} workers"

    def paces(self, plan: Plan) -> list[float]:
        """Of a worker of each kind of device, which stands for the others."""
        self.crew.wait()
        workers = self.crew.ready()
        of_kind = {about.device: worker for worker, about in workers.items()}
        found = {kind: self.crew.pace(worker, plan.spec) for kind, worker in of_kind.items()}
        return [found[about.device] for about in workers.values()]

    def time(self, lanes: Sequence[Lane], progress: Progress) -> None:
        time_lanes(self.crew, lanes, assignments_of(lanes), progress)

    def close(self) -> None:
        self.crew.close()


class Round:
    """What was left to do when it was looked at, done as far as nobody else does it."""

    def __init__(self, crew: Crew, shares: Sequence[Share]) -> None:
        self.crew, self.shares = crew, shares
        self.supplies = [_Supply(share) for share in shares]
        self.schedule = Schedule(self.supplies, IN_FLIGHT)
        self.assignments = assignments_of([share.record.lane for share in shares])
        for worker in crew.ready():
            self.schedule.join(worker)

    def run(self) -> bool:
        """Whether there was anything that nobody else did."""
        while not self.schedule.finished:
            for worker in list(self.schedule.held):
                if self.crew.is_free(worker):
                    orders, dropped = self.schedule.give(worker), self.schedule.drops(worker)
                    if orders or dropped or self.schedule.held[worker].pieces:
                        self.crew.tell(worker, self.assignments, orders, dropped)
            for worker, news in self.crew.news():
                self._hear(worker, news)
            for share in self.shares[:1]:
                share.record.advance("", 0)  # what is shown is as it is now
        return any(supply.taken for supply in self.supplies)

    def _hear(self, worker: int, news: News) -> None:
        match news:
            case Joined():
                self.schedule.join(worker)
            case Read(lane, number, samples, errors):
                if errors:
                    self._check_readable(worker, lane, errors)
                self.shares[lane].record.decoded(number, samples, errors)
            case Scored(pair, packed, rows, batch_size):
                if self.schedule.done(worker, pair):
                    record = self.shares[pair.lane].record
                    cell = record.cells[pair.key]
                    cell.batch_size = min(cell.batch_size, batch_size)
                    if rows:
                        record.received(pair.key, pair.number, packed, rows)
            case Failed(pair, reason):
                if self.schedule.done(worker, pair):
                    self._fail(pair, pair.number, reason)
            case Lost(reason, opened):
                self._lose(worker, reason, opened)

    def _lose(self, worker: int, reason: str, opened: Collection[int]) -> None:
        self.crew.progress.note(f"a worker is gone, and what it was at is done again: {reason}")
        for pair in self.schedule.lost(worker, opened):
            self._fail(pair, -1, f"batch {pair.number}: {KILLS} workers died that ran it alone, the last: {reason}")
        self.crew.fill()

    def _fail(self, pair: Pair, number: int, reason: str) -> None:
        share = self.shares[pair.lane]
        if self.schedule.fail(pair.lane, pair.key, number):
            share.record.failed(share.record.cells[pair.key], number, reason)
            share.failed.add(pair.key)

    def _check_readable(self, worker: int, lane: int, errors: Sequence[ReadError]) -> None:
        """RequestError for samples that can be read here: cells would be scored on others, as they meet this node."""
        plan = self.shares[lane].record.lane.plan
        here = still_unreadable(plan, [{"id": error.id} for error in errors])
        for error in errors:
            if error.id not in here:
                host = self.crew.ready()[worker].host
                raise RequestError(f"node {host!r} cannot read what can be read here: {error}; give it the same data")


class _Supply:
    """The batches of a share in order, claimed when they are given out."""

    def __init__(self, share: Share) -> None:
        self.share, self.numbers, self.taken = share, sorted(share.numbers, reverse=True), False

    @property
    def left(self) -> int:
        return len(self.numbers)

    def take(self) -> tuple[int, Sequence[str]] | None:
        while self.numbers:
            number = self.numbers.pop()
            if keys := self.share.take(number):
                self.taken = True
                return number, keys
        return None


def assignments_of(lanes: Sequence[Lane]) -> dict[int, Assignment]:
    """What workers are told of plans, by their places."""
    return {
        place: Assignment(
            lane.plan.spec.model_dump(mode="json"),
            lane.plan.identity,
            {cell.key: cell.about["resolved_rate"] for cell in lane.cells},
            {cell.key: cell.batch_size for cell in lane.cells},
        )
        for place, lane in enumerate(lanes)
    }


@contextmanager
def beside(run: Callable[[Progress], None], progress: Progress) -> Iterator[Callable[[], None]]:
    """`run` in a thread; what is yielded waits for its end, and raises what it raised."""
    raised: list[BaseException] = []

    def attempt() -> None:
        try:
            run(progress)
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=attempt, name="count")
    thread.start()

    def end() -> None:
        thread.join()
        for error in raised:
            raise error

    try:
        yield end
    finally:
        thread.join()
