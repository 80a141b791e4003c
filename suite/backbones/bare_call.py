"""Calls of diffusers' denoisers with nothing but noise, as whoever counts, times or looks at a backbone calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

CLIP_LENGTH = 77  # tokens of a prompt
MIDDLE = 500  # of the 1000 time steps that schedules have


@dataclass(frozen=True)
class BareCall:
    """Fills up a call with what a prompt of `length` tokens that say nothing comes to, in the middle of the schedule.

    Other calls are left as they are. Kept by a model as `bare_call`.
    """

    length: int

    def register(self, model: nn.Module) -> None:
        """Hook on a `UNet2DConditionModel`, `DiTTransformer2DModel` or `PixArtTransformer2DModel`."""
        model.bare_call = self  # type: ignore[assignment]
        model.register_forward_pre_hook(self.fill, with_kwargs=True)

    def fill(self, model: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if named or len(args) != 1:
            return None
        return args, self.conditions(model.config, args[0])

    def conditions(self, config: Any, noise: Tensor) -> dict[str, Any]:
        """Arguments beside noise (B, C, H, W), all of B rows."""
        rows = len(noise)
        given: dict[str, Any] = {"timestep": noise.new_full((rows,), MIDDLE).long()}
        width = getattr(config, "cross_attention_dim", None)
        if captions := getattr(config, "caption_channels", None):
            width = captions
        if width:
            given["encoder_hidden_states"] = noise.new_zeros(rows, self.length, width)
        if getattr(config, "norm_type", "") == "ada_norm_zero":  # DiT
            given["class_labels"] = noise.new_zeros(rows).long()
        if getattr(config, "addition_embed_type", None) == "text_time":  # Stable Diffusion XL
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            added = {"text_embeds": noise.new_zeros(rows, pooled), "time_ids": noise.new_zeros(rows, 6)}
            given["added_cond_kwargs"] = added
        if captions:  # PixArt
            sizes = {"resolution": noise.new_zeros(rows, 2), "aspect_ratio": noise.new_zeros(rows, 1)}
            given["added_cond_kwargs"] = sizes
        return given


def build_u_net(**config: Any) -> Any:
    """A `UNet2DConditionModel` with random weights, as of Stable Diffusion where `config` says nothing else."""
    from diffusers import UNet2DConditionModel

    model: Any = UNet2DConditionModel(**config)
    BareCall(CLIP_LENGTH).register(model)
    return model
