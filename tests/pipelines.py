"""Tiny pipelines of diffusers, made of its own classes with random weights."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

diffusers = pytest.importorskip("diffusers", reason="extra 'generation' is not installed")
WORDS = ["<|startoftext|>", "<|endoftext|>", "ab", *(f"{c}{end}" for c in "abcdefgh" for end in ("", "</w>"))]
PROMPTS = ("a bad cab", "a cab", "a bad bed")


def tokenizer(folder: Path) -> CLIPTokenizer:
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=40, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


def vae() -> torch.nn.Module:
    return diffusers.AutoencoderKL(
        block_out_channels=(16, 32), norm_num_groups=8, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def write_stable_diffusion(folder: Path, scheduler: str = "DDIMScheduler", **of_scheduler: object) -> Path:
    """Pictures of 32 pixels: latents of 16, a U-Net with attention at their own resolution alone."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=(32, 64), cross_attention_dim=24, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    words = tokenizer(Path(tempfile.mkdtemp()))
    options = of_scheduler or {"steps_offset": 1, "clip_sample": False}
    sampler = getattr(diffusers, scheduler)(**options)
    parts = (vae(), CLIPTextModel(text_config()), words, unet, sampler, None, None)
    pipeline = diffusers.StableDiffusionPipeline(*parts, requires_safety_checker=False)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def write_dit(folder: Path) -> Path:
    """Pictures of 16 pixels of ImageNet's classes: 4 x 4 tokens of latents of 8."""
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8, out_channels=8
    )
    pipeline = diffusers.DiTPipeline(transformer, vae(), diffusers.DDIMScheduler())
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def write_prompts(folder: Path) -> Path:
    """A text file of three."""
    file = folder / "prompts.txt"
    file.write_text("\n".join(PROMPTS) + "\n")
    return file
