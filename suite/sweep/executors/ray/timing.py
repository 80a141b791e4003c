"""Timing by the workers of a cluster: a cell at a time on a device that does nothing else, all on one kind of it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from suite.errors import RequestError
from suite.sweep.executors.ray.cluster import PATIENCE, Crew, Lost, News
from suite.sweep.executors.ray.messages import Assignment, Measured, TimeOrder
from suite.sweep.executors.ray.units import KILLS
from suite.sweep.lane import Lane, StoredCell, drop_failed
from suite.sweep.progress import Progress
from suite.sweep.timing import files_of, find_untimed, keep


def time_lanes(crew: Crew, lanes: Sequence[Lane], assignments: Mapping[int, Assignment], progress: Progress) -> None:
    """Time what is not timed yet. A GPU has its own worker to time with; of the workers on a node's cores, one times,
    while the others have nothing to do."""
    if not any(files_of(lane.plan) for lane in lanes):
        return
    crew.wait()
    device = choose_device(crew, lanes, progress)
    if device is None:
        return
    _Timing(crew, lanes, assignments, device, progress).run()


def choose_device(crew: Crew, lanes: Sequence[Lane], progress: Progress) -> str | None:
    """The kind of device that all cells are timed on; None where they were timed on one that is not here.

    It is the one that is asked for, else the one that cells were timed on before, else the one that most workers have.
    RequestError for one that no worker has.
    """
    kinds = Counter(about.device for about in crew.ready().values())
    here = ", ".join(f"{number} of {kind!r}" for kind, number in kinds.items())
    asked = lanes[0].plan.spec.timing_device
    before = Counter(device for lane in lanes for cell in lane.cells for device in _timed_on(lane, cell))
    if asked:
        found = [kind for kind in kinds if asked.lower() in kind.lower()]
        if len(found) != 1:
            several = f"it is a part of the names of several that workers have: {' and '.join(found)}"
            which = several if found else "no worker has it"
            raise RequestError(f"timing_device {asked!r}: {which}; there are {here}")
        chosen = found[0]
    elif before:
        present = [device for device, _ in before.most_common() if device in kinds]
        if not present:
            progress.note(
                f"cells were timed on {before.most_common(1)[0][0]!r}, which no worker has (there are {here}); what is "
                "left is not timed; --timing-device times all of them on another one"
            )
            return None
        chosen = present[0]
    else:
        chosen = kinds.most_common(1)[0][0]
    progress.note(f"timing on {chosen}" + (f"; the workers have {here}" if len(kinds) > 1 else ""))
    return chosen


@dataclass
class _Job:
    lane: int
    cell: StoredCell
    files: dict[str, Sequence[str]]
    deaths: int = 0


def _jobs(lanes: Sequence[Lane], device: str) -> list[_Job]:
    jobs = []
    for place, lane in enumerate(lanes):
        for cell in drop_failed(lane.cells):
            files = {}
            for file in files_of(lane.plan):
                timing = find_untimed(lane.plan, [cell], file, device)
                if timing.cells:
                    files[file] = timing.runtimes
            if files:
                jobs.append(_Job(place, cell, files))
    return jobs


def _timed_on(lane: Lane, cell: StoredCell) -> set[str]:
    """The devices that a cell's speeds are of."""
    stored = [cell.folder.read(file) or {"runtimes": {}} for file in files_of(lane.plan)]
    return {speed["device"] for file in stored for speed in file["runtimes"].values() if speed.get("device")}


class _Timing:
    """Jobs, and which worker is at which."""

    def __init__(
        self, crew: Crew, lanes: Sequence[Lane], assignments: Mapping[int, Assignment], device: str, progress: Progress
    ) -> None:
        self.crew, self.assignments, self.device, self.progress = crew, assignments, device, progress
        self.jobs = deque(_jobs(lanes, device))
        self.at: dict[int, _Job] = {}
        self.seen = time.monotonic()

    def run(self) -> None:
        total = len(self.jobs)
        with self.progress.timing("cells", total) as advance:
            while self.at or (self.jobs and not self._given_up()):
                for worker in self._free():
                    self.at[worker] = job = self.jobs.popleft()
                    self.crew.tell(worker, self.assignments, [TimeOrder(job.lane, job.cell.key, job.files)])
                for worker in self.at:
                    if self.crew.is_free(worker):
                        self.crew.tell(worker, self.assignments)
                for worker, news in self.crew.news():
                    self._hear(worker, news)
                names = ", ".join(job.cell.name for job in self.at.values())
                advance(total - len(self.jobs) - len(self.at), total, names)

    def _free(self) -> Iterator[int]:
        """Workers that can time something now, as many as there are jobs."""
        nodes = {self.crew.members[worker].node for worker in self.at}
        for worker, about in self.crew.ready().items():
            node = self.crew.members[worker].node
            if not self.jobs or about.device != self.device:
                continue
            self.seen = time.monotonic()
            if worker in self.at or not self.crew.is_free(worker) or (self.crew.kind == "cpu" and node in nodes):
                continue
            nodes.add(node)
            yield worker

    def _given_up(self) -> bool:
        """Whether there has been no worker with the device for long."""
        if time.monotonic() - self.seen < PATIENCE:
            return False
        self.progress.note(
            f"{len(self.jobs)} cells are not timed: no worker has a {self.device!r} any more; the same command times "
            "them when there is one"
        )
        return True

    def _hear(self, worker: int, news: News) -> None:
        match news:
            case Measured(_, _, files):
                job = self.at.pop(worker)
                for file, timed in files.items():
                    keep([job.cell], file, timed)
            case Lost(reason, opened):
                if (lost := self.at.pop(worker, None)) is not None:
                    self._retry(lost, reason, lost.lane in opened)

    def _retry(self, job: _Job, reason: str, begun: bool) -> None:
        job.deaths += begun
        if job.deaths < KILLS:
            self.progress.note(f"a worker is gone, and {job.cell.name} is timed again: {reason}")
            self.jobs.append(job)
            return
        reason = f"{KILLS} workers died that timed it, the last: {reason}"
        job.cell.folder.fail(reason)
        self.progress.failed(job.cell.name, reason)
