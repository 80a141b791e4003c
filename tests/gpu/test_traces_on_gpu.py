"""A forward on a GPU beside its trace: kernels and memory; and a session of `gpu` on it.

DeiT-S without its weights, bf16: of a tiny model the work space of cuBLAS would be most of the memory.
"""

from functools import partial

import pytest
import timm
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from suite import attach
from suite.analyse.gpu.session import find_cuda, measure_trial, read_session
from suite.analyse.gpu.stages import SMALL, Stage, Trial
from suite.measure.trace import trace_forward
from suite.sweep.progress import Progress

CELLS = [("none", None), ("tome", "r=13"), ("evit", "keep=0.7"), ("topk", "keep=0.7"), ("mctf", "r=16")]
BATCH = 64
MORE, WORK_SPACE = 1.3, 72 * 2**20
"""Memory is at most that much more than traced, and the work spaces of cuBLAS (32 MiB on Hopper) and cuBLASLt beside
it: the allocator rounds up, and libraries take what the trace does not see. It is no less than traced by the factor."""
LAUNCHES = 0.3
"""Share by which launches may differ: how many kernels a sort, a scatter or a reduction is, the library decides by GPU
and shape. Of the unreduced model, which has none of them, a tenth; a product that is split among blocks is two."""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model(SMALL).eval().to(torch.bfloat16)


@pytest.fixture
def held():
    """Bytes on the GPU before the model is there."""
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


@pytest.fixture
def forward(held, model, name, rate):
    """One forward of the model with the method on the GPU, where another ran before it."""
    images = torch.randn(BATCH, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
    model.cuda()
    try:
        with attach(model, name, rate) as handle:
            handle.reducer.to(torch.bfloat16)
            run = torch.inference_mode()(partial(model, images))
            run()
            handle.forget()  # the features of the last forward are no part of the next
            torch.cuda.synchronize()
            yield run
    finally:
        model.cpu()


@pytest.mark.parametrize(("name", "rate"), CELLS)
def test_memory_is_as_traced(held, model, forward):
    torch.cuda.reset_peak_memory_stats()
    forward()
    measured = torch.cuda.max_memory_allocated() - held
    traced = trace_forward(model, BATCH, "bf16").peak
    assert traced / MORE <= measured <= traced * MORE + WORK_SPACE


@pytest.mark.parametrize(("name", "rate"), CELLS)
def test_as_many_kernels_are_launched_as_traced(model, forward, name):
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        forward()
        torch.cuda.synchronize()
    launched = sum(event.device_type == DeviceType.CUDA for event in profiled.events())
    traced = trace_forward(model, BATCH, "bf16").launches
    assert launched == pytest.approx(traced, rel=0.1 if name == "none" else LAUNCHES)


def test_a_session_times_eager_and_graphs_and_writes_a_file(tmp_path):
    trial = Trial(
        stages=(Stage("test_vit", "eager", 0.5), Stage("test_vit", "graphs", 1.0)), methods=("tome", "ats"),
        targets=("flops=-20%",), batch_size=32, rounds=2, block_s=0.01, warmup_s=0.01,
    )  # fmt: skip
    file, content = measure_trial(trial, find_cuda(), "h100", 120, tmp_path, Progress(quiet=True))
    assert read_session(file) == content
    measured = {(cell["runtime"], cell["method"]): cell["measured"] for cell in content["cells"]}
    assert set(measured) == {
        *(("eager", name) for name in ("none", "tome", "ats")), *(("graphs", name) for name in ("none", "tome"))
    }  # fmt: skip
    assert all(one["im_s"] > 0 and one["peak_memory_bytes"] > 0 for one in measured.values())
