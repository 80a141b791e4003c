"""A backbone's shape: how many tokens there are, of which width, and what one of them costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A backbone's shape, as schedules and the closed form of its cost see it.

    `num_prefix` tokens are protected; the first `num_class` of them are read by a head (class, distillation). `grid`:
    rows and columns of the patches.

    Cost in multiply-accumulates: `qkv_macs`, `proj_macs` (with a gate, where there is one) and `mlp_macs` per token and
    block; `patch_macs` and `head_macs` per image; `head_token_macs` per token that reaches the head (attention pooling;
    0 elsewhere). `apart_macs`: of queries with keys, and of values, where these are computed by themselves; together
    they cost more than `qkv_macs` where each is cut out of the whole. None: two thirds and a third.
    """

    depth: int
    num_prefix: int
    num_class: int
    num_patches: int
    width: int
    heads: int
    head_dim: int
    qkv_macs: int
    proj_macs: int
    mlp_macs: int
    patch_macs: int
    head_macs: int
    head_token_macs: int = 0
    grid: tuple[int, int] | None = None
    apart_macs: tuple[int, int] | None = None

    @property
    def tokens(self) -> int:
        """N0: tokens that enter the first block, prefix included."""
        return self.num_prefix + self.num_patches
