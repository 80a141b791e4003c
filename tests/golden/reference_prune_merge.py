"""Six more methods written literally from their equations: numpy float64, one image, loops over tokens."""

import math

import numpy as np
from reference import Reference, softmax, tome
from scipy.special import erf


class EarlyReference(Reference):
    """As `Reference`, with the reduction before every block: reduce(block, x) -> (x, groups)."""

    def __call__(self, image, reduce):
        x = self.embed(image)
        owner, counts, everything = list(range(len(x))), [], np.ones(len(x))
        for block in range(self.depth):
            x, groups = reduce(block, x)
            place = {old: new for new, group in enumerate(groups) for old in group}
            owner = [place.get(position, -1) for position in owner]
            name = f"blocks.{block}"
            mixed, _, _ = self.attention(self.norm(x, f"{name}.norm1"), block, everything[: len(x)])
            x = x + self.scaled(mixed, f"{name}.ls1")
            x = x + self.scaled(self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp"), f"{name}.ls2")
            counts.append(len(x))
        sizes = np.array([owner.count(token) for token in range(len(x))])
        return self.head(x, everything[: len(x)]), np.array(owner), sizes, counts


def singles(count):
    return [[token] for token in range(count)]


def falling(scores, positions):
    """Positions by score, highest first."""
    return sorted(positions, key=lambda position: -scores[position])


def cosine(a, b, extra=0.0):
    return float(a @ b) / ((np.linalg.norm(a) + extra) * (np.linalg.norm(b) + extra))


def tofu(r_per_block, prefix, first_merging, merge="mlerp", weighted=False):
    """ToMe's groups; only the first member of each survives in blocks before `first_merging`."""
    match = tome(r_per_block, prefix)

    def reduce(block, x, sizes, keys, class_attention):
        _, counted, groups = match(block, x, sizes, keys, class_attention)
        rows = []
        for group in groups:
            if len(group) == 1 or block < first_merging:
                rows.append(x[group[0]])
                continue
            weight = [sizes[i] if weighted else 1.0 for i in group]
            mean = sum(w * x[i] for w, i in zip(weight, group, strict=True)) / sum(weight)
            if merge == "mlerp":
                mean = mean / np.linalg.norm(mean) * max(np.linalg.norm(x[i]) for i in group)
            rows.append(mean)
        return np.stack(rows), counted, groups

    return reduce


def energies(keys, margin):
    """Mean over all tokens of ELU(cosine - margin), one number per token."""
    out = []
    for a in keys:
        terms = [cosine(a, b) - margin for b in keys]
        out.append(sum(t if t > 0 else math.exp(t) - 1 for t in terms) / len(terms))
    return out


def pitome(r_of, prefix, depth, margin=0.75, order="deit"):
    """Energy-ranked merging; r_of(block, patches) tokens in each block."""

    def reduce(block, x, sizes, keys, class_attention):
        patches = len(x) - prefix
        r = r_of(block, patches)
        if r <= 0:
            return x, sizes, singles(len(x))
        keys = keys[prefix:]
        ranked = falling(energies(keys, margin * (1 - block / depth)), range(patches))
        early = block < math.ceil(depth / 2)
        everybody = early if order == "deit" else not early
        if everybody:
            a_side, b_side, protected = ranked[::2], ranked[1::2], []
        else:
            a_side, b_side, protected = ranked[: 2 * r : 2], ranked[1 : 2 * r : 2], ranked[2 * r :]
        best = {a: max(b_side, key=lambda b, a=a: cosine(keys[a], keys[b])) for a in a_side}
        if everybody:
            a_side = falling({a: cosine(keys[a], keys[best[a]]) for a in a_side}, a_side)
            a_side, protected = a_side[:r], a_side[r:]
        groups = [*singles(prefix), *([prefix + token] for token in protected)]
        groups += [[prefix + b, *(prefix + a for a in a_side if best[a] == b)] for b in b_side]
        merged = [sum(sizes[i] * x[i] for i in g) / sum(sizes[i] for i in g) for g in groups]
        return np.stack(merged), np.array([sum(sizes[i] for i in g) for g in groups]), groups

    return reduce


def diffrate(prune_kept, merge_kept, prefix):
    """Prune to one number, merge to the other, in every block."""

    def reduce(block, x, sizes, keys, class_attention):
        count = len(x)
        if prune_kept[block] >= count and merge_kept[block] >= count:
            return x, sizes, singles(count)
        order = [*range(prefix), *falling(class_attention, range(prefix, count))][: prune_kept[block]]
        hosts, sources = order[: merge_kept[block]], order[merge_kept[block] :]
        groups, sums = [[i] for i in hosts], {i: sizes[i] for i in hosts}
        for source in sources:
            host = max(hosts[prefix:], key=lambda h, s=source: cosine(x[s], x[h]))
            groups[hosts.index(host)].append(source)
            sums[host] += sizes[source] * cosine(x[source], x[host])
        return np.stack([np.mean([x[i] for i in g], axis=0) for g in groups]), np.array([*sums.values()]), groups

    return reduce


def squeezed(x, order, kept, prefix):
    """Keep the first `kept` of the patches in `order`, fold each of the others into its most similar kept one."""
    hosts, guests = order[:kept], order[kept:]
    weights = {host: {host: math.e} for host in hosts}
    groups = {host: [host] for host in hosts}
    for guest in guests:
        likeness = {host: cosine(x[guest], x[host], 1e-6) for host in hosts}
        best = max(likeness.values())
        ties = [host for host in hosts if likeness[host] == best]
        groups[ties[0]].append(guest)
        for host in ties:
            weights[host][guest] = math.exp(best)
    rows = [x[i] for i in range(prefix)]
    for host in hosts:
        total = sum(weights[host].values())
        lone = len(weights[host]) == 1
        rows.append(x[host] if lone else sum(w * x[i] for i, w in weights[host].items()) / total)
    return np.stack(rows), [*singles(prefix), *groups.values()]


def etps(kept_at, prefix):
    """kept_at: block -> patches that stay, by class attention after that block's attention."""

    def reduce(block, x, sizes, keys, class_attention):
        if block not in kept_at:
            return x, sizes, singles(len(x))
        rows, groups = squeezed(x, falling(class_attention, range(prefix, len(x))), kept_at[block], prefix)
        return rows, np.array([sum(sizes[i] for i in g) for g in groups]), groups

    return reduce


def keep_scores(x, state, stage):
    """The predictor, on patch tokens (T, C): log probability of being kept."""
    name = f"score_predictor.{stage}."
    weights = {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}

    def linear(x, key):
        return x @ weights[f"{key}.weight"].T + weights[f"{key}.bias"]

    def gelu(x):
        return 0.5 * x * (1 + erf(x / math.sqrt(2)))

    centred = x - x.mean(-1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    x = gelu(linear(x * weights["in_conv.0.weight"] + weights["in_conv.0.bias"], "in_conv.1"))
    half = x.shape[1] // 2
    everywhere = sum(row[half:] for row in x) / len(x)
    x = np.stack([np.concatenate([row[:half], everywhere]) for row in x])
    x = linear(gelu(linear(gelu(linear(x, "out_conv.0")), "out_conv.2")), "out_conv.4")
    return [math.log(softmax(row)[0]) for row in x]


def predicted(state, kept_at, prefix, squeeze=True):
    """dTPS, or DynamicViT without the squeeze. kept_at: block -> patches that stay; its blocks are the stages."""
    stages = {block: stage for stage, block in enumerate(sorted(kept_at))}

    def reduce(block, x):
        if block not in kept_at:
            return x, singles(len(x))
        scores = [*[0.0] * prefix, *keep_scores(x[prefix:], state, stages[block])]
        order = falling(scores, range(prefix, len(x)))
        if squeeze:
            return squeezed(x, order, kept_at[block], prefix)
        kept = [*range(prefix), *order[: kept_at[block]]]
        return x[kept], [[i] for i in kept]

    return reduce
