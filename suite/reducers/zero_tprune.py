"""Zero-TPrune: patches ranked by a weighted PageRank on the attention graph."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import positions, remembered
from suite.tokens.grouping import full_precision, in_batch, take
from suite.tokens.matching import ascending, normalize, the_others
from suite.tokens.products import cosines
from suite.tokens.ranking import best_first, largest_first

ITERATIONS = (50, 5, 1)  # in the first, second and last third of the blocks
SIMILAR = 0.05  # of the patches present


@register("zero_tprune")
class ZeroTPrune(Reducer):
    """Drop patches that nearly repeat more important ones, then the least important; importance is a PageRank.

    Source: Wang et al., CVPR 2024, arXiv 2305.17328; read in its abstract and in a summary by others, for its authors'
    code could not be had. The graph is the attention map of the block before: every token hands its score to others in
    proportion to its attention. Scores of heads are scaled to a mean of 1 over patches and combined as root mean square
    of the heads whose variance lies in [v_min, v_max]; if none does, of all. A first ranking of one iteration halves
    the patches; of the lower half those most similar (cosine of keys averaged over heads) to one of the upper are
    dropped; what is left is ranked anew on its part of the map, rows made to sum to 1 again. Decided here, for it is
    open: that scaling, the keys' average, the rows, the numbers below. Kept patches stay in order; sizes play no role.
    Block 0, which none goes before, cannot be reduced.

    When: nothing can be trained, there is no class token to go by, and maps can be afforded.

    similar: how many patches go for their similarity, a number or a list of one for each block that the rate acts in;
        default 5 % of those present. What else the rate takes out goes for its rank.
    iterations: of the second ranking, likewise; default 50, 5 and 1 in the first, second and last third of the blocks.
    v_min, v_max: see above.

    keep=0.7 keeps that share of what the similar ones leave.
    """

    rates = ("keep", "r")
    staged = True
    reads_sizes = False
    reads_map = reads_previous = True
    first_block = 1

    def __init__(
        self,
        similar: int | list[int] | None = None,
        iterations: int | list[int] | None = None,
        v_min: float = 0.01,
        v_max: float = 0.7,
    ) -> None:
        super().__init__()
        self.similar, self.iterations = checked("similar", similar), checked("iterations", iterations)
        self.bounds = v_min, v_max

    def build(self, layout, stages):
        for name, numbers in (("similar", self.similar), ("iterations", self.iterations)):
            if isinstance(numbers, tuple) and len(numbers) < stages:
                raise ValueError(f"{name} lists {len(numbers)} numbers, but the rate acts in {stages} blocks")

    def similar_of(self, stage, patches):
        """How many of so many patches go for their similarity, at most the lower half."""
        asked = int(SIMILAR * patches) if self.similar is None else of_stage("similar", self.similar, stage)
        return min(asked, patches // 2)

    def amount_for_keep(self, keep, stage, patches, origin):
        return patches - int(keep * (patches - self.similar_of(stage, patches)))

    def observe(self, tokens, signals):
        # where tokens are given back: each one the row of its owner, and in it an equal share of its owner's column
        by_column = tokens.pass_on(signals.attention_map.transpose(1, 3), shared=True)
        by_row = tokens.pass_on(by_column.transpose(1, 2))
        return by_row.movedim(3, 1), tokens.pass_on(signals.keys)

    def before_block(self, tokens, signals, amount):
        prefix, patches = tokens.num_prefix, tokens.num_patches
        similar = min(amount, self.similar_of(signals.stage, patches))
        iterations = of_stage("iterations", self.iterations, signals.stage)
        if iterations is None:
            iterations = ITERATIONS[3 * (signals.block - 1) // signals.depth]
        with torch.no_grad(), torch.autocast(tokens.x.device.type, enabled=False):
            attention, keys = map(full_precision, signals.observed)
            staying = positions(0, patches, 1, attention.device).expand(attention.shape[0], -1)
            if similar:
                ranked = largest_first(importance(attention, signals.num_class, prefix, 1, self.bounds))
                staying = the_others(repetitions(keys[:, prefix:], ranked, similar), patches)
            if amount > similar:
                attention = among(attention, staying, prefix) if similar else attention
                score = importance(attention, signals.num_class, prefix, iterations, self.bounds)
                staying = staying.gather(1, largest_first(score)[:, : patches - amount])
        return tokens.keep_rows(in_batch(ascending(staying), tokens.count, prefix))


def checked(name, numbers):
    """The option as a tuple, a number or None. ValueError for what is none."""
    listed = tuple(numbers) if isinstance(numbers, (list, tuple)) else numbers
    if listed is not None and not all(
        type(n) is int and n >= 0 for n in (listed if isinstance(listed, tuple) else (listed,))
    ):
        raise ValueError(f"{name}={numbers!r} is no whole number, 0 or more, and no list of such")
    return listed


def of_stage(name, numbers, stage):
    """The number of that block of those that the rate acts in. ValueError where a list has none for it."""
    if not isinstance(numbers, tuple):
        return numbers
    if stage >= len(numbers):
        raise ValueError(f"{name} lists {len(numbers)} numbers, but the rate acts in more blocks; give one for each")
    return numbers[stage]


def pagerank(attention, num_class, iterations):
    """Maps (B, H, N, N) -> (B, H, N) scores that sum to 1 where rows do: s <- A^T s, class tokens first ahead."""
    batch, heads, count, _ = attention.shape
    score = first_scores(count, num_class, attention.dtype, attention.device).expand(batch * heads, 1, -1)
    attention = attention.flatten(0, 1)
    for _ in range(iterations):
        score = score @ attention
    return score.view(batch, heads, count)


@remembered
def first_scores(count, num_class, dtype, device):
    """(N,) of sum 1: that of a class token is sqrt(N) times another's."""
    score = torch.ones(count, dtype=dtype, device=device)
    score[:num_class] = count**0.5
    return score / score.sum()


def importance(attention, num_class, num_prefix, iterations, bounds):
    """Maps (B, H, N, N) -> (B, T) importance of patches."""
    return combined(pagerank(attention, num_class, iterations)[:, :, num_prefix:], *bounds)


def combined(score, v_min, v_max):
    """(B, H, T) scores of patches -> (B, T) root mean square over heads of a variance within the bounds, else over all.

    Scores of every head are first scaled to a mean of 1.
    """
    score = score / score.mean(dim=2, keepdim=True).clamp(min=torch.finfo(score.dtype).tiny)
    spread = score.var(dim=2, keepdim=True, correction=0)
    passing = (spread >= v_min) & (spread <= v_max)
    passing = passing | ~passing.any(dim=1, keepdim=True)
    return ((score.square() * passing).sum(1) / passing.sum(1)).sqrt()


def repetitions(keys, ranked, count):
    """(B, count) of the lower half of the patches, those most like one of the upper; keys (B, T, d), best first."""
    upper, lower = ranked.tensor_split([ranked.shape[1] - ranked.shape[1] // 2], dim=1)
    keys, lower = normalize(keys), ascending(lower)
    best = cosines(take(keys, lower), take(keys, upper)).amax(dim=2)
    return lower.gather(1, best_first(best)[:, :count])


def among(attention, patches, num_prefix):
    """Maps (B, H, N, N) of the prefix and these patches (B, K) alone, rows of sum 1 again where they had any."""
    batch, heads, count, _ = attention.shape
    prefix = positions(0, num_prefix, 1, patches.device).expand(batch, -1)
    tokens = torch.cat([prefix, num_prefix + patches], dim=1)[:, None]
    attention = attention.gather(2, tokens[..., None].expand(-1, heads, -1, count))
    attention = attention.gather(3, tokens[:, :, None].expand(-1, heads, attention.shape[2], -1))
    return attention / attention.sum(dim=3, keepdim=True).clamp(min=torch.finfo(attention.dtype).tiny)
