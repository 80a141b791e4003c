"""MCTF once more, written literally from its equations: numpy float64, one image, loops over tokens.

The whole attention map is made, its columns added up and its rows averaged group by group (Lee, Choi and Kim, CVPR
2024, eq. 3-9). Shares nothing with the suite.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from reference import Reference, softmax


@dataclass(frozen=True)
class Setting:
    """Options of the method; a temperature of 0 leaves its criterion out."""

    one_step_ahead: int = 1
    tau_sim: float = 1.0
    tau_info: float = 20.0
    tau_size: float = 40.0
    bidirectional: bool = True
    pooling: int = 1


@dataclass
class Watched:
    """What a forward went through: merged maps (H, N', N'), features after each block, and the smallest relative gap
    between two scores of which one decided over the other (below it rounding decides)."""

    maps: list = field(default_factory=list)
    features: list = field(default_factory=list)
    gap: float = math.inf

    def between(self, better, worse):
        if math.isfinite(worse):
            self.gap = min(self.gap, (better - worse) / abs(better))


def tokens_to_fuse(asked, count, prefix):
    """How many of `count` tokens go: a number keeps ten tokens, a fraction is one of the patches; half at most."""
    if 0 < asked < 1:
        return min(int((count - prefix) * asked), (count - prefix) // 2)
    r = count - 10 if count - asked < 10 else asked
    return max(0, min(r, (count - prefix) // 2))


def pair_scores(x, received, sizes, prefix, setting):
    """W[i][j] of every even place i and odd place j; -inf where one of them is protected."""
    inverse_a, inverse_s = 1 / received, None if sizes is None else 1 / sizes
    inverse_a = inverse_a / inverse_a.max()
    inverse_s = None if sizes is None else inverse_s / inverse_s.max()
    lengths = [max(math.sqrt(float(row @ row)), 1e-12) for row in x]
    scores = {}
    for i in range(0, len(x), 2):
        for j in range(1, len(x), 2):
            score = 1.0
            if setting.tau_sim:
                cosine = float(x[i] @ x[j]) / (lengths[i] * lengths[j])
                score *= max((cosine + 1) / 2, 0) ** (1 / setting.tau_sim)
            if setting.tau_info:
                score *= (inverse_a[i] * inverse_a[j]) ** (1 / setting.tau_info)
            if setting.tau_size and sizes is not None:
                score *= (inverse_s[i] * inverse_s[j]) ** (1 / setting.tau_size)
            scores[i, j] = -math.inf if i < prefix or j < prefix else score
    return scores


def choose(scores, senders, receivers, number, watched):
    """Every sender points at its best receiver -> senders by descending score, {sender: receiver} of the first ones."""
    best = {}
    for a in senders:
        ranked = sorted(receivers, key=lambda b: -scores[a, b])
        best[a] = (scores[a, ranked[0]], ranked[0], scores[a, ranked[1]] if len(ranked) > 1 else -math.inf)
    order = sorted(senders, key=lambda a: -best[a][0])
    for a in order[:number]:
        watched.between(best[a][0], best[a][2])
    if 0 < number < len(order):
        watched.between(best[order[number - 1]][0], best[order[number]][0])
    return order, {a: best[a][1] for a in order[:number]}, {a: best[a][0] for a in order}


def fuse_groups(scores, count, prefix, r, bidirectional, watched):
    """Groups of places before, in the order of the tokens that they become."""
    evens, odds = list(range(0, count, 2)), list(range(1, count, 2))
    forth = r // 2 if bidirectional else r
    _, to_odd, _ = choose(scores, evens, odds, forth, watched)
    left_evens = [i for i in evens if i not in to_odd]
    members = {place: [place] for place in [*left_evens, *odds]}
    for sender, receiver in to_odd.items():
        members[receiver].append(sender)
    left_odds = odds
    if bidirectional:
        turned = {(j, i): scores[i, j] for i in left_evens for j in odds}
        order, to_even, best = choose(turned, odds, left_evens, r - forth, watched)
        for sender, receiver in to_even.items():
            members[receiver] += members[sender]
        left_odds = order[r - forth :]
        for better, worse in pairwise(left_odds):
            watched.between(best[better], best[worse])
    patches = [place for place in [*left_evens, *left_odds] if place >= prefix]
    return [members[place] for place in [*range(prefix), *patches]]


def pooled(x, groups, weight, pooling):
    if pooling == 2:
        return np.stack([np.max([x[i] for i in group], axis=0) for group in groups])
    return np.stack([sum(weight[i] * x[i] for i in group) / sum(weight[i] for i in group) for group in groups])


def merged_map(attention, groups, weight):
    """(H, N, N) -> (H, N', N'): columns of a group added up, rows averaged by weight."""
    columns = np.stack([sum(attention[:, :, j] for j in group) for group in groups], axis=2)
    rows = [sum(weight[i] * columns[:, i] for i in group) / sum(weight[i] for i in group) for group in groups]
    return np.stack(rows, axis=1)


class FusionReference(Reference):
    """A plain ViT from its state dict with MCTF in its blocks. The last forward is in `watched`."""

    def __init__(self, state, setting, **about):
        super().__init__(state, proportional=True, **about)
        self.setting = setting

    def heads_of(self, x, block, which):
        """Queries, keys or values (H, N, d) of normed tokens."""
        name, (count, width) = f"blocks.{block}.attn", x.shape
        out = self.linear(x, f"{name}.qkv")[:, which * width : (which + 1) * width]
        out = out.reshape(count, self.heads, width // self.heads).transpose(1, 0, 2)
        norm = f"{name}.{'qk'[which]}_norm" if which < 2 else ""
        return self.norm(out, norm) if f"{norm}.weight" in self.state else out

    def map_of(self, x, block, sizes):
        """(H, N, N) softmax attention of the residual stream x, biased by log size once there are sizes."""
        normed = self.norm(x, f"blocks.{block}.norm1")
        queries, keys = self.heads_of(normed, block, 0), self.heads_of(normed, block, 1)
        logits = queries @ keys.transpose(0, 2, 1) / math.sqrt(queries.shape[2])
        return softmax(logits if sizes is None else logits + np.log(sizes))

    def attended(self, x, block, attention):
        """x plus its attention branch, by a given map."""
        values = self.heads_of(self.norm(x, f"blocks.{block}.norm1"), block, 2)
        mixed = (attention @ values).transpose(1, 0, 2).reshape(x.shape)
        return x + self.scaled(self.linear(mixed, f"blocks.{block}.attn.proj"), f"blocks.{block}.ls1")

    def fuse(self, x, sizes, attention, r):
        """-> fused x, sizes, groups, merged map."""
        setting, plain = self.setting, np.ones(len(x))
        received = attention.mean(axis=(0, 1))
        scores = pair_scores(x, received, sizes, self.prefix, setting)
        groups = fuse_groups(scores, len(x), self.prefix, r, setting.bidirectional, self.watched)
        sizes = plain if sizes is None else sizes
        by_attention = received * sizes / sizes.max()
        # a maximum has no weights of its own: rows of the map are averaged as by default
        weight = {0: sizes, 1: by_attention, 2: by_attention, 3: plain}[setting.pooling]
        sums = np.array([sum(sizes[i] for i in group) for group in groups])
        return pooled(x, groups, weight, setting.pooling), sums, groups, merged_map(attention, groups, weight)

    def block(self, x, sizes, block, r):
        ahead, groups = self.setting.one_step_ahead, [[i] for i in range(len(x))]
        attention = self.map_of(x, block, sizes)
        if r and ahead:
            x, sizes, groups, merged = self.fuse(x, sizes, attention, r)
            attention = merged if ahead == 1 else self.map_of(x, block, sizes)
            self.watched.maps.append(attention)
        name = f"blocks.{block}"
        x = self.attended(x, block, attention)
        x = x + self.scaled(self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp"), f"{name}.ls2")
        if r and not ahead:
            x, sizes, groups, _ = self.fuse(x, sizes, attention, r)
        return x, sizes, groups

    def __call__(self, image, asked):
        """Image (3, H, W), what is asked of every block -> logits, owner (N0,) after each block, sizes, counts."""
        self.watched = Watched()
        x, sizes = self.embed(image), None
        owners, counts = [list(range(len(x)))], []
        for block in range(self.depth):
            x, sizes, groups = self.block(x, sizes, block, tokens_to_fuse(asked[block], len(x), self.prefix))
            place = {old: new for new, group in enumerate(groups) for old in group}
            owners.append([place[position] for position in owners[-1]])
            counts.append(len(x))
            self.watched.features.append(x)
        sizes = np.ones(len(x)) if sizes is None else sizes
        return self.head(x, sizes), np.array(owners[1:]), sizes, counts
