"""GTP-ViT: graph-based token propagation."""

from dataclasses import replace

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import remembered
from suite.tokens.grouping import full_precision, in_batch, take, take_rows
from suite.tokens.matching import diagonal, normalize
from suite.tokens.ranking import largest_first

GRAPHS = ("mixed", "spatial", "semantic")
SELECTIONS = (
    *("MixedAttnMax", "MixedAttnMean", "SumAttnMax", "DiagAttnMax", "DiagAttnMean"),
    *("IMGAttnMax", "IMGAttnMean", "CLSAttnMax", "CLSAttnMean"),
)


@register("gtp")
class GTP(Reducer):
    """Drop the least important patches of every block, but first add some of each to its neighbours in a graph.

    Source: Xu et al., WACV 2024, arXiv 2311.03035. The graph W is made once, of the embedded patches: a patch's
    neighbours are the eight around it, the `neighbours` most similar (cosine) or both, weighted by 1 / sqrt(degree of
    either). Kept patches stand by falling importance and gain alpha W times what is dropped; so do their scales, 1 at
    first, whose logarithm biases attention. Scales are kept as sizes, though they add up to no number of tokens; what
    is dropped has no owner. Attention maps are made explicitly in every block that drops something.

    When: what is dropped should leave something behind, and batches are large: maps are made explicitly.

    alpha: how much is propagated; the authors tune it with theta on ImageNet's validation set (0.1 to 0.4).
    graph: 'mixed', 'spatial' or 'semantic'.
    neighbours: of the semantic graph.
    scales: False leaves attention unbiased.
    selection: what importance is, by the authors' names: attention to itself (Diag), all that is received (IMG), their
        product (Mixed) or sum, what the class token pays (CLS); largest or mean over heads, each factor by itself.
    theta: below 1, the smallest 1 - theta of every map's entries are set to 0 in blocks that drop something, rows not
        rescaled. Many importances are 0 then, and of those the lower place stays.

    keep is the share of the patches present that each block keeps, rounded to the nearest number.
    """

    rates = ("r", "keep")
    reads_map = True
    carries = True
    exact_groups = False

    def __init__(
        self,
        alpha: float = 0.1,
        graph: str = "mixed",
        neighbours: int = 8,
        scales: bool = True,
        selection: str = "MixedAttnMax",
        theta: float = 1.0,
    ) -> None:
        super().__init__()
        for option, value, known in (("graph", graph, GRAPHS), ("selection", selection, SELECTIONS)):
            if value not in known:
                raise ValueError(f"{option}={value!r} is unknown; use {', '.join(known)}")
        if neighbours < 1 or not 0 < theta <= 1:
            raise ValueError("a patch has 1 neighbour or more, and theta lies above 0 and not above 1")
        self.alpha, self.graph, self.neighbours, self.theta = alpha, graph, neighbours, theta
        self.selection = selection
        self.needs_class_token = selection.startswith("CLS")
        self.proportional_attention = self.reads_sizes = scales

    def amount_for_keep(self, keep, stage, patches, origin):
        return round((1 - keep) * patches)

    def begin(self, tokens, embedded, grid):
        with torch.no_grad(), torch.autocast(embedded.device.type, enabled=False):
            patches = full_precision(embedded[:, tokens.num_prefix :])
            linked = neighbours_in_space(*grid, patches.device) if self.graph != "semantic" else None
            if linked is not None and len(linked) != patches.shape[1]:
                raise ValueError(f"'gtp' needs all {len(linked)} patches of the image, not {patches.shape[1]} of them")
            if self.graph != "spatial":
                alike = most_similar(patches, self.neighbours)
                linked = alike if linked is None else alike | linked
            return replace(tokens, carried=(weights_of(linked, patches.dtype).expand(len(patches), -1, -1),))

    def change_map(self, attention):
        return attention if self.theta == 1 else sparse(attention, self.theta)

    def after_attention(self, tokens, signals, amount):
        prefix, count, kept = tokens.num_prefix, tokens.count, tokens.num_patches - amount
        (graph,) = tokens.carried
        with torch.no_grad(), torch.autocast(tokens.x.device.type, enabled=False):
            order = largest_first(importance(signals.attention_map, prefix, self.selection))
            graph = take(graph, order[:, :kept]).gather(2, order[:, None].expand(-1, kept, -1))
            among, gain = graph.tensor_split([kept], dim=2)
            gain = self.alpha * gain
            staying, leaving = in_batch(order, count, prefix).tensor_split([kept], dim=1)
        left = tokens.keep_rows(staying)
        with torch.autocast(tokens.x.device.type, enabled=False):
            gained = torch.baddbmm(left.x[:, prefix:], gain.to(left.x.dtype), take_rows(tokens.x, leaving))
        x, size = torch.cat([left.x[:, :prefix], gained], dim=1), None
        if self.proportional_attention:
            scales = tokens.sizes
            gained = (gain @ take_rows(scales, leaving)[..., None])[..., 0]
            size = torch.cat([scales[:, :prefix], take_rows(scales, staying) + gained], dim=1)
        step = replace(left.steps[-1], mixed=True)
        return replace(left, x=x, size=size, carried=(among,), steps=(*left.steps[:-1], step))


@remembered
def neighbours_in_space(rows, columns, device):
    """(T, T) bool: the up to eight patches around each of a grid."""
    count = rows * columns
    pair = torch.arange(count * count, device=device)  # a product of all with all would be counted as cost
    one, other = pair // count, pair % count
    apart = torch.maximum((one // columns - other // columns).abs(), (one % columns - other % columns).abs())
    return (apart == 1).view(count, count)


def most_similar(patches, neighbours):
    """(B, T, C) -> (B, T, T) bool: for each row those of the largest cosines, more than `neighbours` where they tie."""
    unit = normalize(patches)
    cosine = unit @ unit.transpose(1, 2)
    least = cosine.topk(min(neighbours + 1, cosine.shape[2]), dim=2).values[..., -1:]  # itself is one of them
    return (cosine >= least) & ~diagonal(cosine.shape[2], cosine.device)


def weights_of(linked, dtype):
    """(..., T, T) bool -> D^-1/2 G D^-1/2, degrees being sums of rows on either side."""
    root = linked.sum(-1, dtype=dtype).clamp(min=1).rsqrt()
    return linked * root[..., :, None] * root[..., None, :]


def importance(attention, num_prefix, selection):
    """(B, H, N, N) maps -> (B, T) float32 at least, never below 0."""
    single = torch.promote_types(attention.dtype, torch.float32)
    largest, kind = selection.endswith("Max"), selection.removesuffix("Max").removesuffix("Mean")

    def over_heads(values):
        values = values[..., num_prefix:].to(single)
        return values.amax(1) if largest else values.mean(1)

    if kind == "CLSAttn":
        return over_heads(attention[:, :, 0])
    own = None if kind == "IMGAttn" else over_heads(attention.diagonal(dim1=2, dim2=3))
    received = None if kind == "DiagAttn" else over_heads(attention.sum(2, dtype=single))
    if own is None or received is None:
        return received if own is None else own
    return own + received if kind == "SumAttn" else own * received


def sparse(attention, theta):
    """(B, H, N, N) maps, entries strictly below the int(N^2 (1 - theta))-th smallest of each head set to 0."""
    entries = attention.flatten(2)
    number = int(entries.shape[2] * (1 - theta))
    if not number:
        return attention
    least = entries.kthvalue(number, dim=2, keepdim=True).values[..., None]
    return attention.masked_fill(attention < least, 0)
