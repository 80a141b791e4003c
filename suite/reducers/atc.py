"""ATC: agglomerative token clustering."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import first_rows, positions
from suite.tokens.grouping import Matching, full_precision, in_batch, with_prefix
from suite.tokens.matching import diagonal, normalize, the_others

FAR = 4.0  # from itself, and from who is merged away; no two are farther apart than 2
LINKAGES = ("average", "complete", "single")


@register("atc")
class ATC(Reducer):
    """Merge the two nearest clusters of patches again and again, until as many are left as the rate says.

    Source: Haurum et al., ECCV 2024, arXiv 2409.11923. Distances of patches are 1 - cosine of keys averaged over heads,
    and those of clusters follow from them by the linkage alone; each cluster becomes the average of its tokens by
    size, in the place of its first. A rate r takes exactly r patches out of every block (the authors' r takes r - 1).

    When: the quality of few merges counts more than speed: each is a round of small kernels.

    The clusters are the literal algorithm's, found where the model runs without waiting for the CPU: every merge is a
    dozen small kernels on all images at once, which a GPU launches one after the other.

    linkage: distance of two clusters, the 'average' over all pairs, 'complete' (the largest) or 'single' (the
        smallest). The authors use complete for DeiT, average for MAE, single for dense tasks.
    proportional_attention: False also forgets sizes, so that all averages are plain.
    """

    rates = ("keep", "r")
    staged = True

    def __init__(self, linkage: str = "average", proportional_attention: bool = True) -> None:
        super().__init__()
        if linkage not in LINKAGES:
            raise ValueError(f"linkage={linkage!r} is unknown; use {', '.join(LINKAGES)}")
        self.linkage = linkage
        self.proportional_attention = self.reads_sizes = proportional_attention

    def after_attention(self, tokens, signals, amount):
        prefix, count = tokens.num_prefix, tokens.count
        with torch.no_grad(), torch.autocast(tokens.x.device.type, enabled=False):
            apart = distances(signals.keys[:, prefix:])
            into, gone = agglomerate(apart, amount, self.linkage)
            kept, cluster = clusters_of(into, gone, count - prefix)
        rows = with_prefix(count, prefix, in_batch(kept, count, prefix))
        matching = Matching.of_rows(rows, in_batch(gone, count, prefix), cluster, count, prefix)
        return tokens.merge(matching, plain=not self.proportional_attention)


def distances(keys):
    """(B, T, d) -> (B, T, T) float32 at least: 1 - cosine, symmetric to the last bit, `FAR` on the diagonal."""
    keys = normalize(full_precision(keys))
    upper = torch.triu(1 - keys @ keys.transpose(1, 2), diagonal=1)
    return (upper + upper.transpose(1, 2)).masked_fill_(diagonal(keys.shape[1], keys.device), FAR)


def agglomerate(apart, merges, linkage):
    """Distances (B, T, T), which are written over -> two (B, merges): into which patch's cluster which other's goes.

    A cluster goes by its first patch. Of equally near pairs the first one merges.
    """
    batch, count, _ = apart.shape
    pairs_of, rows, begin = apart.flatten(1), apart.flatten(0, 1), first_rows(batch, count, 0, apart.device)
    nobody = torch.full_like(apart[:, :1], FAR)
    size = torch.ones_like(apart[..., 0])
    pairs = []
    for _ in range(merges):
        nearest = pairs_of.argmin(dim=1, keepdim=True)
        pair = torch.cat([nearest // count, nearest % count], dim=1)
        places = (begin + pair).flatten()
        both = rows.index_select(0, places).unflatten(0, (batch, 2))
        if linkage == "average":
            sizes = size.gather(1, pair)
            total = sizes.sum(1, keepdim=True)
            joined = torch.lerp(both[:, 0], both[:, 1], sizes[:, 1:] / total)
            size.scatter_(1, pair[:, :1], total)
        else:
            joined = both.amin(dim=1) if linkage == "single" else both.amax(dim=1)
        joined = torch.cat([joined.scatter_(1, pair, FAR)[:, None], nobody], dim=1)
        rows.index_copy_(0, places, joined.flatten(0, 1))
        apart.scatter_(2, pair[:, None].expand(-1, count, -1), joined.transpose(1, 2))
        pairs.append(pair)
    into, gone = torch.stack(pairs, dim=2).unbind(1)
    return into, gone


def clusters_of(into, gone, count):
    """What `agglomerate` returns -> the first patch of each cluster, ascending (B, K); clusters of `gone` (B, S)."""
    place = positions(0, count, 1, gone.device).expand(gone.shape[0], -1)
    parent = place.scatter(1, gone, into)
    for _ in range(int(gone.shape[1]).bit_length()):  # each halves the way to the first patch
        parent = parent.gather(1, parent)
    alive = parent == place
    return the_others(gone, count), alive.cumsum(1).gather(1, parent.gather(1, gone)) - 1
