"""What a forward would launch on a GPU, counted on tensors that have shapes alone."""

import copy
import json

import pytest
import timm
import torch

import suite
from suite.measure.kernels import Trace
from suite.measure.roofline import H100
from suite.measure.trace import Followed, trace_forward, trace_images
from suite.models.load import load_model
from tests.perf.kernels import efficiency


@pytest.fixture(scope="module")
def deit():
    return timm.create_model("deit_tiny_patch16_224", depth=4).eval()


def followed(work):
    with torch.inference_mode(), Followed() as seen:
        work()
    return [(kernel.name, kernel.launches, kernel.moved) for kernel in seen.kernels]


def test_a_plain_block_is_ten_kernels_and_the_rest_of_the_model_six(deit):
    assert trace_forward(deit, 8).launches == 4 * 10 + 6


def test_products_and_attention_are_counted_as_the_flop_counter_counts_them(deit):
    assert trace_forward(deit, 8).macs == pytest.approx(8 * suite.count_flops(deit).total, rel=0.001)


def test_bytes_are_operands_and_results_with_repeated_elements_once():
    a, b = torch.zeros(4, 8), torch.zeros(1, 8).expand(4, 8)
    assert followed(lambda: a + b) == [("add", 1, (32 + 8 + 32) * 4)]
    assert followed(lambda: a[:2].t()) == []
    index = torch.tensor([0, 3])
    assert followed(lambda: a.index_select(0, index)) == [("index_select", 1, 2 * 8 + 2 * 16 * 4)]


def test_sorting_is_four_kernels_and_an_out_of_place_scatter_two():
    a, index = torch.rand(4, 8), torch.zeros(4, 2, dtype=torch.int64)
    assert [k[:2] for k in followed(lambda: a.argsort(stable=True))] == [("sort", 4)]
    assert [k[:2] for k in followed(lambda: a.scatter(1, index, 1.0))] == [("scatter", 2)]
    assert [k[:2] for k in followed(lambda: a.scatter_(1, index, 1.0))] == [("scatter_", 1)]


def test_composite_operators_are_taken_apart():
    names = [name for name, _, _ in followed(lambda: torch.nn.functional.normalize(torch.ones(2, 3)))]
    assert names == ["ones", "linalg_vector_norm", "clamp_min", "div"]


def test_a_host_read_is_seen():
    with torch.inference_mode(), Followed() as seen:
        float(torch.ones(2).sum())
    assert [kernel.host_read for kernel in seen.kernels] == [False, False, True]


def test_a_trace_leaves_model_and_reducer_as_they_are(deit):
    images = torch.rand(1, 3, 224, 224)
    with suite.attach(deit, "dtem", "r=13"), torch.inference_mode():
        before = deit(images)
        reduced = trace_forward(deit, 8)
        assert torch.equal(deit(images), before)
    assert reduced.host_reads == 0
    assert reduced.launches > 4 * 10 + 6


def test_a_reducer_that_launches_nothing_would_be_as_efficient_as_its_count(deit):
    plain = trace_forward(deit, 64)
    assert efficiency(plain, plain, H100) == 1
    with suite.attach(deit, "tome", "r=13"):
        assert efficiency(trace_forward(deit, 64), plain, H100) < 1


def test_peak_memory_holds_the_weights_and_grows_with_the_batch(deit):
    weights = 2 * sum(p.numel() for p in deit.parameters())
    small, large = trace_forward(deit, 1).peak, trace_forward(deit, 64).peak
    assert weights < small < large


def test_a_forward_on_images_launches_what_one_on_shapes_does(deit):
    images = torch.rand(2, 3, 224, 224)
    with suite.attach(deit, "tome", "r=13"):
        on_images, on_shapes = trace_images(deit, images, "fp32"), trace_forward(deit, 2, "fp32")
    assert on_images == on_shapes


def test_what_hands_a_tensor_to_the_cpu_is_a_host_read_even_there(deit):
    class Counting(type(deit)):
        def forward(self, x):
            return super().forward(x[: len(x.sum(dim=(1, 2, 3)).tolist())])

    plain, images = trace_images(deit, torch.rand(2, 3, 224, 224)), torch.rand(2, 3, 224, 224)
    counting = copy.deepcopy(deit)
    counting.__class__ = Counting
    assert (plain.host_reads, trace_images(counting, images).host_reads) == (0, 1)


def test_a_method_that_brings_weights_of_the_backbone_is_traced_with_them():
    model, _ = load_model("scenes_vit", "embedded")
    with suite.attach(model, "mctf", "r=13"):
        bare = trace_forward(model, 8)
    with suite.attach(model, "mctf", "r=13", weights="embedded:scenes_vit/mctf"):
        assert trace_forward(model, 8) == bare


def test_a_trace_is_stored_as_its_different_kernels_and_comes_back(deit):
    trace = trace_forward(deit, 8)
    rows = json.loads(json.dumps(trace.rows()))
    assert len(rows) < len(trace.kernels) / 3
    back = Trace.of_rows(rows, trace.peak)
    assert sorted(back.kernels, key=str) == sorted(trace.kernels, key=str)
    assert H100.seconds(back) == pytest.approx(H100.seconds(trace))
    half = Trace.of_rows(rows, trace.peak, 0.5)
    assert (half.launches, half.macs) == (trace.launches, trace.macs // 2)
