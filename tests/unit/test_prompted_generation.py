"""Pipelines of diffusers as models: from prompts and classes to scored pictures, and what all their parts cost."""

import shutil

import numpy as np
import pytest
import torch

from suite.api import run
from suite.attachment.attach import attach
from suite.errors import RequestError
from suite.measure.flops import count_flops, count_module
from suite.models.load import load_model
from suite.rates.rate import parse_rate
from suite.sweep.progress import Progress
from tasks.generation.pairs import read_png
from tasks.generation.prompted import Generation
from tests import pipelines

METHODS = ("none", "tome_sd", "tofu", "todo", "tome", "random", "uniform", "resize")
HALF = parse_rate("r=0.5")
RATES = {"none": None, "resize": parse_rate("side=12")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pipelines.write_stable_diffusion(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder))[0]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return str(pipelines.write_prompts(tmp_path_factory.mktemp("prompts")))


def pictures(task, model, samples=None):
    samples = task.samples if samples is None else samples
    noise = torch.stack([task.load(sample, task.preprocessing(model)) for sample in samples])
    rows = task.score(task.predict_samples(model, noise, samples), samples)
    return [row["picture"] for row in rows]


@pytest.mark.parametrize("name", METHODS)
def test_a_picture_is_the_same_in_another_process_alone_and_in_a_batch(name, folder, model, prompts):
    task = Generation(prompts, steps=3)
    task.configure(model)
    with attach(model, name, RATES.get(name, HALF)):
        together = pictures(task, model)
        alone = pictures(task, model, task.samples[1:2])
    again = load_model(str(folder))[0]
    task.configure(again)
    with attach(again, name, RATES.get(name, HALF)):
        assert pictures(task, again) == together
    apart = np.abs(read_png(alone[0]) - read_png(together[1]))
    assert (apart <= 1.01 / 255).mean() >= 0.999


@pytest.mark.parametrize(
    ("scheduler", "options", "calls"),
    [("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}, 6), ("EulerAncestralDiscreteScheduler", {}, 5)],
)
def test_what_all_parts_cost_is_known_and_calls_are_those_that_the_sampler_makes(scheduler, options, calls, tmp_path):
    folder = pipelines.write_stable_diffusion(tmp_path, scheduler, **({"steps_offset": 1} | options))
    model = load_model(str(folder))[0]
    noise = torch.randn(1, *model.noise_shape)
    report = count_flops(model, images=noise)
    assert not report.disputed
    rows = []
    model.backbone.register_forward_pre_hook(lambda _, args, named: rows.append(len(args[0])), with_kwargs=True)
    first = model.draw(noise, ["a cab"], 5, 7.5, [3])
    assert len(rows) == calls
    assert set(rows) == {2}
    assert torch.equal(first, model.draw(noise, ["a cab"], 5, 7.5, [3])), "a sampler's own draws follow from the seed"
    costs = model.macs_of_picture(noise, report.total, 5, 7.5, count_module)
    assert costs["picture"] == report.total * calls * 2
    assert costs["text"] == 2 * text_macs()
    assert costs["decoder"] == decoder_macs(model.decoder.vae)
    assert costs["whole"] == costs["text"] + costs["picture"] + costs["decoder"]
    assert model.macs_of_picture(noise, report.total, 5, 1, count_module)["picture"] == report.total * calls


def text_macs():
    """16 words of width 24 through one layer of CLIP's: four projections, attention, an MLP of 32."""
    return 16 * (4 * 24 * 24 + 2 * 24 * 32) + 2 * 16 * 16 * 24


def decoder_macs(vae):
    """Latents of 16 x 16: every weight times the places that it is used in, and attention in the middle."""
    places = {"conv_out": 32 * 32, "up_blocks.0.upsamplers": 32 * 32, "up_blocks.1": 32 * 32}
    total = 2 * 256 * 256 * 32
    for name, module in vae.named_modules():
        if name.startswith(("decoder.", "post_quant_conv")) and isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            inner = name.removeprefix("decoder.")
            count = next((n for part, n in places.items() if inner.startswith(part)), 256)
            total += module.weight.numel() * count
    return total


def test_a_diffusion_transformer_draws_classes_and_takes_no_prompts(tmp_path, prompts):
    model = load_model(str(pipelines.write_dit(tmp_path)))[0]
    task = Generation(limit=3, steps=2, guidance=4, max_downsample=2)
    task.check_model(model)
    task.configure(model)
    with attach(model, "tome_sd", HALF) as handle:
        drawn = pictures(task, model)
        assert handle.token_counts == [8, 8]
    assert len(set(drawn)) == 3
    with pytest.raises(RequestError, match="takes no images of another size than its own"):
        attach(model, "resize", parse_rate("keep=0.5"))
    with pytest.raises(RequestError, match="draws ImageNet's classes, not prompts"):
        Generation(prompts).check_model(model)
    with pytest.raises(RequestError, match=r"DiTTransformer2DModel draws pictures of 16 pixels alone"):
        load_model(str(tmp_path), image_size=32)


def test_pictures_may_have_another_size_where_the_denoiser_allows_it(folder, prompts):
    model = load_model(str(folder), image_size=48)[0]
    task = Generation(prompts, steps=2)
    task.configure(model)
    with attach(model, "tome_sd", HALF) as handle:
        noise = torch.stack([task.load(sample, task.preprocessing(model)) for sample in task.samples[:1]])
        assert noise.shape == (1, 4, 24, 24)
        assert task.predict_samples(model, noise, task.samples[:1]).shape == (1, 3, 48, 48)
        assert handle.token_counts == [288, 144, 288, 288]
    for size, message in ((50, "no multiple of the 4 pixels"),):
        with pytest.raises(RequestError, match=message):
            load_model(str(folder), image_size=size)


def test_a_picture_that_is_drawn_smaller_is_as_large_as_others_and_all_its_parts_cost_less(folder, model, prompts):
    task = Generation(prompts, steps=2)
    task.configure(model)
    noise = torch.stack([task.load(sample, task.preprocessing(model)) for sample in task.samples[:2]])
    seen = []
    watching = model.backbone.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[1:])))
    smaller, own = load_model(str(folder), image_size=24)[0], noise[:1]
    costs = {name: task.further_costs(of, x, 1, count_module) for name, of, x in (
        ("own", model, own), ("smaller", smaller, own[..., :12, :12]),
    )}  # fmt: skip
    with attach(model, "resize", parse_rate("side=12")):
        assert task.predict_samples(model, noise, task.samples[:2]).shape == (2, 3, 32, 32)
        assert task.further_costs(model, own, 1, count_module) == costs["smaller"]
    watching.remove()
    assert set(seen) == {(4, 12, 12)}
    assert costs["smaller"]["decoder"] < costs["own"]["decoder"]
    assert costs["smaller"]["text"] == costs["own"]["text"]


def test_what_does_not_fit_a_pipeline_is_refused(folder, model):
    with pytest.raises(RequestError, match="has its folder's weights"):
        load_model(str(folder), "none")
    with pytest.raises(RequestError, match="has no classes to be told"):
        load_model(str(folder), num_classes=10)
    with pytest.raises(RequestError, match="comes without weights; give its pipeline's folder as the checkpoint"):
        load_model("stable-diffusion-v1-5")
    with pytest.raises(RequestError, match="is no stable-diffusion-v1-5: its sample_size is 16, not 64"):
        load_model("stable-diffusion-v1-5", str(folder))
    with pytest.raises(RequestError, match="needs a pipeline"):
        Generation(limit=1).check_model(load_model("scenes_dit")[0])


@pytest.mark.slow
def test_a_run_scores_counts_and_shows_pictures_of_prompts_and_goes_on_where_it_was_killed(folder, prompts, tmp_path):
    def go(out, **more):
        asked = {"task": "generation", "model": str(folder), "data": prompts, "task_options": {"steps": 2},
                 "batch_size": 2, "out": str(out), "speed": False} | more  # fmt: skip
        return run(asked, reducers=["tome_sd", "tofu"], rates=["r=0.5"], progress=Progress(quiet=True))

    results = go(tmp_path / "run")
    assert not results.failed
    frame = results.frame().set_index("reducer")
    assert frame.loc["none", "ssim"] == pytest.approx(1)
    assert (frame.whole_gmacs > frame.picture_gmacs).all()
    assert frame.loc["tome_sd", "picture_gmacs"] < frame.loc["none", "picture_gmacs"]
    assert not frame.disputed.any()
    assert frame.fid.isna().all()
    assert (tmp_path / "run/report/pictures.png").is_file()
    assert (tmp_path / "run/report/tokens.png").is_file()
    whole = {key: results.samples(key).set_index("id")["picture"].to_dict() for key in results.frame().index}
    for cell in (tmp_path / "run/cells").iterdir():  # as if nothing but the request had been written
        shutil.rmtree(cell)
    again = go(tmp_path / "run")
    assert {key: again.samples(key).set_index("id")["picture"].to_dict() for key in again.frame().index} == whole
