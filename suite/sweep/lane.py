"""A plan that is being executed, with its run's folder and its cells there."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from suite.store.folder import CellFolder, RunFolder
from suite.sweep.changes import Contents
from suite.sweep.evaluate import Cell
from suite.sweep.plan import Plan

OF_DATA = ("task", "task_options", "data", "samples", "batch_size", "precision")
"""What of two runs' identities has to be equal for a decoded batch to serve both."""


@dataclass
class StoredCell(Cell):
    """A cell with its place in its run's folder, and what cell.json says of it."""

    folder: CellFolder
    about: dict[str, Any]

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.about["reducer"], self.about["rate"]) if part)


def drop_failed(cells: Sequence[StoredCell]) -> list[StoredCell]:
    """Those that have not failed."""
    return [cell for cell in cells if cell.folder.read("failed") is None]


@dataclass
class Lane:
    """One of the plans that are executed together. known: what the samples' files held when they were read before."""

    plan: Plan
    folder: RunFolder
    known: Contents
    cells: list[StoredCell] = field(default_factory=list)

    @cached_property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.plan.task.samples]

    @property
    def support_ids(self) -> list[str]:
        return [sample.id for sample in self.plan.task.support]

    @property
    def decoded_alike(self) -> Hashable:
        return decoded_alike(self.plan)


def decoded_alike(plan: Plan) -> Hashable:
    """Plans that are equal in this can share decoded batches."""
    same = {name: plan.identity[name] for name in OF_DATA}
    return repr(same), plan.task.preprocessing(plan.model, plan.spec.image_size)
