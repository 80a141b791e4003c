"""One training: what a recipe does with a batch; the model with the reducer attached, what of both learns."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from suite.backbones import backbone_of
from suite.contract.task import Task
from suite.errors import RequestError
from suite.measure.flops_target import attach
from suite.rates.rate import Rate
from suite.reducers import make_reducer
from suite.sweep.progress import Progress
from suite.train.numbers import Numbers
from suite.train.objective import Examples, Objective
from suite.train.objectives import objective_class

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


class Recipe(Numbers):
    """The numbers of a method's training (`Numbers`), and in `loss` what is minimised."""

    def begin(self, session: Session) -> None:
        """Called once, when the reducer is attached and before anything is trained.

        What it finds out on samples it puts into `session.found`, and does not look for what is there already. Of a
        method that is measured (`measured_by`) that is all.
        """

    def terms(self, session: Session, batch: Examples, step: int) -> Tensor:
        """(n,) int64, what the means in `loss` are over that are not over samples: the numbers of `Examples.terms`.

        Asked for, without gradients and with the random states that `loss` will find, where an update has parts.
        """
        return session.objective.terms(batch)[None]

    def loss(self, session: Session, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        """What is minimised on a batch, and what is to be noted of it. Default: the task's loss through the reducer."""
        session.set_modes(soft=False)
        return session.objective.loss(session.model, batch), {}

    def rate_at(self, rate: Rate, epoch: float) -> Rate:
        """The rate of an update. rate: what `self.rate` was resolved to. epoch: how many passes were made before it."""
        return rate

    def collect_learned(self, session: Session) -> dict[str, Tensor]:
        """What the method has learned, by the names that the reducer reads."""
        return session.reducer.state_dict()


class Session:
    """What recipes work with.

    model: the whole model, with the reducer attached to its `backbone`. teacher: an unreduced copy of the model as it
    was before, where the recipe wants one. extra: what a recipe trains beside what the reducer holds at the time.
    found: what the recipe found out on samples before training; a checkpoint keeps it. workers: processes that read
    samples.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        recipe: Recipe,
        device: torch.device,
        *,
        found: Mapping[str, Tensor] | None = None,
        workers: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.task, self.model, self.recipe, self.device = task, model.to(device), recipe, device
        self.found: dict[str, Tensor] = dict(found or {})
        self.workers, self.progress = workers, progress or Progress(quiet=True)
        objective = objective_class(task)
        if objective.kind not in recipe.kinds:
            kinds = " or ".join(recipe.kinds)
            raise RequestError(f"{recipe.method!r} is trained on {kinds}, and task {task.name!r} is {objective.kind}")
        self.objective: Objective = objective(task, model, recipe)
        self.backbone = backbone_of(model)
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False) if recipe.needs_teacher else None
        self.original = {name: value.clone() for name, value in self.backbone.state_dict().items()}
        made = make_reducer(recipe.method, **recipe.reducer_options)
        self.handle = attach(model, made, recipe.rate)
        self.rate = self.handle.rate or recipe.rate  # what a FLOPs target came to
        self.reducer = made
        self.extra = nn.ModuleDict()
        self.backbone_parameters: dict[str, nn.Parameter] = {}
        if device.type == "cpu":
            self._explicit_attention()
        recipe.begin(self)
        self._choose_parameters()
        self._set_drop_path(recipe.drop_path)

    def _choose_parameters(self) -> None:
        self.model.requires_grad_(False)
        self.reducer.requires_grad_(True)
        if self.recipe.backbone:
            try:
                pattern = re.compile(self.recipe.backbone)
            except re.error as error:
                raise RequestError(f"backbone={self.recipe.backbone!r} is no regular expression: {error}") from error
            named = self.backbone.named_parameters()
            self.backbone_parameters = {name: p for name, p in named if pattern.search(name)}
            if not self.backbone_parameters:
                raise RequestError(f"backbone={self.recipe.backbone!r} matches none of the model's parameters")
        self.learn()
        if not self.trained and not self.recipe.measured_by:
            raise RequestError(
                f"nothing would be trained: {self.recipe.method!r} learns nothing itself and the backbone is frozen; "
                "give backbone=.*"
            )

    def _explicit_attention(self) -> None:
        """The backward of fused attention is the slower one on CPUs, several times in bfloat16."""
        for module in self.model.modules():
            if getattr(module, "fused_attn", False):
                vars(module)["fused_attn"] = False

    def _set_drop_path(self, rate: float) -> None:
        """Stochastic depth, growing linearly over the blocks as timm has it."""
        paths = [m for name, m in self.backbone.named_modules() if re.fullmatch(r"blocks\.\d+\.drop_path[12]?", name)]
        if rate and not paths:
            name = type(self.backbone).__bases__[-1].__name__
            raise RequestError(f"drop_path={rate}: {name} has no stochastic depth here; give drop_path=0")
        for name, module in list(self.backbone.named_modules()):
            if rate and (found := re.fullmatch(r"blocks\.(\d+)", name)):
                share = rate * int(found[1]) / max(1, len(cast(nn.Sequential, self.backbone.blocks)) - 1)
                for part in [part for part, _ in module.named_children() if part.startswith("drop_path")]:
                    setattr(module, part, DropPath(share) if share else nn.Identity())

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Everything that the optimiser is given, by name."""
        extra = {f"extra.{name}": p for name, p in self.extra.named_parameters()}
        known = {id(p) for p in extra.values()}
        own = {f"reducer.{name}": p for name, p in self.reducer.named_parameters() if id(p) not in known}
        return extra | own | {f"backbone.{name}": p for name, p in self.backbone_parameters.items()}

    def learn(self, reducer: bool = True, backbone: bool = True) -> None:
        """Which of the two the next loss reaches."""
        for parameter in self.reducer.parameters():
            parameter.requires_grad_(reducer)
        for parameter in self.backbone_parameters.values():
            parameter.requires_grad_(backbone)

    def set_modes(self, soft: bool) -> None:
        """Backbone in training mode where it learns; the method by its relaxation or as it is in evaluation."""
        self.model.train(bool(self.backbone_parameters))
        self.reducer.train(soft)

    def set_rate(self, rate: Rate) -> None:
        if rate != self.handle.rate:
            self.handle.rate = rate

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the head of a classifier reads, (B, C), and its logits (B, K)."""
        model = cast("VisionTransformer", self.model)
        read = model.forward_head(model.forward_features(images), pre_logits=True)
        return read, model.head(read)

    def make_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser: matrices are decayed, vectors and embeddings are not."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.trained.items():
            fixed = parameter.ndim < 2 or any(part in name for part in ("pos_embed", "cls_token", "dist_token"))
            scale = self.recipe.backbone_lr if name.startswith("backbone.") else 1.0
            decay = 0.0 if fixed else self.recipe.weight_decay
            groups.setdefault((scale, decay), []).append(parameter)
        return [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()]

    def collect_changed(self) -> dict[str, Tensor]:
        """What training may have changed of the backbone: its trained parameters, and buffers that moved with them."""
        state = self.backbone.state_dict()
        moved = {k: v for k, v in state.items() if k not in dict(self.backbone.named_parameters())}
        moved = {k: v for k, v in moved.items() if not torch.equal(v, self.original[k].to(v.device))}
        return {name: state[name] for name in self.backbone_parameters} | moved

    def collect_weights(self) -> dict[str, Tensor]:
        """What is saved: the method's own tensors by its own names, the backbone's under 'backbone.'."""
        self.set_modes(soft=False)
        own = self.recipe.collect_learned(self)
        return own | {f"backbone.{name}": value for name, value in self.collect_changed().items()}


def learning_rate(step: int, steps: int, recipe: Recipe, updates_per_epoch: int) -> float:
    """Linear warm-up from `min_lr`, then cosine decay to it, update by update."""
    warmup = min(round(recipe.warmup_epochs * updates_per_epoch), steps - 1)
    if step < warmup:
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


class Average:
    """Running average of parameters, p' = decay p' + (1 - decay) p. Young averages forget faster."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.updates = parameters, decay, 0
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self.parameters.items():
            self.values[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the parameters."""
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name] = kept

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)
