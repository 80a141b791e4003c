"""DTEM: Token Merging by a learned embedding of its own."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from suite.reducers.base import Reducer, register, yes_no_or_default
from suite.tokens.matching import bipartite_soft_matching
from suite.tokens.soft_matching import soft_grouping, soft_merge, split

LARGE = 1024
METRICS = "embedding", "keys"


@register("dtem")
class DTEM(Reducer):
    """Merge the r most similar tokens of every block, similar by a learned embedding that nothing else uses.

    Source: Lee and Hong, NeurIPS 2024, arXiv 2412.10569. The embedding is one affine map per block of what queries and
    keys are made of. In training tokens are merged softly: all stay, with real-valued sizes, attention is
    proportional to sizes, and the gradient reaches the embeddings alone, for their input is detached. The last block's
    embedding learns nothing where the head reads the class token, which is never merged.

    When: minutes of training can be had, and the more so the more is to be taken out.

    feat_dim: width of the embedding; None: the heads' width, twice that in models of width 1024 and more.
    proportional_attention: in evaluation; default on, but off for MAE models as the authors have it.
    tau1, tau2, top: temperatures of the similarity and of the choice in training, and how many candidates a token has.
    metric: 'keys' merges by the keys' mean over heads and learns nothing of its own: ToMe with a relaxation, whose
        gradient reaches the backbone. What the embedding is worth shows beside it (the paper's ablation).
    """

    learned: str | None = "embedding"
    checkpoint_keys: ClassVar = {r"blocks\.(\d+)\.attn\.qkv\.metric_layer\.(weight|bias)": r"embeddings.\1.\2"}
    weighted_pooling = True

    def __init__(
        self,
        feat_dim: int | None = None,
        proportional_attention: bool | None = None,
        tau1: float = 0.1,
        tau2: float = 0.1,
        top: int = 3,
        metric: str = "embedding",
    ) -> None:
        super().__init__()
        if feat_dim is not None and (type(feat_dim) is not int or feat_dim < 1):
            raise ValueError("feat_dim is a number of dimensions, at least 1, or None for the heads' width")
        if min(tau1, tau2) <= 0 or top < 1:
            raise ValueError("temperatures are above 0, and top is at least 1")
        if metric not in METRICS or (metric == "keys" and feat_dim is not None):
            raise ValueError(f"metric is one of {', '.join(METRICS)}, and feat_dim goes with an embedding alone")
        self.feat_dim, self.tau1, self.tau2, self.top, self.metric = feat_dim, tau1, tau2, top, metric
        if metric == "keys":
            self.learned = None
        self.proportional_attention = yes_no_or_default(proportional_attention)
        self.embeddings = nn.ModuleList()

    @property
    def proportional_attention(self):
        """Always in training, where tokens that were merged away are there still."""
        return True if self.training else self._proportional

    @proportional_attention.setter
    def proportional_attention(self, wanted):
        self._proportional = wanted

    @property
    def soft(self):
        return self.training

    def build(self, layout, stages):
        """One embedding per block, whichever blocks are active: trained once, used at every rate."""
        if self.metric == "keys":
            return
        dim = self.feat_dim or layout.head_dim * (2 if layout.width >= LARGE else 1)
        made = {(embedding.in_features, embedding.out_features) for embedding in self.embeddings}
        if made - {(layout.width, dim)}:
            raise ValueError(f"its embeddings {made} are another model's; this one needs {(layout.width, dim)}")
        self.grow(self.embeddings, layout.depth, lambda: nn.Linear(layout.width, dim))

    def extra_projection(self, block):
        if self.metric == "keys":
            return None
        embedding = self.embeddings[block]
        return embedding.weight, embedding.bias

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def after_attention(self, tokens, signals, amount):
        if self.training:
            return self.merge_softly(tokens, signals, amount)
        metric = signals.keys if self.metric == "keys" else signals.extra
        return tokens.merge(bipartite_soft_matching(metric, amount, protected=tokens.num_prefix))

    def merge_softly(self, tokens, signals, amount):
        """The tokens with `amount` of them merged away softly; `tokens.active` says how many still take part."""
        protected, active = tokens.num_prefix, tokens.active or tokens.count
        r = min(amount, (active - protected) // 2)
        metric = signals.keys if self.metric == "keys" else self._embedded(signals)
        grouping = soft_grouping(*split(metric, active, protected), r, self.tau1, self.tau2, self.top)
        x, size, flow = soft_merge(tokens.x, tokens.sizes, grouping, active, protected)
        return tokens.soften(x, size, active - r, flow)

    def _embedded(self, signals):
        """(B, N, D) the embedding of detached features, whatever autocast says in its own precision."""
        weight, bias = self.extra_projection(signals.block)
        with torch.autocast(weight.device.type, enabled=False):
            return F.linear(signals.normed.detach().to(weight.dtype), weight, bias)
