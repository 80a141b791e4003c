"""DiffRate: how many tokens each block prunes and merges, learned under FLOPs targets with the model frozen."""

from __future__ import annotations

from typing import ClassVar, cast

from pydantic import ValidatorFunctionWrapHandler, field_validator
from torch import Tensor, nn

from suite.errors import RequestError
from suite.rates.rate import FlopsTarget, TokensPerBlock, parse_target
from suite.reducers import diffrate
from suite.reducers.diffrate import LearnedCounts, together
from suite.sweep.spec import AskedRate, AskedTarget, split_list
from suite.train.numbers import FROZEN, Count, NotNegative, Positive
from suite.train.objective import Examples
from suite.train.recipe import Recipe, register
from suite.train.session import Session


@register
class DiffRate(Recipe):
    """One plan for each of `targets`, all in one training: updates take the targets in turn, and nothing that is
    learned is shared. The loss adds `flops_weight` times the squared distance from the target in GFLOPs.
    """

    method = "diffrate"
    source = "Chen et al., ICCV 2023, arXiv 2305.17997; the authors' commands. Epochs are those of all plans together"
    kinds: ClassVar = ("classification",)

    rate: AskedRate = TokensPerBlock(1)
    """Calls the method in every block; how many tokens leave is what is learned."""
    targets: tuple[AskedTarget, ...] = tuple(map(parse_target, ("-20%", "-35%", "-50%", "-60%")))
    epochs: Count = 12
    batch_size: Count = 256
    lr: Positive = 0.01
    min_lr: NotNegative = 0.001
    weight_decay: NotNegative = 0.0
    backbone: str = FROZEN
    mixup: NotNegative = 0.8
    cutmix: NotNegative = 1.0
    flops_weight: NotNegative = 5.0

    @field_validator("targets", mode="wrap")
    @classmethod
    def _below_zero(cls, value: object, read: ValidatorFunctionWrapHandler) -> tuple[FlopsTarget, ...]:
        try:
            targets = read(split_list(value) if isinstance(value, str) else value)
        except RequestError as error:
            raise ValueError(str(error)) from error
        if not targets or len(set(targets)) < len(targets) or any(target.is_zero for target in targets):
            raise ValueError("give one or more different changes of FLOPs below 0, such as -35%,-50%")
        return targets

    def begin(self, session: Session) -> None:
        layout, step = session.handle.layout, reducer_of(session).step
        for number in range(len(self.targets)):
            pair = [LearnedCounts(layout.depth, layout.num_patches, step) for _ in range(2)]
            session.extra[f"plan_{number}"] = nn.ModuleList(pair).to(session.device)
        self.take(session, 0)

    def take(self, session: Session, number: int) -> None:
        """Make the reducer learn the plan of this number."""
        pair = cast(nn.ModuleList, session.extra[f"plan_{number}"])
        reducer = reducer_of(session)
        reducer.prune_counts, reducer.merge_counts = (cast(LearnedCounts, counts) for counts in pair)

    def loss(self, session: Session, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        number = step % len(self.targets)
        self.take(session, number)
        session.set_modes(soft=True)
        labels = session.objective.loss(session.model, batch)
        reducer = reducer_of(session)
        macs, wanted = reducer.expected_macs(), (1 + self.change(number)) * reducer.baseline_macs
        cost = ((macs - wanted) / 1e9).square()
        reduction = macs.item() / reducer.baseline_macs - 1
        return labels + self.flops_weight * cost, {"labels": labels.item(), f"reduction_{number}": reduction}

    def change(self, number: int) -> float:
        return self.targets[number].change

    def collect_learned(self, session: Session) -> dict[str, Tensor]:
        states = []
        for number in range(len(self.targets)):
            self.take(session, number)
            states.append(reducer_of(session).learned_state(self.change(number)))
        return together(*states)


def reducer_of(session: Session) -> diffrate.DiffRate:
    return cast(diffrate.DiffRate, session.reducer)
