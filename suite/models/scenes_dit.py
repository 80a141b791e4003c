"""The embedded denoiser and the classifier that judges what it draws: pictures of the embedded scenes' main objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from suite.backbones.branched import BranchScope
from suite.backbones.scenes_dit import PICTURE_SIDE, ScenesDiT
from suite.errors import RequestError
from suite.models.drawn_smaller import enlarged, smaller_noise
from suite.models.load import load_model
from suite.models.random_weights import build_random
from suite.models.registry import WEIGHTS, ModelEntry
from suite.models.scenes_vit import SCENES_CLASSES, SCENES_SIDE
from suite.models.weights_file import WeightsInfo, check_fit, file_sha256, state_dict_sha256

JUDGE = "scenes_vit"
REAL = WEIGHTS / "scenes_dit_real_features.safetensors"


def build_denoiser() -> ScenesDiT:
    """With random weights."""
    return ScenesDiT(SCENES_CLASSES)


class ScenesGenerator(nn.Module):
    """Draws a picture from noise and a class, and says what it takes a picture for.

    backbone: the denoiser, which is what is reduced. judge: the embedded classifier, which never is. real_features:
    (n, 96) what the judge makes of real pictures, as `look` does.
    """

    real_features: Tensor
    noise_shape = (3, PICTURE_SIDE, PICTURE_SIDE)
    wanted_first = False  # with guidance, the second half of a batch is of the class

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_denoiser()
        self.judge = cast(VisionTransformer, load_model(JUDGE, "embedded")[0])
        known = load_file(REAL)["features"].float() if REAL.is_file() else torch.empty(0, self.judge.embed_dim)
        self.register_buffer("real_features", known, persistent=False)

    def scope_branches(self, branches: tuple[str, ...], max_downsample: int) -> None:
        """Which branches of which blocks a reducer acts in. RequestError for what is no scope."""
        self.backbone.branch_scope = BranchScope(branches, max_downsample)

    def draw(self, noise: Tensor, classes: Tensor, steps: int, guidance: float) -> Tensor:
        """(B, 3, 56, 56) in [-1, 1]; see `ScenesDiT.draw`."""
        small = smaller_noise(self.backbone, noise)
        drawn = self.backbone.draw(small, classes, steps, guidance).clamp(-1, 1)
        return enlarged(drawn, small, noise)

    def macs_of_picture(
        self, noise: Tensor, backbone: int, steps: int, guidance: float, count: Callable[..., int]
    ) -> dict[str, float]:
        """`picture`: of all calls of the denoiser, `backbone` a row; guidance doubles their rows."""
        return {"picture": float(backbone * steps * (1 if guidance == 1 else 2))}

    def look(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures in [-1, 1] of any size -> logits (B, 48) and features (B, 96) of the judge."""
        seen = F.interpolate(
            pictures.clamp(-1, 1), size=(SCENES_SIDE, SCENES_SIDE), mode="bilinear", align_corners=False
        )
        tokens = self.judge.forward_features(seen)
        return self.judge.forward_head(tokens), self.judge.forward_head(tokens, pre_logits=True)


def build_scenes_generator() -> ScenesGenerator:
    """With a denoiser of random weights, and the judge as it comes."""
    return ScenesGenerator()


def load_scenes_generator(entry: ModelEntry, checkpoint: str, seed: int = 0) -> tuple[ScenesGenerator, WeightsInfo]:
    """The generator in float32 on the CPU, and what its denoiser's weights are.

    `checkpoint`: 'embedded', 'none' (random weights from `seed`) or a .safetensors file of the denoiser. RequestError,
    one line, for whatever cannot be had or is of another model.
    """
    if checkpoint == "pretrained":
        raise RequestError(f"model '{entry.name}' has no pretrained weights; use checkpoint embedded, none or a file")
    model = build_random(entry, seed)
    if checkpoint == "none":
        return model, WeightsInfo("random", f"random:seed={seed}", state_dict_sha256(model.state_dict()))
    path = Path(entry.locate(checkpoint))
    if path.suffix != ".safetensors" or not path.is_file():
        raise RequestError(f"checkpoint '{path}' is no .safetensors file; give one of this model, embedded or none")
    state = {name: value.float() for name, value in load_file(path).items()}
    remedy = f"give a checkpoint of {entry.name}"
    check_fit(model.backbone.state_dict(), state, f"checkpoint '{path}' is of another model", remedy)
    model.backbone.load_state_dict(state)
    source = f"embedded:{entry.name}" if checkpoint == "embedded" else str(path)
    return model, WeightsInfo("trained", source, file_sha256(path))
