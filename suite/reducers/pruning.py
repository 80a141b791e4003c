"""What pruning methods share: the predictor that scores tokens, the squeeze that saves what is pruned, and how both
are trained."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suite.reducers.signals import Signals
from suite.tokens.grouping import full_precision, take
from suite.tokens.layout import Layout
from suite.tokens.state import Matching, Tokens

NO_HOST = -100.0  # a cosine that no pair has, and whose exponential vanishes


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
        local, everywhere = x[..., :half], full_precision(x[..., half:])
        if policy is None:
            everywhere = everywhere.mean(1, keepdim=True)
        else:  # of a sample that has lost everything, the mean is 0
            everywhere = (everywhere * policy[..., None]).sum(1, keepdim=True)
            everywhere = everywhere / policy.sum(1).clamp(min=1)[:, None, None]
        x = torch.cat([local, everywhere.to(x.dtype).expand(-1, x.shape[1], -1)], dim=2)
        return full_precision(self.out_conv(x)).log_softmax(dim=-1)


class PredictedPruning(nn.Module):
    """What a method does that prunes by predictors, one for every stage; to be mixed into a Reducer.

    The method says in `take_out` what becomes of the tokens that go, and in `take_out_softly` the same in training.
    In training nobody goes: every token draws whether it stays, by its predictor's probabilities with Gumbel noise, and
    attention keeps off those that do not. What is drawn is 0 or 1; the gradient is that of the Gumbel-softmax
    (straight-through, temperature 1). How many stay is then up to the predictors, and a loss has to teach them:

    kept_shares: of the last forward in training, one (B,) a stage: which share of the original patches stays from there
        on, with its gradient.
    planned_shares: what the rate asks these to be, one number a stage. Stages that take nothing out are in neither.
    """

    rates = ("keep", "r")
    staged = True
    learned = "predictor"
    checkpoint_keys: ClassVar = {r"(score_predictor\..*)": r"\1"}

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
        prefix, predictor = tokens.num_prefix, self.score_predictor[signals.stage]
        if self.training:
            return self.prune_softly(tokens, predictor, signals.planned - prefix)
        score = predictor(tokens.x[:, prefix:])
        order = prefix + score.argsort(dim=1, descending=True, stable=True)
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
        """The tokens after a stage. staying (B, K), leaving (B, S): positions of all patches, best scores first."""
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


def squeeze(tokens: Tokens, staying: Tensor, leaving: Tensor) -> Tokens:
    """Fold every pruned token into the kept token that is most like it.

    staying (B, K), leaving (B, S): positions of all patch tokens; those that stay keep the order given. A host x with
    guests y of cosine c becomes (e x + sum e^c y) / (e + sum e^c), computed in float32 at least; a host without guests
    is copied bit for bit. A guest that is equally like several hosts goes to all of them and is owned by the first.
    Source: TPS (Wei et al., CVPR 2023, arXiv 2304.10716).
    """
    hosts, guests = take(tokens.x, staying), full_precision(take(tokens.x, leaving))
    with torch.autocast(tokens.x.device.type, enabled=False):
        wide = full_precision(hosts)
        likeness = unit(guests) @ unit(wide).transpose(1, 2)
        share = likeness.exp() * (likeness == likeness.amax(dim=2, keepdim=True))
        total = share.sum(1)[..., None]
        mixed = (math.e * wide + share.transpose(1, 2) @ guests) / (math.e + total)
    x = torch.where(total > 0, mixed.to(hosts.dtype), hosts)
    prefix = torch.arange(tokens.num_prefix, device=staying.device).expand(staying.shape[0], -1)
    matching = Matching(torch.cat([prefix, staying], 1), leaving, tokens.num_prefix + likeness.argmax(dim=2))
    return tokens.merge(matching, x=torch.cat([tokens.x[:, : tokens.num_prefix], x], dim=1))


def squeeze_softly(patches: Tensor, staying: Tensor, leaving: Tensor) -> Tensor:
    """`squeeze` where nobody goes: patches (B, T, C) with what leaves folded into what stays, each in its old place.

    staying, leaving: (B, T) 1 or 0. Those that leave keep their features beside, for whoever attends to them still
    (only themselves). A guest's weight is `leaving` e^c, so the gradient also reaches tokens that stay: what the host
    would gain by them if they left.
    """
    with torch.autocast(patches.device.type, enabled=False):
        wide = full_precision(patches)
        likeness = likeness_to_hosts(unit(wide), staying)
        share = likeness.exp() * (likeness == likeness.amax(dim=2, keepdim=True)) * leaving[..., None]
        mixed = (math.e * wide + share.transpose(1, 2) @ wide) / (math.e + share.sum(1)[..., None])
    return mixed.to(patches.dtype)


def likeness_to_hosts(rows: Tensor, staying: Tensor) -> Tensor:
    """(B, T, C) unit rows -> (B, T, T) cosines of each with every other that stays, `NO_HOST` with the rest."""
    itself = torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)
    return (rows @ rows.transpose(1, 2)).masked_fill((staying == 0)[:, None] | itself, NO_HOST)


class LearnedCounts(nn.Module):
    """How many patches stay in each block: a distribution over patches, patches - step, ... for every block, learned.

    The number is its mean, rounded up; the gradient is the mean's (straight-through). At first all counts are equally
    likely. Source: DiffRate (Chen et al., ICCV 2023, arXiv 2305.17997).
    """

    def __init__(self, depth: int, patches: int, step: int) -> None:
        super().__init__()
        self.patches, self.step = patches, step
        self.logits = nn.Parameter(torch.zeros(depth, len(range(patches, 0, -step))))

    @property
    def counts(self) -> Tensor:
        """(K,) float64 numbers of patches that are chosen among."""
        return torch.arange(self.patches, 0, -self.step, device=self.logits.device, dtype=torch.float64)

    def expected(self) -> Tensor:
        """(L,) float64 whole numbers of patches that stay in each block, with their gradient."""
        mean = self.logits.double().softmax(dim=1) @ self.counts
        return straight_through((mean - 1e-6).ceil(), mean)  # a rounding error is no token

    def stays(self, block: int) -> Tensor:
        """(patches,) of the logits' type, 1 where the first, second, ... best patch stays in a block, else 0.

        The gradient is that of the probability that a count is larger than the patch's place.
        """
        place = torch.arange(self.patches, device=self.logits.device)
        likely = (self.counts > place[:, None]).double() @ self.logits[block].double().softmax(dim=0)
        return straight_through((place < self.expected()[block]).to(self.logits), likely.to(self.logits))


def merge_softly(patches: Tensor, sizes: Tensor, staying: Tensor, leaving: Tensor) -> tuple[Tensor, Tensor]:
    """DiffRate's merge where nobody goes: every patch that leaves adds to the most similar of those that stay.

    patches (B, T, C), sizes (B, T); staying, leaving (B, T) 1 or 0. Returns features, plain means of the groups, and
    sizes, to which a token brings its own times the cosine, at least 1. No gradient flows through who goes where; that
    of `leaving` also reaches tokens that stay, as in `squeeze_softly`.
    """
    with torch.autocast(patches.device.type, enabled=False):
        wide = full_precision(patches)
        with torch.no_grad():
            cosine, host = likeness_to_hosts(F.normalize(wide, dim=2, eps=1e-12), staying).max(dim=2)
        share = F.one_hot(host, wide.shape[1]) * (leaving * (cosine > NO_HOST))[..., None]
        mixed = (wide + share.transpose(1, 2) @ wide) / (1 + share.sum(1)[..., None])
        brought = (sizes * cosine).clamp(min=1)
        return mixed.to(patches.dtype), sizes + (share * brought[..., None]).sum(1)


def unit(x: Tensor) -> Tensor:
    """Rows over their norms, with the 1e-6 on the norm that the authors add."""
    return x / (x.norm(dim=2, keepdim=True) + 1e-6)
