"""A recipe as a job of the loop: forward, backward, clip, step, average; on one device or, under torchrun, several."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from suite.train.examples import Order, move_to, parts, read, seed_all
from suite.train.loop import Diverged
from suite.train.objective import Examples
from suite.train.session import Average, Session, learning_rate


class _Loss(nn.Module):
    """The recipe's loss as a module of model and reducer, which is what DistributedDataParallel wraps."""

    session: Session

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.model, self.reducer, self.extra = session.model, session.reducer, session.extra
        self.__dict__["session"] = session  # no submodule, and the model would be listed twice

    def forward(self, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        return self.session.recipe.loss(self.session, batch, step)


class Fit:
    """The updates of one session. world, rank: processes that train together, and which of them this is."""

    def __init__(self, session: Session, identity: Mapping[str, Any], *, world: int = 1, rank: int = 0) -> None:
        self.session, self.recipe = session, session.recipe
        self.world, self.rank = world, rank
        self.order = Order(len(session.task.samples), self.recipe, world, rank)
        self.steps, self.identity = self.order.steps, identity
        groups = session.make_groups()
        self.optimiser = torch.optim.AdamW(groups, lr=self.recipe.lr, betas=(0.9, 0.999))
        self.average = Average(session.trained, self.recipe.ema) if self.recipe.ema else None
        self.loss: nn.Module = _Loss(session)
        if world > 1:
            ids = [session.device.index] if session.device.type == "cuda" else None
            self.loss = DistributedDataParallel(self.loss, device_ids=ids, find_unused_parameters=True)

    def start(self, step: int) -> None:
        self.batches = read(self.session.objective, self.order, step, self.session.workers)

    def update(self, step: int) -> dict[str, float]:
        began, recipe, session = time.monotonic(), self.recipe, self.session
        batch = next(self.batches)
        self._seed(step)
        batch = session.objective.prepare(move_to(session.device, batch))
        session.set_rate(recipe.rate_at(session.rate, step / self.order.updates_per_epoch))
        lr = learning_rate(step, self.steps, recipe, self.order.updates_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["scale"]
        noted = self._backward(batch, step)
        norm = self._clip_gradient()
        if not math.isfinite(norm):
            raise Diverged(self._describe_divergence("gradient", norm, step, batch))
        self.optimiser.step()
        if self.average:
            self.average.update()
        speed = len(batch.ids) / (time.monotonic() - began)
        return {**noted, "lr": lr, "gradient_norm": norm, "images_per_s": speed}

    def _backward(self, batch: Examples, step: int) -> dict[str, float]:
        """Gradients of a batch, part by part; the means of what is noted."""
        noted: dict[str, float] = {}
        self.optimiser.zero_grad(set_to_none=True)
        pieces = list(parts(batch, self.recipe.accumulate))
        divided = len(pieces) * self.world > 1
        terms = self._count_terms(pieces, step) if divided else None
        for number, part in enumerate(pieces):
            share = len(part.ids) / len(batch.ids)
            self._gather(number + 1 == len(pieces))
            if divided:
                self._seed(step, number)
            with self._autocast():
                loss, parts_of_loss = self.loss(replace(part, terms=terms), step)
            if not bool(torch.isfinite(loss)):
                raise Diverged(self._describe_divergence("loss", loss.item(), step, part))
            (loss * share).backward()
            for name, value in {"loss": loss.item(), **parts_of_loss}.items():
                noted[name] = noted.get(name, 0.0) + share * value
        return noted

    @torch.no_grad()
    def _count_terms(self, pieces: list[Examples], step: int) -> tuple[float, ...]:
        """What the means of the loss are over, per sample, in the whole update: all its parts in all processes."""
        found = []
        for number, part in enumerate(pieces):
            self._seed(step, number)
            with self._autocast():
                found.append(self.recipe.terms(self.session, part, step))
        counts, samples = torch.stack(found).sum(0), self.world * sum(len(part.ids) for part in pieces)
        if self.world > 1:
            torch.distributed.all_reduce(counts)
        return tuple(max(1, count) / samples for count in counts.tolist())

    def _seed(self, step: int, *part: int) -> None:
        seed_all(self.recipe.seed, 2, step, self.rank, *part)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.session.device.type, torch.bfloat16, enabled=self.recipe.amp)

    def _gather(self, last: bool) -> None:
        """Gradients of several processes meet with the last part alone."""
        if isinstance(self.loss, DistributedDataParallel):
            self.loss.require_backward_grad_sync = last

    def _clip_gradient(self) -> float:
        """Norm of the gradient, which is clipped if the recipe says so."""
        parameters = [p for p in self.session.trained.values() if p.grad is not None]
        return float(nn.utils.clip_grad_norm_(parameters, self.recipe.clip or math.inf))

    def _describe_divergence(self, what: str, value: float, step: int, batch: Examples) -> str:
        seen = ", ".join(batch.ids[:8]) + (f" and {len(batch.ids) - 8} more" if len(batch.ids) > 8 else "")
        return (
            f"the {what} is {value} in update {step + 1}, on samples {seen}; nothing was changed by it: train anew "
            "with a lower lr, with clip, or with --amp false"
        )

    def state_dict(self) -> dict[str, Any]:
        trained = {name: p.detach() for name, p in self.session.trained.items()}
        buffers = dict(self.session.backbone.named_buffers())
        average = self.average.state_dict() if self.average else None
        return {
            "trained": trained, "buffers": buffers, "optimiser": self.optimiser.state_dict(), "average": average,
            "found": self.session.found,
        }  # fmt: skip

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, parameter in self.session.trained.items():
            parameter.copy_(state["trained"][name])
        for name, buffer in self.session.backbone.named_buffers():
            buffer.copy_(state["buffers"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average:
            self.average.load_state_dict(state["average"])

    def finish(self) -> dict[str, Tensor]:
        """What was learned, by the names of a reducer's weights file; averaged weights where an average was kept."""
        if self.average:
            self.average.swap()
        self.session.set_rate(self.session.rate)
        return {name: value.detach().cpu().clone() for name, value in self.session.collect_weights().items()}
