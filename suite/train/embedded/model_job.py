"""What the trainings of the embedded models share: each is a job of the one loop, with a command line."""

from __future__ import annotations

import argparse
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from suite.measure.heap import keep_freed_memory
from suite.train.loop import Diverged
from tasks.scenes.generator import VERSION

CLIP = 1.0  # largest norm of the gradient


class ModelRecipe(Protocol):
    """Everything that decides what is learned: a dataclass whose fields are flags of the command line."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int: ...


class ModelJob(ABC):
    """The updates of one training: a batch drawn from the number of the update, its loss, clipped gradients, AdamW."""

    def __init__(self, recipe: ModelRecipe, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.model, self.optimiser = model, optimiser
        self.steps = recipe.steps
        self.identity: Mapping[str, Any] = {
            "training": type(self).__name__,
            "recipe": asdict(recipe),
            "generator_version": VERSION,
        }

    @abstractmethod
    def learning_rates(self, step: int) -> Sequence[float]:
        """Of the optimiser's groups in update `step`."""

    @abstractmethod
    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of the batch of update `step`, and what is to be noted of it. The model is in training mode."""

    def start(self, step: int) -> None:  # noqa: B027  a batch is drawn when its update comes
        """There is nothing to prepare."""

    def update(self, step: int) -> dict[str, float]:
        rates = self.learning_rates(step)
        for group, lr in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = lr
        self.model.train()
        loss, noted = self.loss(step)
        self.optimiser.zero_grad()
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), CLIP))
        if not math.isfinite(norm):
            raise Diverged(f"the gradient is {norm} in update {step + 1}; train anew with a lower lr")
        self.optimiser.step()
        return {"loss": loss.item(), **noted, "lr": rates[-1], "gradient_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])


def run_command_line(about: str, recipe: ModelRecipe, train: Callable[..., None], out: str, every: int) -> None:
    """Parse --out, --cache and the recipe's fields, and call `train(recipe, out, cache, every, workers, compiled)`."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--cache", type=Path, required=True, help="folder for drawn scenes and the checkpoint")
    parser.add_argument("--every", type=int, default=every, help="steps between snapshots")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the blocks (needs a C++ compiler)")
    for name, value in asdict(recipe).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    recipe = replace(recipe, **{name: getattr(given, name) for name in asdict(recipe)})
    train(recipe, given.out, given.cache, given.every, given.threads, given.compile)
