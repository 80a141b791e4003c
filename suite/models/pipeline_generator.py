"""A pipeline of diffusers as a model that draws: its denoiser is what is reduced, and its parts are what costs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from suite.backbones.bare_call import BareCall
from suite.backbones.branched import BranchScope
from suite.errors import RequestError
from suite.models.diffusers_pipeline import denoiser_of, load_pipeline
from suite.models.drawn_smaller import enlarged, smaller_noise
from suite.models.registry import ModelEntry
from suite.models.weights_file import WeightsInfo, file_sha256

LONGEST = 512  # tokens of a prompt: tokenizers without a limit of their own say more
FIXED = {"use_resolution_binning": False, "clean_caption": False}
"""Of pipelines that know them: pictures have the size that is asked for, and prompts are taken as they are."""


class PipelineGenerator(nn.Module):
    """Draws a picture from noise and a prompt, or a class where `by_class`.

    backbone: the denoiser. encoders: of the text. decoder: of latents. noise_shape: (C, H, W) of the latent.
    wanted_first: with guidance, the first half of a batch of the denoiser's is of what is wanted, as in DiT's pipeline.
    """

    def __init__(self, pipeline: Any) -> None:
        """RequestError for a pipeline without a denoiser that can be reduced, or without a decoder."""
        super().__init__()
        self.pipeline, self.backbone = pipeline, denoiser_of(pipeline)
        if not isinstance(getattr(pipeline, "vae", None), nn.Module):
            raise RequestError(f"{type(pipeline).__name__} has no vae to decode what is drawn")
        self.decoder = Decoder(pipeline.vae)
        encoders = (getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2"))
        self.encoders = nn.ModuleList(encoder for encoder in encoders if isinstance(encoder, nn.Module))
        self.takes = set(inspect.signature(pipeline.__call__).parameters)
        self.by_class = "class_labels" in self.takes
        if self.by_class == ("prompt" in self.takes):
            raise RequestError(f"{type(pipeline).__name__} draws neither prompts nor classes; give another pipeline")
        self.wanted_first = self.by_class
        pipeline.set_progress_bar_config(disable=True)
        BareCall(self.prompt_length).register(self.backbone)

    @property
    def prompt_length(self) -> int:
        """Tokens that a prompt is filled up to; 1 where there is none."""
        if self.by_class:
            return 1
        asked = inspect.signature(self.pipeline.__call__).parameters.get("max_sequence_length")
        return int(asked.default) if asked else min(int(self.pipeline.tokenizer.model_max_length), LONGEST)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        config: Any = self.backbone.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(config.in_channels), int(height), int(width)

    @property
    def scale(self) -> int:
        """Pixels of a picture's side to one of a latent's."""
        return int(2 ** (len(self.pipeline.vae.config.block_out_channels) - 1))

    def scope_branches(self, branches: tuple[str, ...], max_downsample: int) -> None:
        """Which branches of which blocks a reducer acts in. RequestError for what is no scope."""
        backbone: Any = self.backbone
        backbone.branch_scope = BranchScope(branches, max_downsample)

    def draw(self, noise: Tensor, wanted: Sequence[Any], steps: int, guidance: float, seeds: Sequence[int]) -> Tensor:
        """Noise (B, C, H, W) -> pictures of prompts or classes (B,), (B, 3, H', W') in [-1, 1].

        seeds: that the noise was drawn from, on the CPU. A sampler that draws on goes on with the sample's own.
        """
        small = smaller_noise(self.backbone, noise)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        given = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": generators, "output_type": "pt"}
        given |= {name: value for name, value in FIXED.items() if name in self.takes}
        given["class_labels" if self.by_class else "prompt"] = list(wanted)
        if "latents" in self.takes:  # else it draws the same noise from the same seeds itself
            for generator in generators:
                torch.randn(noise.shape[1:], generator=generator)
            given["latents"] = small
            if "height" in self.takes:
                given |= {"height": self.scale * small.shape[-2], "width": self.scale * small.shape[-1]}
        with torch.no_grad():
            pictures = self.pipeline(**given).images
        if not isinstance(pictures, Tensor):  # of a DiT, in early releases: (B, H', W', 3)
            pictures = torch.as_tensor(pictures, device=noise.device).movedim(-1, 1)
        return enlarged(2 * pictures - 1, small, noise)

    def macs_of_picture(
        self, noise: Tensor, backbone: int, steps: int, guidance: float, count: Callable[..., int]
    ) -> dict[str, float]:
        """Multiply-accumulates of a picture by its parts: text, picture (all calls of the denoiser, `backbone` a row),
        decoder, whole. Guidance doubles the text and the rows; samplers may make more calls than there are steps.

        noise: (1, C, H, W). count(module, *inputs): of one call.
        """
        rows = 1 if guidance == 1 else 2
        self.pipeline.scheduler.set_timesteps(steps)
        calls = len(self.pipeline.scheduler.timesteps)
        device = next(self.parameters()).device
        words = torch.zeros(1, self.prompt_length, dtype=torch.int64, device=device)
        latent = smaller_noise(self.backbone, noise).to(device)[:, : self.pipeline.vae.config.latent_channels]
        found = {
            "text": float(rows * sum(count(encoder, words) for encoder in self.encoders)),
            "picture": float(backbone * calls * rows),
            "decoder": float(count(self.decoder, latent)),
        }
        return found | {"whole": sum(found.values())}


class Decoder(nn.Module):
    """Latents (B, C, H, W) -> pictures, by the part of a vae that decodes."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        return cast(Tensor, self.vae.decode(latents).sample)


def load_pipeline_generator(
    entry: ModelEntry, checkpoint: str, seed: int = 0, image_size: int | None = None, num_classes: int | None = None
) -> tuple[PipelineGenerator, WeightsInfo]:
    """The pipeline of a folder, which is the entry's name or the checkpoint, in float32 on the CPU, and its weights.

    image_size: side of a picture in pixels, of denoisers that draw any; default the one that it was trained for.
    RequestError for other weights than a folder's own, and for what does not fit.
    """
    if num_classes is not None:
        raise RequestError(f"pipeline '{entry.name}' draws; it has no classes to be told, let alone {num_classes}")
    folder = folder_of(entry, checkpoint)
    model = PipelineGenerator(load_pipeline(folder))
    check_shape(entry, model.backbone, folder)
    if image_size is not None:
        resize_latent(model, image_size)
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()} {file_sha256(file)}\n".encode())
    return model, WeightsInfo("trained", str(folder), digest.hexdigest())


def folder_of(entry: ModelEntry, checkpoint: str) -> Path:
    """Of the pipeline. RequestError for a model that is known by its shape alone, and for weights beside a folder."""
    given = checkpoint not in ("pretrained", "none")
    if entry.build and not given:
        raise RequestError(f"model '{entry.name}' comes without weights; give its pipeline's folder as the checkpoint")
    if not entry.build and checkpoint != "pretrained":
        raise RequestError(f"pipeline '{entry.name}' has its folder's weights; leave checkpoint '{checkpoint}' out")
    return Path(checkpoint if entry.build else entry.name)


def check_shape(entry: ModelEntry, denoiser: Any, folder: Path) -> None:
    """RequestError for a pipeline that is not the one of that name."""
    for name, value in entry.shape.items():
        found = getattr(denoiser.config, name, None)
        if found != value:
            raise RequestError(f"checkpoint '{folder}' is no {entry.name}: its {name} is {found}, not {value}")


def resize_latent(model: PipelineGenerator, side: int) -> None:
    """Has pictures of `side` pixels drawn. RequestError for a side or a denoiser that does not allow it."""
    denoiser: Any = model.backbone
    scale = model.scale
    if side // scale == model.noise_shape[1] and not side % scale:
        return
    if type(denoiser).__name__ != "UNet2DConditionModel":
        raise RequestError(f"{type(denoiser).__name__} draws pictures of {model.noise_shape[1] * scale} pixels alone")
    step = 2 ** (len(denoiser.config.block_out_channels) - 1) * scale
    if side % step:
        raise RequestError(f"image_size {side} is no multiple of the {step} pixels that this denoiser halves down to 1")
    denoiser.register_to_config(sample_size=side // scale)
