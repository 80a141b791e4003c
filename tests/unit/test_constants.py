"""Tensors of shapes alone are made once, whoever asks first, and serve whoever asks next."""

import pytest
import timm
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import suite
from suite.measure.trace import trace_forward
from suite.tokens import constants
from suite.tokens.constants import positions, remembered

CPU = torch.device("cpu")
METHODS = ["tome", "tome_random", "pitome", "evit", "uniform", "mctf"]


@pytest.fixture
def deit():
    return timm.create_model("deit_tiny_patch16_224", depth=2, img_size=64).eval()


def images(batch=2):
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_one_tensor_serves_all_who_ask_for_the_same():
    assert positions(0, 7, 2, CPU) is positions(0, 7, 2, CPU)
    assert positions(0, 7, 2, CPU).tolist() == [[0, 2, 4, 6]]
    assert positions(1, 7, 2, CPU) is not positions(0, 7, 2, CPU)


def test_no_more_than_a_bounded_number_is_kept(monkeypatch):
    monkeypatch.setattr(constants, "MOST", 3)
    made = []
    counted = remembered(lambda n: made.append(n) or torch.zeros(n))
    for n in (1, 2, 3, 4, 4, 1):
        counted(n)
    assert made == [1, 2, 3, 4, 1]


def test_what_inference_mode_made_is_an_ordinary_tensor():
    with torch.inference_mode():
        found = positions(3, 11, 1, CPU)
    assert not found.is_inference()


def test_a_fake_tensor_is_never_handed_to_a_real_forward_nor_a_real_one_to_a_fake():
    with FakeTensorMode():
        assert isinstance(positions(5, 9, 1, CPU), FakeTensor)
    assert not isinstance(positions(5, 9, 1, CPU), FakeTensor)
    with FakeTensorMode():
        assert isinstance(positions(5, 9, 1, CPU), FakeTensor)


@pytest.mark.parametrize("name", METHODS)
def test_a_forward_that_learns_after_one_in_inference_mode_and_a_trace_has_its_gradients(deit, name):
    with suite.attach(deit, name, "r=3"):
        trace_forward(deit, 2)
        with torch.inference_mode():
            expected = deit(images())
        logits = deit(images())
        logits.square().sum().backward()
    torch.testing.assert_close(logits.detach(), expected)
    assert deit.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_model_can_be_traced_exported_and_compiled_after_inference(deit, name):
    with suite.attach(deit, name, "r=3"), torch.no_grad():
        with torch.inference_mode():
            expected = deit(images())
        traced = torch.jit.trace(deit, images(), check_trace=False)
        torch.testing.assert_close(traced(images()), expected)
        exported = torch.export.export(deit, (images(),)).module()
        torch.testing.assert_close(exported(images()), expected)
        torch._dynamo.reset()  # a process compiles the same forward a few times, of all tests together
        compiled = torch.compile(deit, backend="aot_eager", fullgraph=True, dynamic=False)
        torch.testing.assert_close(compiled(images()), expected)
        with torch.inference_mode():  # and nothing that they made is left behind
            assert torch.equal(deit(images()), expected)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_another_size_has_constants_of_its_own(deit, name):
    with suite.attach(deit, name, "r=3"), torch.inference_mode():
        both, one = deit(images()), deit(images()[:1])
    torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-5)
