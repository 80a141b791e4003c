"""Every runtime, by being listed: what it prepares returns what the model returns, and stays what it promises."""

from functools import partial

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from suite import attach
from suite.attachment.handle import handle_of
from suite.measure.flops import smooth_image
from suite.measure.runtimes import list_runtimes, make_runtime
from suite.measure.speed import measure_speed

IMAGES = torch.cat([smooth_image(32, seed) for seed in range(4)])


@pytest.fixture(params=list_runtimes())
def runtime(request, monkeypatch):
    # traced and guarded as always; only the kernels are not built, which takes a minute and a C++ compiler
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    made = make_runtime(request.param)
    if not made.runs_on(IMAGES.device):
        pytest.skip(f"{made.name} does not run on {IMAGES.device}")
    return made


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=10).eval()


def test_what_is_prepared_returns_what_the_model_returns(runtime, model):
    with torch.inference_mode(), runtime.hold(2):
        for rate in (None, "r=2"):
            with attach(model, "tome", rate):
                expected = model(IMAGES)
                found = runtime.prepare(model, IMAGES).forward(IMAGES)
            if runtime.exact:
                assert torch.equal(found, expected)
            torch.testing.assert_close(found, expected)


def test_the_model_stays_what_it_was(runtime, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    handle = attach(model, "tome", "r=2")
    runtime.prepare(model, IMAGES)
    assert handle_of(model) is handle
    handle.detach()
    assert type(model) is VisionTransformer
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_was_compiled_goes_on_as_the_model_was(runtime, model):
    with torch.inference_mode():
        whole = model(IMAGES)
        with attach(model, "tome", "r=2"):
            reduced, prepared = model(IMAGES), runtime.prepare(model, IMAGES)
        torch.testing.assert_close(prepared.forward(IMAGES), reduced if runtime.compiler else whole)
    assert not torch.equal(reduced, whole)


def test_compiling_takes_time_and_running_as_it_is_takes_none(runtime, model):
    prepared = runtime.prepare(model, IMAGES)
    assert (prepared.seconds is None) == (runtime.compiler is None)
    assert prepared.seconds is None or prepared.seconds > 0


def test_it_is_timed_by_its_name(runtime, model):
    assert runtime.runs_on(IMAGES.device)
    result = measure_speed(
        model, IMAGES, ["tome r=2"], runtime=runtime.name, min_block_s=0, warmup_s=0, rounds=2
    )["tome r=2"]  # fmt: skip
    assert result.im_s > 0
    assert result.agreement == 1
    assert (result.compile_s is None) == (runtime.compiler is None)
    assert result.runtime == runtime.name
