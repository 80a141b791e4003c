"""A plain Vision Transformer that draws small pictures of classes: the embedded denoiser's architecture.

Time and class are two tokens before the patches (U-ViT, Bao et al., CVPR 2023), so that its blocks are those of any
Vision Transformer. A picture is made from noise along a rectified flow (Liu et al., ICLR 2023).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

from suite.backbones.base import PartRules
from suite.backbones.branched import BranchedBlock, BranchScope, DenoiserFamily, Grid
from suite.errors import RequestError
from suite.tokens.layout import Layout

PICTURE_SIDE, PATCH = 56, 4
GRID = PICTURE_SIDE // PATCH
NUM_PREFIX = 2  # the time's token and the class's
PIXEL_DEVIATION = 0.3  # of the values of a picture, from -1 to 1


class DenoiserAttention(Attention):
    """timm's attention, whose keys and values may be made of fewer tokens than its queries."""

    def forward(self, x: Tensor, *args: Any, encoder_hidden_states: Tensor | None = None, **named: Any) -> Tensor:
        """x: (B, N, C). encoder_hidden_states: (B, N', C) for keys and values; by the name that diffusers gives it."""
        if encoder_hidden_states is None:
            return super().forward(x, *args, **named)
        third = self.num_heads * self.head_dim
        weights, biases = self.qkv.weight.split([third, 2 * third]), self.qkv.bias.split([third, 2 * third])
        queries = F.linear(x, weights[0], biases[0]).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        both = F.linear(encoder_hidden_states, weights[1], biases[1])
        keys, values = both.unflatten(2, (2, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(queries, keys, values, scale=self.scale)
        return self.proj(attended.transpose(1, 2).flatten(2))


class DenoiserBlock(Block):
    """timm's block with that attention."""

    def __init__(self, width: int, heads: int, **options: Any) -> None:
        super().__init__(width, heads, **options)
        self.attn = DenoiserAttention(width, heads, **options)


class ScenesDiT(nn.Module):
    """Noisy pictures (B, 3, 56, 56) at times (B,) in [0, 1], of classes (B,) int64 -> velocities (B, 3, 56, 56).

    198 tokens: time, class, 14 x 14 patches; of pictures of other whole patches, as many as those, at resampled
    positions. Block 4 + k first takes in what left block 3 - k by a linear layer: that needs as many tokens there as
    here. Width 96, 3 heads, 8 blocks, 1.08 M parameters.
    """

    branch_scope: BranchScope

    def __init__(self, num_classes: int, width: int = 96, depth: int = 8, heads: int = 3) -> None:
        super().__init__()
        self.width, self.num_classes = width, num_classes
        pixels = 3 * PATCH * PATCH
        self.patch_embed = nn.Linear(pixels, width)
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.class_embed = nn.Embedding(num_classes + 1, width)  # the last row: nothing in particular
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, NUM_PREFIX + GRID * GRID, width))
        self.blocks = nn.ModuleList(DenoiserBlock(width, heads, qkv_bias=True) for _ in range(depth))
        self.skips = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth // 2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, pixels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, times: Tensor | None = None, classes: Tensor | None = None) -> Tensor:
        """times: default 1, where there is noise alone. classes: default none."""
        times = x.new_ones(len(x)) if times is None else times
        classes = self.no_class(len(x), x.device) if classes is None else classes
        grid = int(x.shape[-2]) // PATCH, int(x.shape[-1]) // PATCH
        return unpatchify(self.patch_velocities(patchify(x), times, classes, self.positions(grid)), grid)

    def positions(self, grid: Grid) -> Tensor:
        """(1, P, C) of the patches of a grid: bicubic with antialiasing where it is not the model's own."""
        own = self.pos_embed[:, NUM_PREFIX:]
        return own if grid == (GRID, GRID) else resample_abs_pos_embed(own, list(grid), [GRID, GRID], 0)

    def patch_velocities(self, patches: Tensor, times: Tensor, classes: Tensor, positions: Tensor) -> Tensor:
        """Noisy patches (B, P, 48) that stand where `positions` (B or 1, P, C) say -> their velocities (B, P, 48).

        The head says what is left of a velocity beside the best multiple of what is noisy, in units of its own
        deviation: that has variance 1 at all times (preconditioning, Karras et al., NeurIPS 2022, appendix B.6).
        """
        time = times[:, None, None]
        spread = (time**2 + (1 - time) ** 2 * PIXEL_DEVIATION**2).sqrt()
        prefix = torch.stack([self.time_embed(waves(times, self.width)), self.class_embed(classes)], dim=1)
        tokens = torch.cat(
            [prefix + self.pos_embed[:, :NUM_PREFIX], self.patch_embed(patches / spread) + positions], dim=1
        )
        said = self.head(self.norm(self.run_blocks(tokens)[:, NUM_PREFIX:]))
        multiple = (time - (1 - time) * PIXEL_DEVIATION**2) / spread**2
        return multiple * patches + PIXEL_DEVIATION / spread * said

    def run_blocks(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) through all blocks."""
        waiting: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            if number < len(self.skips):
                tokens = block(tokens)
                waiting.append(tokens)
            else:
                joined = torch.cat([tokens, waiting.pop()], dim=2)
                tokens = block(self.skips[number - len(self.skips)](joined))
        return tokens

    def no_class(self, count: int, device: torch.device) -> Tensor:
        """(B,) int64: the class of pictures of nothing in particular."""
        return torch.full((count,), self.num_classes, device=device)

    def draw(self, noise: Tensor, classes: Tensor, steps: int = 20, guidance: float = 2.0) -> Tensor:
        """Noise (B, 3, H, W) -> pictures of `classes` (B,), in [-1, 1] but for what lies beyond: `steps` of Euler's.

        guidance: 1 draws with the class alone; beyond, away from what is drawn without one (Ho and Salimans, 2021),
        both in one batch of 2 B rows.
        """
        x, no_class = noise, self.no_class(len(noise), noise.device)
        for step in range(steps):
            times = noise.new_full((len(noise),), 1 - step / steps)
            if guidance == 1:
                velocity = self(x, times, classes)
            else:
                both = self(torch.cat([x, x]), torch.cat([times, times]), torch.cat([no_class, classes]))
                without, velocity = both.chunk(2)
                velocity = without + guidance * (velocity - without)
            x = x - velocity / steps
        return x


def waves(times: Tensor, width: int) -> Tensor:
    """(B,) times in [0, 1] -> (B, width) cosines and sines of 1000 t at width / 2 frequencies from 1 down to 1e-4."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=times.device, dtype=times.dtype) / half)
    angles = 1000 * times[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def patchify(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, P, 48), row by row, the channels of a patch first."""
    parts = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # (B, 3, rows, 4, columns, 4)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, grid: Grid = (GRID, GRID)) -> Tensor:
    """(B, P, 48) -> (B, 3, H, W): the inverse of `patchify`."""
    parts = patches.unflatten(1, grid).unflatten(3, (3, PATCH, PATCH))
    return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


class ScenesDiTFamily(DenoiserFamily[ScenesDiT]):
    """The family: where a `ScenesDiT` keeps what `attach` needs."""

    num_prefix = NUM_PREFIX
    part_rules = PartRules(patch_embed=r"(patch|time)_embed(\.|$)")

    def check(self, model: nn.Module) -> None:
        if not isinstance(model, ScenesDiT):
            raise RequestError(f"model {type(model).__name__!r} is no ScenesDiT")

    def branched_blocks(self, model: ScenesDiT) -> list[BranchedBlock]:
        blocks: Any = model.blocks
        return [BranchedBlock(f"blocks.{i}", of, {"self": of.attn, "mlp": of.mlp}) for i, of in enumerate(blocks)]

    def image_size(self, model: ScenesDiT) -> tuple[int, int]:
        return PICTURE_SIDE, PICTURE_SIDE

    def grid(self, model: ScenesDiT, size: Grid) -> Grid:
        return size[0] // PATCH, size[1] // PATCH

    def input_grid(self, model: ScenesDiT, size: Grid) -> Grid:
        """Its tokens' own: no patch is finer."""
        return self.grid(model, size)

    def at_size(self, model: ScenesDiT, size: Grid) -> ScenesDiT:
        """Itself: see `ScenesDiT.positions`."""
        return model

    def time_key(self, times: Tensor) -> Tensor:
        """Times run from 0 to 1."""
        return (1000 * times).round().to(torch.int64)

    def layout(self, model: ScenesDiT, image_size: tuple[int, int] | None = None) -> Layout:
        rows, columns = grid = self.grid(model, image_size or self.image_size(model))
        width, patches, pixels = model.width, rows * columns, 3 * PATCH * PATCH
        attention: Any = model.blocks[0].attn
        return Layout(
            depth=len(model.blocks),
            num_prefix=NUM_PREFIX,
            num_class=0,
            num_patches=patches,
            width=width,
            heads=attention.num_heads,
            head_dim=attention.head_dim,
            qkv_macs=3 * width * width,
            proj_macs=width * width,
            mlp_macs=8 * width * width,
            patch_macs=patches * pixels * width + 8 * width * width,  # and the time's two layers
            head_macs=patches * pixels * width + len(model.skips) * (patches + NUM_PREFIX) * 2 * width * width,
            grid=grid,
        )
