"""The images of a plan, decoded and preprocessed: batch by batch for evaluation, a few for counting and timing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from suite.contract.task import Batch, Reader, ReadError, Sample, collate, views_of
from suite.errors import RequestError
from suite.sweep.ahead import read_ahead
from suite.sweep.cached import cached
from suite.sweep.plan import Plan


def load(
    plan: Plan,
    batches: Sequence[Sequence[Sample]],
    numbers: Iterable[int],
    pinned: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[int, Batch]]:
    """Some of the batches, by their numbers, decoded, in order, read ahead by worker processes; see `read_ahead`.

    numbers: asked for when there is room to read ahead, by another thread. pinned: in memory that a GPU can copy from
    by itself.
    """
    starts = [0, *accumulate(map(len, batches))]
    samples = [sample for batch in batches for sample in batch]
    begun: deque[int] = deque()

    def groups() -> Iterator[list[int]]:
        for number in numbers:
            begun.append(number)
            yield list(range(starts[number], starts[number + 1]))

    reader = Reader(plan.task, samples, cached_preprocessing(plan))
    workers = plan.spec.workers if plan.spec.workers is not None else min(8, (os.cpu_count() or 1) // 2)

    def loader(groups: Iterable[list[int]], workers: int) -> DataLoader[tuple[Sample, Tensor | ReadError]]:
        # batch_sampler: a generator, so that nothing is decided before the loader asks
        return DataLoader(reader, batch_sampler=groups, collate_fn=collate, num_workers=workers, pin_memory=pinned)

    for batch in read_ahead(loader, groups(), min(workers, len(batches)), note):
        yield begun.popleft(), batch


def cached_preprocessing(plan: Plan) -> Any:
    """What makes the plan's images into its model's input, with the pictures that are kept of them."""
    return cached(plan.spec, plan.task, plan.task.preprocessing(plan.model, plan.spec.image_size))


def sample_images(plan: Plan, count: int) -> Tensor:
    """(B, 3, H, W) up to `count` readable samples, evenly spaced over the data. RequestError if none can be read."""
    samples = plan.task.samples
    errors: list[ReadError] = []
    spaced = samples[:: max(1, len(samples) // count)][:count]
    others = (sample for sample in samples if sample not in spaced)
    images = list(islice(readable(plan, chain(spaced, others), errors), len(spaced)))
    if not images:
        raise RequestError(f"no image can be read; the last one: {errors[-1]}")
    return torch.stack(images)


def timing_batch(plan: Plan) -> Tensor | None:
    """(batch_size, 3, H, W) real images, repeated in turn where the data hold fewer; None if none can be read."""
    size = plan.spec.batch_size
    images = list(islice(readable(plan, plan.task.samples, []), size))
    return torch.stack([images[i % len(images)] for i in range(size)]) if images else None


def readable(plan: Plan, samples: Iterable[Sample], errors: list[ReadError]) -> Iterator[Tensor]:
    """Preprocessed images (3, H, W) of what can be read; the rest goes to `errors`, for the evaluation records it.

    Of a sample of several views, the first.
    """
    preprocessing = cached_preprocessing(plan)
    for sample in samples:
        try:
            yield views_of(plan.task.load(sample, preprocessing))[0]
        except ReadError as error:
            errors.append(error)
