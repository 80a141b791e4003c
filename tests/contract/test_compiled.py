"""Every method whose schedule is fixed, compiled and captured: one graph a shape, no break, and the same outputs."""

import pytest
import torch
from tiny_models import REDUCERS, make_images, make_model, rates, reducer_id

from suite import attach
from suite.measure.runtimes import make_runtime
from suite.reducers import reducer_class
from tests.perf.graph_breaks import Compilation, compile_counted
from tests.tiers import mostly_slow

FIXED = [name for name in REDUCERS if not reducer_class(name).input_dependent]
ONE_GRAPH = Compilation(graphs=1, breaks=0, reasons=(), again=0, other=1, wrong=0.0)


@pytest.mark.parametrize(
    "name", [mostly_slow(6, (place,), (name,), reducer_id(name)) for place, name in enumerate(FIXED)]
)
def test_a_method_is_one_graph_without_a_break_and_compiled_once_a_shape(name):
    model = make_model(depth=3)
    with attach(model, name, rates(name)[0]):
        assert compile_counted(model, make_images(model, batch=3)) == ONE_GRAPH


def test_a_break_and_a_second_compilation_are_counted():
    model = make_model(depth=2)
    with attach(model, "ats", "keep=0.7"):  # reads from the host how many tokens stay
        found = compile_counted(model, make_images(model, batch=3))
    assert found.graphs > 1
    assert found.breaks > 0
    assert all(found.reasons)
    assert found.reasons


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="capturing a CUDA graph needs a GPU")
@pytest.mark.parametrize("name", FIXED, ids=reducer_id)
@torch.inference_mode()
def test_a_cuda_graph_replays_the_model_on_new_images(name):
    model = make_model().cuda()
    images = make_images(model, batch=4).cuda()
    with attach(model, name, rates(name)[0]):
        prepared = make_runtime("graphs").prepare(model, images)
        for batch in (images, images.flip(0) * 0.5):
            torch.testing.assert_close(prepared.forward(batch), model(batch), atol=1e-4, rtol=1e-3)
