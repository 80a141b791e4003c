"""Pipelines of diffusers, made of its own classes with random weights: from a prompt to a PNG under every method."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from suite.attachment.attach import attach
from suite.errors import RequestError
from suite.models.diffusers_pipeline import denoiser_of, load_pipeline
from suite.rates.rate import parse_rate

diffusers = pytest.importorskip("diffusers", reason="extra 'generation' is not installed")
pytestmark = pytest.mark.slow
METHODS = ("none", "tome_sd", "tofu", "todo", "tome", "random", "uniform")


def tokenizer(folder):
    from transformers import CLIPTokenizer

    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        "ab",
        *(f"{letter}{end}" for letter in "abcdefgh" for end in ("", "</w>")),
    ]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=40, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=(32, 64), cross_attention_dim=24, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 32), norm_num_groups=8, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        vae, CLIPTextModel(text), tokenizer(tmp_path_factory.mktemp("words")), unet,
        diffusers.DDIMScheduler(steps_offset=1, clip_sample=False), None, None, requires_safety_checker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def draw(pipeline, file):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    pipeline("a bad cab", num_inference_steps=3, generator=generator, output_type="pil").images[0].save(file)
    return np.asarray(Image.open(file)).astype(int)


def test_every_method_draws_a_picture_of_a_prompt_and_nothing_is_left_behind(folder, tmp_path):
    pipeline = load_pipeline(folder)
    unet, plain = denoiser_of(pipeline), draw(pipeline, tmp_path / "plain.png")
    assert plain.shape == (32, 32, 3)
    for name in METHODS:
        with attach(unet, name, None if name == "none" else parse_rate("r=0.5")):
            drawn, again = (draw(pipeline, tmp_path / f"{name}{i}.png") for i in range(2))
        assert (drawn == again).all()
        assert (drawn == plain).all() == (name == "none")
    assert (draw(pipeline, tmp_path / "after.png") == plain).all()


def test_a_pickle_in_the_folder_is_refused_and_so_is_what_is_no_pipeline(folder, tmp_path):
    pickle = folder / "unet" / "diffusion_pytorch_model.bin"
    pickle.write_bytes(b"\x80\x02.")
    try:
        with pytest.raises(RequestError, match=r"diffusion_pytorch_model\.bin' is a pickle"):
            load_pipeline(folder)
    finally:
        pickle.unlink()
    with pytest.raises(RequestError, match=r"has no model_index\.json"):
        load_pipeline(tmp_path)
