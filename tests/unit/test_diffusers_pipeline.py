"""Pipelines of diffusers, made of its own classes with random weights: from a prompt to a PNG under every method."""

import numpy as np
import pytest
import torch
from PIL import Image

from suite.attachment.attach import attach
from suite.errors import RequestError
from suite.models.diffusers_pipeline import denoiser_of, load_pipeline
from suite.rates.rate import parse_rate
from tests import pipelines

pytestmark = pytest.mark.slow
METHODS = ("none", "tome_sd", "tofu", "todo", "tome", "random", "uniform")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pipelines.write_stable_diffusion(tmp_path_factory.mktemp("pipeline"))


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
