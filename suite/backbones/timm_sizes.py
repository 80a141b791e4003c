"""timm's VisionTransformer at another image size, all weights shared: what timm's `set_input_size` makes of a model."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from timm.layers import Format, PatchEmbed, resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from suite.backbones.mixin import Reduced
from suite.errors import RequestError


def stem_of(model: nn.Module) -> nn.Module | None:
    """What makes patches of an image: timm's `patch_embed`, which NaFlexVit calls `embeds`."""
    return getattr(model, "patch_embed", None) or getattr(model, "embeds", None)


if TYPE_CHECKING:
    Beside = VisionTransformer
else:
    Beside = object  # what it is mixed into is a model


class Placed(Beside):
    """Mixed into the class of a copy of a model whose images have another grid of patches than the model's own.

    Position embeddings are those of the model, resampled whenever they are asked for; in plain inference they are kept
    as long as they stay what they were.
    """

    _own_grid: tuple[int, int]
    _kept: tuple[Tensor, int, int, Tensor] | None

    @property
    def pos_embed(self) -> Tensor | None:  # type: ignore[override]
        """(1, N, C) bicubic with antialiasing, in float32, as timm does it; prefix tokens keep theirs."""
        own = self._parameters.get("pos_embed")
        if own is None:
            return None
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_grad_enabled() or own.is_inference():
            return self._resampled(own)
        kept = self._kept
        if kept is None or kept[0] is not own or kept[1:3] != (own.data_ptr(), own._version):
            with torch.inference_mode(False):  # of use to whoever asks later
                kept = self._kept = own, own.data_ptr(), own._version, self._resampled(own.detach())
        return kept[3]

    def _resampled(self, own: Tensor) -> Tensor:
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        grid = cast(PatchEmbed, self.patch_embed).grid_size
        return resample_abs_pos_embed(own, list(grid), list(self._own_grid), prefix)


@cache
def placed_class(cls: type) -> Any:
    return type(f"Placed{cls.__name__}", (Placed, cls), {})


def placed(model: VisionTransformer, size: tuple[int, int]) -> VisionTransformer:
    """A copy for images of `size` (H, W), in whole patches. RequestError where a stem has one image size alone."""
    embed = model.patch_embed
    if not isinstance(embed, PatchEmbed):
        kind = type(embed).__name__
        raise RequestError(f"the patches of model {type(model).__name__!r} are made by {kind}, of one image size alone")
    stem = copy.copy(embed)
    stem.set_input_size(size)
    # as of a model that was not built for all sizes
    vars(stem).update(strict_img_size=True, flatten=True, output_fmt=Format.NCHW)
    cls = type(model).__bases__[1] if isinstance(model, Reduced) else type(model)
    twin: VisionTransformer = object.__new__(placed_class(cls))
    vars(twin).update({**vars(model), "_modules": {**model._modules, "patch_embed": stem}})
    vars(twin).update(dynamic_img_size=False, _own_grid=embed.grid_size, _kept=None)
    vars(twin).pop("_reducerbench", None)
    return twin
