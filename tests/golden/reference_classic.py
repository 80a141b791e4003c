"""Samplers, clusterings, soft mixtures and floors once more, written literally: numpy float64, one image, loops.

Slow and plain on purpose, and shares nothing with the suite. `plan[block]` is how many patches (for `ats`: at most) are
to be left; blocks that are not in it, or None, do nothing. `groups[i]` lists the positions that token i stands for.
"""

import math

import numpy as np
from reference import Reference, softmax
from scipy.special import erf


class Classic(Reference):
    """The plain ViT with a reduction before a block, among its queries, or between attention and MLP.

    before(block, x, received) -> x, groups. select(block, maps, values) -> rows that attention answers.
    after(block, owner, count) -> positions that stay. None of them knows sizes.
    """

    def __init__(self, state, *, heads, prefix, classes):
        super().__init__(state, heads=heads, prefix=prefix, classes=classes, proportional=False)

    def maps(self, x, block):
        """Normed tokens -> attention maps (H, N, N) and values (H, N, d)."""
        name = f"blocks.{block}.attn"
        count, width = x.shape
        q, k, v = self.linear(x, f"{name}.qkv").reshape(count, 3, self.heads, width // self.heads).transpose(1, 2, 0, 3)
        if f"{name}.q_norm.weight" in self.state:
            q, k = self.norm(q, f"{name}.q_norm"), self.norm(k, f"{name}.k_norm")
        return np.stack([softmax(q[h] @ k[h].T / math.sqrt(width // self.heads)) for h in range(self.heads)]), v

    def __call__(self, image, before=None, select=None, after=None):
        """Image (3, H, W) -> logits, owner (N0,), tokens that leave each block."""
        x = self.embed(image)
        owner, counts, received = list(range(len(x))), [], None
        for block in range(self.depth):
            name = f"blocks.{block}"
            if before is not None:
                x, groups = before(block, x, received)
                owner = moved(owner, groups)
            maps, v = self.maps(self.norm(x, f"{name}.norm1"), block)
            rows = list(range(len(x))) if select is None else select(block, maps, v)
            mixed = np.concatenate([maps[h][rows] @ v[h] for h in range(self.heads)], axis=1)
            x = x[rows] + self.scaled(self.linear(mixed, f"{name}.attn.proj"), f"{name}.ls1")
            owner = moved(owner, [[row] for row in rows])
            if after is not None:
                staying = after(block, owner, len(x))
                x, owner = x[staying], moved(owner, [[position] for position in staying])
            x = x + self.scaled(self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp"), f"{name}.ls2")
            received = maps.sum(axis=(0, 1)) / (self.heads * maps.shape[1])
            counts.append(len(x))
        return self.head(x, np.ones(len(x))), np.array(owner), counts


def moved(owner, groups):
    place = {old: new for new, group in enumerate(groups) for old in group}
    return [place.get(position, -1) for position in owner]


def ats(plan, prefix, classes):
    def select(block, maps, values):
        count = maps.shape[1]
        if plan.get(block) is None:
            return list(range(count))
        most = plan[block] + 1  # with one prefix token
        scores = []
        for token in range(prefix, count):
            score = 0.0
            for row in range(classes):
                for head in range(len(maps)):
                    score += maps[head][row][token] * math.sqrt(sum(value**2 for value in values[head][token]))
            scores.append(score)
        total, running, cumulative = sum(scores), 0.0, []
        for score in scores:
            running += score / total
            cumulative.append(running)
        picked = set()
        for step in range(most - 1):
            point = (2 * step + 1) / (2 * most)
            gaps = [abs(entry - point) for entry in cumulative]
            picked.add(gaps.index(min(gaps)))
        return [*range(prefix), *(prefix + token for token in sorted(picked))]

    return select


def distance(a, b):
    return math.sqrt(sum((a - b) ** 2))


def dpcknn(plan, prefix, neighbours=5):
    def before(block, x, received):
        if plan.get(block) is None:
            return x, [[i] for i in range(len(x))]
        patches, width = list(range(prefix, len(x))), x.shape[1]
        apart = {(i, j): distance(x[i], x[j]) / math.sqrt(width) for i in patches for j in patches}
        density = {}
        for i in patches:
            near = sorted(apart[i, j] for j in patches)[:neighbours]
            density[i] = math.exp(-sum(d**2 for d in near) / len(near))
        score = {}
        for i in patches:
            higher = [apart[i, j] for j in patches if density[j] > density[i]]
            score[i] = density[i] * (min(higher) if higher else max(apart.values()))
        centres = sorted(patches, key=lambda i: -score[i])[: plan[block]]
        groups = {centre: [centre] for centre in centres}
        for i in patches:
            if i not in groups:
                groups[min(centres, key=lambda c: apart[i, c])].append(i)
        groups = [[i] for i in range(prefix)] + list(groups.values())
        return np.stack([sum(x[i] for i in group) / len(group) for group in groups]), groups

    return before


def kmedoids(plan, prefix, iterations=3, weighted=True):
    def before(block, x, received):
        if plan.get(block) is None:
            return x, [[i] for i in range(len(x))]
        patches = list(range(prefix, len(x)))
        apart = {(i, j): distance(x[i], x[j]) ** 2 for i in patches for j in patches}
        if received is None or not weighted:
            weight = dict.fromkeys(patches, 1.0)
            medoids = [min(patches, key=lambda i: sum(apart[i, j] for j in patches))]
            while len(medoids) < plan[block]:
                rest = [i for i in patches if i not in medoids]
                medoids.append(max(rest, key=lambda i: min(apart[i, m] for m in medoids)))
        else:
            weight = {i: received[i] for i in patches}
            medoids = sorted(patches, key=lambda i: -weight[i])[: plan[block]]
        for _ in range(iterations):
            medoids = [
                min(sorted(group), key=lambda i: sum(weight[j] * apart[i, j] for j in group))
                for group in clusters(patches, medoids, apart)
            ]
        groups = [[i] for i in range(prefix)] + clusters(patches, medoids, apart)
        return x[[*range(prefix), *medoids]], groups

    return before


def clusters(patches, medoids, apart):
    groups = {m: [m] for m in medoids}
    for i in patches:
        if i not in groups:
            groups[min(medoids, key=lambda m: apart[i, m])].append(i)
    return list(groups.values())


def mixtures(plan, prefix, share, content):
    """share(stage, patches, count) -> (count, T); content(stage, patches) -> (T, C) that is mixed."""

    def before(block, x, received):
        if plan.get(block) is None:
            return x, [[i] for i in range(len(x))]
        stage, count, patches = sorted(plan).index(block), plan[block], x[prefix:]
        shares, rows = share(stage, patches, count), content(stage, patches)
        mixed = []
        for token in range(count):
            mixed.append(sum(shares[token][i] * rows[i] for i in range(len(rows))))
        groups = [[i] for i in range(prefix)] + [[] for _ in range(count)]
        for i in range(len(patches)):
            column = list(shares[:, i])
            groups[prefix + column.index(max(column))].append(prefix + i)
        return np.concatenate([x[:prefix], np.stack(mixed)]), groups

    return before


def patchmerger(plan, prefix, learned):
    def normed(stage, x):
        # torch's norm, not the backbone's: eps is 1e-5
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return normed * learned[f"stages.{stage}.norm.weight"] + learned[f"stages.{stage}.norm.bias"]

    def share(stage, x, count):
        queries, x = learned[f"stages.{stage}.queries"], normed(stage, x)
        return np.stack([softmax(np.array([queries[m] @ row for row in x])) for m in range(count)])

    return mixtures(plan, prefix, share, normed)


def sinkhorn(plan, prefix, learned, eps=1.0, iterations=3):
    def unit(stage, x):
        return np.stack([row / np.linalg.norm(row) for row in x])

    def share(stage, x, count):
        kernel = np.exp(unit(0, learned[f"centres.{stage}"][:count]) @ unit(0, x).T / eps)
        centre_scale, patch_scale = np.ones(count), np.ones(len(x))
        for _ in range(iterations):
            for i in range(len(x)):
                patch_scale[i] = count / len(x) / sum(kernel[m][i] * centre_scale[m] for m in range(count))
            for m in range(count):
                centre_scale[m] = 1 / sum(kernel[m][i] * patch_scale[i] for i in range(len(x)))
        return centre_scale[:, None] * kernel * patch_scale

    return mixtures(plan, prefix, share, unit)


def sit(plan, prefix, learned):
    def share(stage, x, count):
        part = {key.removeprefix(f"stages.{stage}."): value for key, value in learned.items()}
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        normed = normed * part["weight.0.weight"] + part["weight.0.bias"]
        hidden = normed @ part["weight.1.weight"].T + part["weight.1.bias"]
        hidden = 0.5 * hidden * (1 + erf(hidden / math.sqrt(2)))
        logits = (hidden @ part["weight.3.weight"].T + part["weight.3.bias"]) * part["scale"].item()
        return np.stack([softmax(logits[:, m]) for m in range(count)])

    return mixtures(plan, prefix, share, lambda stage, x: x)


def heuristic(plan, prefix, grid, metric="l2"):
    rows, columns = grid

    def radius(patch):
        down, right = abs(patch // columns - (rows - 1) / 2), abs(patch % columns - (columns - 1) / 2)
        return {"l1": down + right, "l2": math.hypot(down, right), "linf": max(down, right)}[metric]

    def after(block, owner, count):
        if plan.get(block) is None:
            return list(range(count))
        present = [patch for patch in range(rows * columns) if owner[prefix + patch] >= 0]
        inside = sorted(present, key=lambda patch: (round(radius(patch), 9), patch))[: plan[block]]
        return [*range(prefix), *sorted(owner[prefix + patch] for patch in inside)]

    return after


class Watched(Reference):
    """Remembers the normed tokens of the block that runs, which a seeded draw looks at."""

    def attention(self, x, block, sizes):
        self.normed = x
        return super().attention(x, block, sizes)


def merged(x, sizes, groups):
    """ToMe's average over groups."""
    rows = np.stack([sum(sizes[i] * x[i] for i in group) / sum(sizes[i] for i in group) for group in groups])
    return rows, np.array([sum(sizes[i] for i in group) for group in groups]), groups


def cosine(a, b):
    return float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))


def tome_kth(r_per_block, prefix, k):
    """r_per_block[l] tokens of block l into the most similar of every k-th token."""

    def reduce(block, x, sizes, keys, class_attention):
        if r_per_block[block] == 0:
            return x, sizes, [[i] for i in range(len(x))]
        hosts = [i for i in range(prefix, len(x)) if (i + 1) % k == 0]
        guests = [i for i in range(prefix, len(x)) if (i + 1) % k]
        likeness = {(g, h): cosine(keys[g], keys[h]) for g in guests for h in hosts}
        to = {g: max(hosts, key=lambda h: likeness[g, h]) for g in guests}
        order = sorted(guests, key=lambda g: -likeness[g, to[g]])
        gone, staying = order[: r_per_block[block]], order[r_per_block[block] :]
        staying = sorted(staying) if prefix else staying
        groups = [[i] for i in [*range(prefix), *staying]] + [[h, *(g for g in gone if to[g] == h)] for h in hosts]
        return merged(x, sizes, groups)

    return reduce


def scrambled(value):
    """The finaliser 'lowbias32' on 32-bit integers."""
    value ^= value >> 16
    value = value * 0x7FEB352D % 2**32
    value ^= value >> 15
    value = value * 0x846CA68B % 2**32
    return value ^ (value >> 16)


def tome_random(r_per_block, prefix, watched, seed=0):
    """r_per_block[l] tokens of block l, drawn by hashing, into the most similar of the others.

    What a sample is hashed by is what it was in the first block that draws.
    """
    keys_of_sample = []

    def reduce(block, x, sizes, keys, class_attention):
        r = r_per_block[block]
        if r == 0:
            return x, sizes, [[i] for i in range(len(x))]
        if all(earlier == 0 for earlier in r_per_block[:block]):
            steps = [math.floor(8 * np.mean(watched.normed[prefix:, channel])) for channel in range(8)]
            keys_of_sample.append(sum(step * (scrambled(c + 1) // 2) for c, step in enumerate(steps)) % 2**30)
        odd = 2 * keys_of_sample[-1] + 1
        start = scrambled((seed * 0x9E3779B1 + block) % 2**32)
        patches = range(len(x) - prefix)
        draw = [scrambled((start + 0x9E3779B1 * (i + 1)) % 2**32) * odd % 2**32 for i in patches]
        gone = [prefix + i for i in sorted(patches, key=lambda i: -draw[i])[:r]]
        hosts = [i for i in range(prefix, len(x)) if i not in gone]
        to = {g: max(hosts, key=lambda h: cosine(keys[g], keys[h])) for g in gone}
        return merged(x, sizes, [[i] for i in range(prefix)] + [[h, *(g for g in gone if to[g] == h)] for h in hosts])

    return reduce
