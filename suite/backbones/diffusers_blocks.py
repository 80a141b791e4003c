"""diffusers' denoisers that are made of its `BasicTransformerBlock`: U-Nets of Stable Diffusion, DiT, PixArt."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from suite.backbones.base import PartRules
from suite.backbones.branched import BranchedBlock, DenoiserFamily, Grid, halved
from suite.errors import RequestError
from suite.tokens.layout import Layout

SUPPORTED = "UNet2DConditionModel (Stable Diffusion 1, 2, XL), DiTTransformer2DModel and PixArtTransformer2DModel"


class DiffusersFamily(DenoiserFamily[Any]):
    """What they share. Modules are told apart by the names that diffusers gives them."""

    part_rules = PartRules(r"(conv_in|pos_embed)(\.|$)", mlp=r".*transformer_blocks\.\d+\.ff(\.|$)")

    def check(self, model: nn.Module) -> None:
        kind = type(model).__name__
        blocks = self.branched_blocks(model)
        if not blocks:
            raise RequestError(f"model {kind!r} has no transformer blocks; {SUPPORTED} are supported")
        for of in blocks:
            odd = type(of.block).__name__
            if odd != "BasicTransformerBlock":
                raise RequestError(f"model {kind!r} has {odd} in its blocks; {SUPPORTED} are supported")
            if getattr(of.block, "fuser", None) is not None:
                raise RequestError(f"block {of.name!r} has gated self-attention (GLIGEN), which is not supported")

    def branches_of(self, name: str, block: Any, level: int = 0) -> BranchedBlock:
        found = {"self": block.attn1, "cross": block.attn2, "mlp": block.ff}
        return BranchedBlock(name, block, {key: part for key, part in found.items() if part is not None}, level)

    def rules_of(self, model: Any) -> PartRules:
        return replace(self.part_rules, blocks=tuple(of.name for of in self.branched_blocks(model)))

    @abstractmethod
    def places(self, model: Any, name: str, size: Grid, text: int) -> int:
        """In how many places of a latent of `size` (H, W) a call uses the weight of a module outside the branches.

        text: tokens of the prompt.
        """

    def repeated_macs(self, model: Any) -> int:
        """Of what a call runs once more than there are modules for it."""
        return 0

    def time_key(self, times: Tensor) -> Tensor:
        """Schedules run from 0 to 1000."""
        return times.round().to(torch.int64)

    def image_size(self, model: Any) -> tuple[int, int]:
        """Of the latent."""
        size = model.config.sample_size
        return (size, size) if isinstance(size, int) else tuple(size)

    def channels(self, model: Any) -> int:
        return int(model.config.in_channels)

    def input_grid(self, model: Any, size: Grid) -> Grid:
        return size

    def layout(self, model: Any, image_size: tuple[int, int] | None = None) -> Layout:
        """Of the blocks with most tokens; the others are known by `grids`."""
        grids = self.grids(model, image_size or self.image_size(model))
        rows, columns = grid = max(grids, key=lambda grid: grid[0] * grid[1])
        attention: Any = self.branched_blocks(model)[grids.index(grid)].branches["self"]
        width = attention.to_q.in_features
        return Layout(
            depth=len(grids),
            num_prefix=0,
            num_class=0,
            num_patches=rows * columns,
            width=width,
            heads=attention.heads,
            head_dim=attention.to_q.out_features // attention.heads,
            qkv_macs=3 * width * attention.to_q.out_features,
            proj_macs=width * attention.to_q.out_features,
            mlp_macs=0,  # of several widths and kinds: what a model costs is counted
            patch_macs=0,
            head_macs=0,
            grid=grid,
        )


class UNetFamily(DiffusersFamily):
    """`UNet2DConditionModel`: tokens are the pixels of its feature maps, at several resolutions."""

    def branched_blocks(self, model: Any) -> list[BranchedBlock]:
        """Down, middle, up: `named_modules` would list the middle last."""
        last = len(model.down_blocks) - 1
        stages = [(f"down_blocks.{i}", stage, i) for i, stage in enumerate(model.down_blocks)]
        stages += [("mid_block", model.mid_block, last)] if model.mid_block is not None else []
        stages += [(f"up_blocks.{i}", stage, last - i) for i, stage in enumerate(model.up_blocks)]
        return [
            self.branches_of(f"{name}.attentions.{j}.transformer_blocks.{k}", block, level)
            for name, stage, level in stages
            for j, transformer in enumerate(getattr(stage, "attentions", None) or ())
            for k, block in enumerate(getattr(transformer, "transformer_blocks", ()))
        ]

    def grid(self, model: Any, size: Grid) -> Grid:
        return size

    def at_size(self, model: Any, size: Grid) -> Any:
        """Itself: convolutions take any size, and what is halved and doubled again comes out as it went in."""
        return model

    def places(self, model: Any, name: str, size: Grid, text: int) -> int:
        part, _, rest = name.partition(".")
        last = len(model.down_blocks) - 1
        known = {"conv_in": 0, "conv_out": 0, "mid_block": last}
        if part in known:
            level = known[part]
        elif part in ("down_blocks", "up_blocks"):
            stage = int(rest.partition(".")[0])
            level = stage if part == "down_blocks" else last - stage
            level += ("downsamplers" in rest) - ("upsamplers" in rest)  # of what they give
        else:
            return 1  # of the time and the like
        rows, columns = halved(size, level)
        return 1 if "time_emb_proj" in rest else rows * columns


class PatchedFamily(DiffusersFamily):
    """`DiTTransformer2DModel` and `PixArtTransformer2DModel`: tokens are patches of the latent."""

    def branched_blocks(self, model: Any) -> list[BranchedBlock]:
        return [self.branches_of(f"transformer_blocks.{i}", b) for i, b in enumerate(model.transformer_blocks)]

    def grid(self, model: Any, size: Grid) -> Grid:
        patch = model.config.patch_size
        return size[0] // patch, size[1] // patch

    def places(self, model: Any, name: str, size: Grid, text: int) -> int:
        rows, columns = self.grid(model, size)
        if name in ("pos_embed.proj", "proj_out", "proj_out_2"):
            return rows * columns
        return text if name.startswith("caption_projection") else 1

    def repeated_macs(self, model: Any) -> int:
        """DiT embeds time and class by the first block's layers once more, for its head."""
        if not hasattr(model, "proj_out_1"):
            return 0
        embedding = model.transformer_blocks[0].norm1.emb
        return sum(part.weight.numel() for part in embedding.modules() if isinstance(part, nn.Linear))


class JointFamily(DiffusersFamily):
    """Denoisers whose blocks attend to text and image tokens in one sequence."""

    def check(self, model: nn.Module) -> None:
        raise RequestError(
            f"model {type(model).__name__!r} joins text and image tokens in its blocks, which is not supported; "
            f"{SUPPORTED} are"
        )

    def branched_blocks(self, model: Any) -> list[BranchedBlock]:
        return []

    def grid(self, model: Any, size: Grid) -> Grid:
        return size

    def places(self, model: Any, name: str, size: Grid, text: int) -> int:
        return 0
