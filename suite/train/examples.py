"""Which samples an update sees, and how they are read: the same ones whatever was interrupted, or read by how many."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from suite.contract.shared_memory import share
from suite.contract.task import ReadError
from suite.errors import RequestError
from suite.sweep.ahead import read_ahead
from suite.train.numbers import Numbers
from suite.train.objective import Examples, Objective


def seed_of(*numbers: int) -> int:
    """64 bits that stand for `numbers`."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big")


def seed_all(*numbers: int) -> None:
    """Seed Python's, numpy's and torch's global random states from `numbers`."""
    seed = seed_of(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


class Order:
    """Samples of every update. Each pass visits them in an order drawn from the seed and the number of the pass."""

    def __init__(self, samples: int, recipe: Numbers, world: int = 1, rank: int = 0) -> None:
        self.samples, self.recipe, self.world, self.rank = samples, recipe, world, rank
        whole = recipe.batch_size * world
        # fewer samples than a batch: they are taken again
        self.updates_per_epoch = max(1, samples // whole)
        self._epoch: tuple[int, np.ndarray] | None = None

    @property
    def steps(self) -> int:
        return self.recipe.steps or self.recipe.epochs * self.updates_per_epoch

    def _order(self, epoch: int) -> np.ndarray:
        """Samples in the order of a pass; a repeated one stands beside itself, so that an update has it twice."""
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(self.samples)
        if self.recipe.repeated > 1:
            order = np.repeat(order, min(self.recipe.repeated, self.samples))[: self.samples]
        return np.resize(order, max(self.samples, self.recipe.batch_size * self.world))

    def update(self, step: int) -> list[tuple[int, int]]:
        """(number within training, sample) of every example of this process in update `step`."""
        epoch, place = divmod(step, self.updates_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        size, whole = self.recipe.batch_size, self._epoch[1]
        first = (place * self.world + self.rank) * size
        drawn = (step * self.world + self.rank) * size
        return [(drawn + i, int(sample)) for i, sample in enumerate(whole[first : first + size])]


class _Reader(Dataset):
    """Item (number, sample): the example, or the ReadError that says why there is none."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __getitem__(self, key: tuple[int, int]) -> tuple[str, tuple[Tensor, object] | ReadError]:
        number, index = key
        sample = self.objective.task.samples[index]
        seed_all(self.objective.recipe.seed, 1, number)
        try:
            return sample.id, self.objective.example(sample)
        except ReadError as error:
            return sample.id, error

    def collate(self, items: list) -> Examples | ReadError:
        bad = next((item for _, item in items if isinstance(item, ReadError)), None)
        if bad is not None:
            return bad
        images, targets = zip(*(item for _, item in items))
        batch = Examples(torch.stack(images), self.objective.join(targets), tuple(id for id, _ in items))
        if get_worker_info():
            share((batch.images, batch.targets))
        return batch


def read(objective: Objective, order: Order, first: int, workers: int) -> Iterator[Examples]:
    """Batches of the updates from `first` on. RequestError for a sample that cannot be read, MachineError as
    `read_ahead`."""
    reader = _Reader(objective)
    updates = (order.update(step) for step in range(first, order.steps))

    def make(updates: Iterable[list[tuple[int, int]]], workers: int) -> DataLoader:
        return DataLoader(reader, batch_sampler=updates, collate_fn=reader.collate, num_workers=workers)

    # without workers in this thread: the random states that examples are drawn from are the process'
    for batch in read_ahead(make, updates, workers) if workers else make(updates, 0):
        if isinstance(batch, ReadError):
            raise RequestError(f"training stops at an unreadable sample: {batch}; repair it or take it out of the data")
        yield batch


def parts(batch: Examples, count: int) -> Iterator[Examples]:
    """A batch in up to `count` parts of about the same size."""
    for rows in torch.arange(len(batch.ids)).tensor_split(min(count, len(batch.ids))):
        some = slice(int(rows[0]), int(rows[-1]) + 1)
        targets = tuple(t[some] for t in batch.targets) if isinstance(batch.targets, tuple) else batch.targets[some]
        yield Examples(batch.images[some], targets, batch.ids[some])


def move_to(device: torch.device, batch: Examples) -> Examples:
    """The batch on a device."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    targets = tuple(map(move, batch.targets)) if isinstance(batch.targets, tuple) else move(batch.targets)
    return replace(batch, images=move(batch.images), targets=targets)
