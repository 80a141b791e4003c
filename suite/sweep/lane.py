"""A plan that is being executed, with its run's folder and its cells."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from suite.contract.task import Sample
from suite.store.folder import RunFolder
from suite.sweep.changes import Contents
from suite.sweep.evaluate import Cell
from suite.sweep.plan import Plan

OF_DATA = ("task", "task_options", "data", "samples", "batch_size", "precision")
"""What of two runs' identities has to be equal for a decoded batch to serve both."""


@dataclass
class Lane:
    """One of the plans that are executed together. known: what the samples' files held when they were read before."""

    plan: Plan
    folder: RunFolder
    known: Contents
    cells: list[Cell] = field(default_factory=list)

    @property
    def batches(self) -> list[Sequence[Sample]]:
        samples, size = self.plan.task.samples, self.plan.spec.batch_size
        return [samples[i : i + size] for i in range(0, len(samples), size)]

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.plan.task.samples]

    @property
    def decoded_alike(self) -> Hashable:
        """Lanes that are equal in this can share decoded batches."""
        plan = self.plan
        same = {name: plan.identity[name] for name in OF_DATA}
        return repr(same), plan.task.preprocessing(plan.model, plan.spec.image_size)
