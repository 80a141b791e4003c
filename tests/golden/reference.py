"""ToMe and EViT once more, written literally from their equations: numpy float64, one image, loops over tokens.

Slow and plain on purpose, and shares nothing with the suite: it is what the suite is compared with where no outputs
of the authors' code are at hand.
"""

import math

import numpy as np
from scipy.special import erf


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Reference:
    """A plain ViT from its state dict, with a reduction between attention and MLP of every block.

    prefix: protected leading tokens; classes: how many of them a head reads (class, distillation).
    reduce(block, x, sizes, keys, class_attention) -> (x, sizes, groups): groups[i] lists the positions before that
    token i stands for.
    """

    def __init__(self, state, *, heads, prefix, classes, proportional, weighted_pool=False):
        self.state = {name: value.double().numpy() for name, value in state.items()}
        self.heads, self.prefix, self.classes = heads, prefix, classes
        self.proportional, self.weighted_pool = proportional, weighted_pool
        self.depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))

    def linear(self, x, name):
        out = x @ self.state[f"{name}.weight"].T
        return out + self.state[f"{name}.bias"] if f"{name}.bias" in self.state else out

    def norm(self, x, name):
        return layer_norm(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def embed(self, image):
        weight = self.state["patch_embed.proj.weight"]
        width, _, side, _ = weight.shape
        patches = []
        for top in range(0, image.shape[1], side):
            for left in range(0, image.shape[2], side):
                patch = image[:, top : top + side, left : left + side].astype(np.float64)
                patches.append(weight.reshape(width, -1) @ patch.reshape(-1) + self.state["patch_embed.proj.bias"])
        x = np.stack(patches)
        special = [self.state[name][0] for name in ("cls_token", "dist_token", "reg_token") if name in self.state]
        positions = self.state["pos_embed"][0]
        if len(positions) == len(x):
            return np.concatenate([*special, x + positions])
        return np.concatenate([*special, x]) + positions

    def attention(self, x, block, sizes):
        """-> what attention adds to x, keys (N, d) and class attention (N,), both averaged over heads.

        The map (H, N, N) and the values (H, N, d) are left in `map` and `values`.
        """
        name = f"blocks.{block}.attn"
        count, width = x.shape
        q, k, v = self.linear(x, f"{name}.qkv").reshape(count, 3, self.heads, width // self.heads).transpose(1, 2, 0, 3)
        if f"{name}.q_norm.weight" in self.state:
            q, k = self.norm(q, f"{name}.q_norm"), self.norm(k, f"{name}.k_norm")
        out, rows, self.values = np.empty((self.heads, count, width // self.heads)), [], v
        self.map = np.empty((self.heads, count, count))
        for head in range(self.heads):
            logits = q[head] @ k[head].T / math.sqrt(width // self.heads)
            if self.proportional:
                logits = logits + np.log(sizes)
            self.map[head] = probability = softmax(logits)
            rows.append(probability[: self.classes])
            out[head] = probability @ v[head]
        mixed = self.linear(out.transpose(1, 0, 2).reshape(count, width), f"{name}.proj")
        return mixed, k.mean(0), np.mean(rows, axis=(0, 1)) if self.classes else None

    def scaled(self, x, name):
        return x * self.state[f"{name}.gamma"] if f"{name}.gamma" in self.state else x

    def mlp(self, x, name):
        hidden = self.linear(x, f"{name}.fc1")
        return self.linear(0.5 * hidden * (1 + erf(hidden / math.sqrt(2))), f"{name}.fc2")

    def head(self, x, sizes):
        if "fc_norm.weight" in self.state:  # average pool over patches
            weight = sizes[self.prefix :] if self.weighted_pool else np.ones(len(x) - self.prefix)
            pooled = (weight[:, None] * x[self.prefix :]).sum(0) / weight.sum()
            return self.linear(self.norm(pooled, "fc_norm"), "head")
        x = self.norm(x, "norm")
        if "head_dist.weight" in self.state:
            return (self.linear(x[0], "head") + self.linear(x[1], "head_dist")) / 2
        return self.linear(x[0], "head")

    def __call__(self, image, reduce):
        """Image (3, H, W) -> logits, owner (N0,), sizes (N,), tokens that leave each block."""
        x = self.embed(image)
        sizes, owner, counts = np.ones(len(x)), list(range(len(x))), []
        for block in range(self.depth):
            name = f"blocks.{block}"
            mixed, keys, class_attention = self.attention(self.norm(x, f"{name}.norm1"), block, sizes)
            x = x + self.scaled(mixed, f"{name}.ls1")
            x, sizes, groups = reduce(block, x, sizes, keys, class_attention)
            place = {old: new for new, group in enumerate(groups) for old in group}
            owner = [place.get(position, -1) for position in owner]
            x = x + self.scaled(self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp"), f"{name}.ls2")
            counts.append(len(x))
        return self.head(x, sizes), np.array(owner), sizes, counts


def tome(r_per_block, prefix):
    """Token merging, r_per_block[l] tokens in block l."""

    def reduce(block, x, sizes, keys, class_attention):
        count = len(x)
        r = min(r_per_block[block], (count - prefix) // 2)
        if r <= 0:
            return x, sizes, [[i] for i in range(count)]
        rows = [row / max(np.linalg.norm(row), 1e-12) for row in keys]
        a_side, b_side = list(range(0, count, 2)), list(range(1, count, 2))
        best, to = {}, {}
        for a in a_side:
            best[a], to[a] = -math.inf, b_side[0]
            if a < prefix:
                continue
            for b in b_side:
                similarity = float(rows[a] @ rows[b]) if b >= prefix else -math.inf
                if similarity > best[a]:
                    best[a], to[a] = similarity, b
        order = sorted(a_side, key=lambda a: -best[a])
        sources, unmerged = order[:r], order[r:]
        if prefix:
            unmerged = sorted(unmerged)
        kept = [a for a in unmerged if a >= prefix] + [b for b in b_side if b >= prefix]
        groups = [[i] for i in range(prefix)]
        groups += [[token, *(a for a in sources if to[a] == token)] for token in kept]
        merged = np.stack([sum(sizes[i] * x[i] for i in g) / sum(sizes[i] for i in g) for g in groups])
        return merged, np.array([sum(sizes[i] for i in g) for g in groups]), groups

    return reduce


def evit(keep, blocks, prefix, fuse=True):
    """Token reorganisation: keep the most attended patches in `blocks`, fuse the others."""

    def reduce(block, x, sizes, keys, class_attention):
        patches = len(x) - prefix
        kept = math.ceil(keep * patches)
        if block not in blocks or kept == patches:
            return x, sizes, [[i] for i in range(len(x))]
        order = sorted(range(prefix, len(x)), key=lambda i: -class_attention[i])
        staying, leaving = order[:kept], order[kept:]
        groups = [[i] for i in [*range(prefix), *staying]]
        features = [x[i] for [i] in groups]
        if fuse:
            groups.append(leaving)
            features.append(sum(class_attention[i] * x[i] for i in leaving))
        return np.stack(features), np.array([sum(sizes[i] for i in g) for g in groups]), groups

    return reduce
