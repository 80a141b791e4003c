"""Every method on a GPU: what it does on the CPU, nothing read by the host, and the same when it is replayed."""

import warnings

import pytest
import torch

from suite import attach
from suite.measure.precision import exact_float32
from suite.measure.runtimes import make_runtime
from suite.measure.runtimes.graphs import largest_difference
from tests.gpu.on_gpu import FIXED, METHODS, host_reads, model_and_images, rate_of, reducer_of
from tests.tolerances import TINY32


@pytest.mark.parametrize("name", METHODS)
def test_in_float32_it_groups_as_on_the_cpu_and_its_logits_are_as_near_as_other_kernels_come(name):
    model, images = model_and_images()
    reducer, found = reducer_of(name), []
    for device in ("cpu", "cuda"):
        with exact_float32(), torch.inference_mode(), attach(model.to(device), reducer, rate_of(name)) as handle:
            logits = model(images.to(device)).cpu()
            found.append((logits, handle.tokens.owner.cpu() if reducer.exact_groups else None))
    (expected, owner), (logits, owner_there) = found
    if owner is not None:
        assert torch.equal(owner_there, owner)
    # twice as far: both sides are off, and the kernels of a GPU round exponentials by up to 2 units in the last place
    torch.testing.assert_close(logits, expected, atol=2 * TINY32["atol"], rtol=2 * TINY32["rtol"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", METHODS)
def test_in_half_precision_its_logits_are_numbers(name, dtype):
    model, images = model_and_images()
    model, images, reducer = model.to("cuda", dtype), images.to("cuda", dtype), reducer_of(name).to("cuda", dtype)
    with torch.inference_mode(), attach(model, reducer, rate_of(name)):
        logits = model(images)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", FIXED)
def test_the_host_reads_nothing_in_a_forward(name):
    model, images = model_and_images()
    model, images = model.cuda(), images.cuda()
    with torch.inference_mode(), attach(model, reducer_of(name), rate_of(name)):
        model(images)  # constants are made and libraries loaded
        with host_reads("error"):
            model(images)


def test_ats_reads_once_at_most_a_block_that_reduces():
    model, images = model_and_images()
    model, images = model.cuda(), images.cuda()
    with torch.inference_mode(), attach(model, "ats", "keep=0.7") as handle:
        model(images)
        with warnings.catch_warnings(record=True) as said, host_reads("warn"):
            warnings.simplefilter("always")
            model(images)
        reads = [one for one in said if "called a synchronizing" in str(one.message)]
        reducing = sum(amount > 0 for amount in handle.schedule(handle.layout.tokens).amounts)
    assert 0 < len(reads) <= reducing


@pytest.mark.parametrize("name", FIXED)
def test_a_replayed_graph_is_the_eager_forward_bit_by_bit_unless_two_eager_ones_are_not(name):
    model, images = model_and_images()
    model, images = model.to("cuda", torch.bfloat16), images.to("cuda", torch.bfloat16)
    reducer = reducer_of(name).to("cuda", torch.bfloat16)
    with torch.inference_mode(), attach(model, reducer, rate_of(name)):
        prepared = make_runtime("graphs").prepare(model, images)
        for batch in (images, images.flip(0)):
            eager = [model(batch) for _ in range(5)]
            replayed = prepared.forward(batch).clone()
            if all(torch.equal(eager[0], again) for again in eager):
                assert torch.equal(replayed, eager[0])
            else:  # sums by atomic additions, in whatever order: a replay is one more of them
                spread = max(largest_difference(one, other) for one in eager for other in eager)
                assert min(largest_difference(replayed, one) for one in eager) <= 2 * spread
