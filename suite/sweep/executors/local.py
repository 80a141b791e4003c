"""The work of a run, done by this process, beside others that were given a command for the same folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch

from suite.measure.precision import dtype_of
from suite.sweep.evaluate import Work, evaluate
from suite.sweep.executors.share import Share, work_off
from suite.sweep.images import load
from suite.sweep.lane import Lane
from suite.sweep.pace import seconds_per_image
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress
from suite.sweep.timing import time_lane


class Local:
    """This process, on one device, which the plans name.

    leads: without it, it only helps another process with the evaluation.
    """

    kind = None

    def __init__(self, leads: bool = True) -> None:
        self.leads = leads

    def evaluate(self, lanes: Sequence[Lane], count: Callable[[Progress], None], progress: Progress) -> None:
        count(progress)
        for lane in lanes:
            lane.plan.model.to(dtype_of(lane.plan.spec.precision))
        evaluate_lanes(lanes, lanes[0].plan.device, progress)

    def paces(self, plan: Plan) -> list[float]:
        return [seconds_per_image(plan)]

    def time(self, lanes: Sequence[Lane], progress: Progress) -> None:
        for lane in lanes:
            time_lane(lane, lane.plan.device, progress)


def evaluate_lanes(lanes: Sequence[Lane], device: torch.device, progress: Progress) -> None:
    """Score every sample that a cell has no stored outcome for. Batches are decoded once for all lanes that can share
    them; RequestError for a sample whose file changed meanwhile."""
    order = {key: place for place, key in enumerate(dict.fromkeys(lane.decoded_alike for lane in lanes))}
    for _, alike in groupby(sorted(lanes, key=lambda lane: order[lane.decoded_alike]), lambda lane: lane.decoded_alike):
        _evaluate_alike(list(alike), device, progress)


def _evaluate_alike(lanes: Sequence[Lane], device: torch.device, progress: Progress) -> None:
    plan, batches = lanes[0].plan, lanes[0].plan.batches

    def work(shares: Sequence[Share]) -> bool:
        works = [_work_of(share) for share in shares]
        numbers = sorted(set().union(*(share.numbers for share in shares)))
        taken = _taken(shares, works, numbers)
        evaluate(works, load(plan, batches, taken, device.type == "cuda", progress.note), device, progress.note)
        return any(work.todo[key] for work in works for key in work.todo)

    work_off(lanes, work, progress)


def _work_of(share: Share) -> Work:
    """Nothing of it is taken yet."""
    return Work(share.record.lane.plan, share.alive, {key: set() for key in share.todo}, share.record, share.failed)


def _taken(shares: Sequence[Share], works: Sequence[Work], numbers: Sequence[int]) -> Iterator[int]:
    """The batches that this process does, taken as late as it can be."""
    for number in numbers:
        taken = False
        for share, work in zip(shares, works, strict=True):  # every lane takes what it can
            for key in share.take(number):
                work.todo[key].add(number)
                taken = True
        if taken:
            yield number
