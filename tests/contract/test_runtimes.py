"""Every runtime, by being listed: what it prepares returns what the model returns, and stays what it promises."""

import sys
from functools import partial

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from suite import attach
from suite.attachment.handle import handle_of
from suite.errors import RequestError
from suite.measure.flops import smooth_image
from suite.measure.runtimes import list_runtimes, make_runtime, make_runtimes
from suite.measure.speed import measure_speed
from tests.tensorrt_stand_in import stand_in

IMAGES = torch.cat([smooth_image(32, seed) for seed in range(4)])


SLOW = {"aotinductor"}  # compiles with a C++ compiler, a minute each


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in list_runtimes()])
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


def test_a_runtime_whose_package_is_missing_names_it_and_what_installs_it():
    with pytest.raises(
        RequestError, match=r"'tensorrt': tensorrt is not installed; pip install 'reducerbench\[tensorrt\]'"
    ):
        make_runtimes(["eager", "tensorrt"], torch.device("cpu"))


def test_what_tensorrt_is_asked_for_is_right_by_a_stand_in(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())
    with torch.inference_mode(), attach(model, "tome", "r=2"):
        expected = model(IMAGES)
        prepared = make_runtime("tensorrt").prepare(model, IMAGES)
        torch.testing.assert_close(prepared.forward(IMAGES), expected)
        torch.testing.assert_close(prepared.forward(IMAGES.flip(0)), expected.flip(0))
    with pytest.raises(ValueError, match="no ONNX model"):
        sys.modules["suite.measure.runtimes.tensor_rt"].build_engine(b"something else")


def test_a_method_whose_counts_depend_on_the_image_is_a_failed_cell_that_says_why(model):
    result = measure_speed(model, IMAGES, ["ats keep=0.7"], runtime="onnxruntime", min_block_s=0, warmup_s=0, rounds=1)
    assert "depends on the image" in result["ats keep=0.7"].note
    assert result["ats keep=0.7"].im_s is None
