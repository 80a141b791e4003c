"""What methods share that prune by predictors: the predictor that scores tokens, and how it is trained."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suite.reducers.base import Reducer
from suite.reducers.signals import Signals
from suite.tokens.grouping import full_precision, in_batch
from suite.tokens.layout import Layout
from suite.tokens.state import Tokens


class ScorePredictor(nn.Module):
    """Scores patch tokens by what each holds and by what all hold together.

    Source: DynamicViT (Rao et al., NeurIPS 2021, arXiv 2106.02034); TPS uses the same. Parameters are
    named as in both authors' checkpoints.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Patch tokens (B, T, C) -> (B, T) float32 at least, the logarithm of the probability that each is kept."""
        return self.log_probabilities(x)[..., 0]

    def log_probabilities(self, x: Tensor, policy: Tensor | None = None) -> Tensor:
        """Patch tokens (B, T, C) -> (B, T, 2) float32 at least, those of being kept and of being pruned.

        policy: (B, T) 0 for tokens that were pruned softly before and say nothing about the others; None: none was.
        """
        x = self.in_conv(x)
        half = x.shape[2] // 2
        if policy is None:  # what a token holds itself is passed on in place
            single = torch.promote_types(x.dtype, torch.float32)
            x[..., half:] = x[..., half:].mean(1, keepdim=True, dtype=single)
        else:  # of a sample that has lost everything, the mean is 0
            everywhere = (full_precision(x[..., half:]) * policy[..., None]).sum(1, keepdim=True)
            everywhere = everywhere / policy.sum(1).clamp(min=1)[:, None, None]
            x = torch.cat([x[..., :half], everywhere.to(x.dtype).expand(-1, x.shape[1], -1)], dim=2)
        return full_precision(self.out_conv(x)).log_softmax(dim=-1)


class PredictedPruning(Reducer):
    """What a method does that prunes by predictors, one for every stage.

    The method says in `take_out` what becomes of the tokens that go, and in `take_out_softly` the same in training.
    In training nobody goes: every token draws whether it stays, by its predictor's probabilities with Gumbel noise, and
    attention keeps off those that do not. What is drawn is 0 or 1; the gradient is that of the Gumbel-softmax
    (straight-through, temperature 1). How many stay is then up to the predictors, and a loss has to teach them:

    kept_shares: of the last forward in training, one (B,) a stage: which share of the original patches stays from there
        on, with its gradient.
    planned_shares: what the rate asks these to be, one number a stage. Stages that take nothing out are in neither.
    """

    rates: ClassVar[tuple[str, ...]] = ("keep", "r")
    staged = True
    reads_sizes = False
    learned: str | None = "predictor"
    checkpoint_keys: ClassVar[dict[str, str]] = {r"(score_predictor\..*)": r"\1"}

    def __init__(self) -> None:
        super().__init__()
        self.score_predictor = nn.ModuleList()
        self.kept_shares: list[Tensor] = []
        self.planned_shares: list[float] = []

    def __getstate__(self) -> dict[str, Any]:
        # what the last forward left behind holds a graph, which cannot be copied
        return {**self.__dict__, "kept_shares": [], "planned_shares": []}

    @property
    def soft(self) -> bool:
        return self.training

    def build(self, layout: Layout, stages: int) -> None:
        self.grow(self.score_predictor, stages, lambda: ScorePredictor(layout.width))

    def before_block(self, tokens: Tokens, signals: Signals, amount: int) -> Tokens:
        prefix, predictor = tokens.num_prefix, cast(ScorePredictor, self.score_predictor[signals.stage])
        if self.training:
            if signals.planned is None:
                raise ValueError("a rate that does not say how many tokens stay cannot be trained at")
            return self.prune_softly(tokens, predictor, signals.planned - prefix)
        order = predictor(tokens.x[:, prefix:]).argsort(dim=1, descending=True, stable=True)
        order = in_batch(order, tokens.count, prefix)
        return self.take_out(tokens, order[:, :-amount], order[:, -amount:])

    def prune_softly(self, tokens: Tokens, predictor: ScorePredictor, planned: int) -> Tokens:
        """All tokens, with the policy of this stage; `planned` of the patches are to stay in evaluation."""
        prefix, (fixed, patches) = tokens.num_prefix, tokens.x.tensor_split([tokens.num_prefix], dim=1)
        if tokens.policy is None:  # the first stage of this forward
            self.kept_shares, self.planned_shares = [], []
        policy = torch.ones_like(tokens.sizes) if tokens.policy is None else tokens.policy
        before = policy[:, prefix:]
        staying = before * drawn(predictor.log_probabilities(patches, before))
        self.kept_shares.append(staying.mean(1))
        self.planned_shares.append(planned / (tokens.origin - prefix))
        x = torch.cat([fixed, self.take_out_softly(patches, staying, before - staying)], dim=1)
        return tokens.mask(torch.cat([policy[:, :prefix], staying], dim=1), x)

    def take_out(self, tokens: Tokens, staying: Tensor, leaving: Tensor) -> Tokens:
        """The tokens after a stage. staying (B, K), leaving (B, S): rows of the batch, best scores first."""
        raise NotImplementedError

    def take_out_softly(self, patches: Tensor, staying: Tensor, leaving: Tensor) -> Tensor:
        """Patches (B, T, C) -> what they are afterwards. staying, leaving: (B, T) 1 for those that do so here."""
        raise NotImplementedError


def drawn(log_probabilities: Tensor) -> Tensor:
    """(B, T, 2) -> (B, T) 1 where the first of two is drawn, else 0; the gradient is that of the Gumbel-softmax."""
    soft = F.gumbel_softmax(log_probabilities, dim=-1)
    return straight_through((soft[..., 0] >= soft[..., 1]).to(soft.dtype), soft[..., 0])


def straight_through(value: Tensor, soft: Tensor) -> Tensor:
    """`value`, to the last bit, with the gradient of `soft`."""
    return value + (soft - soft.detach())
