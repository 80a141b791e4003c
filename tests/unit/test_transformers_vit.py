"""transformers' Vision Transformers under a reducer: their own outputs where nothing is taken out."""

import pytest
import torch
import transformers as hf

from suite import RequestError, attach, count_flops
from suite.reducers.base import Reducer
from tests.tolerances import TINY32

SHAPE = {"image_size": 32, "patch_size": 4, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
WIDE = {**SHAPE, "intermediate_size": 64}
KINDS = {
    "ViTModel": lambda: hf.ViTModel(hf.ViTConfig(**WIDE)),
    "Dinov2Model": lambda: hf.Dinov2Model(hf.Dinov2Config(**SHAPE, mlp_ratio=2)),
    "DINOv3ViTModel": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**WIDE, num_register_tokens=4)),
    "CLIPVisionModel": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**WIDE)),
    "SiglipVisionModel": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**WIDE)),
}
METHODS = [
    ("tome", "r=6"),
    ("pitome", "r=6"),
    ("patchmerger", "keep=0.7"),
    ("resize", "keep=0.5"),
    ("evit", "keep=0.7"),
]
kinds = pytest.mark.parametrize("kind", KINDS)


class Untouched(Reducer):
    """Every block runs in pieces, and nothing is taken out."""

    def leaving(self, count, amount):
        return count

    def after_attention(self, tokens, signals, amount):
        return tokens


def make(kind, implementation="sdpa"):
    torch.manual_seed(0)
    model = KINDS[kind]()
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@kinds
@torch.no_grad()
def test_zero_reduction_gives_transformers_own_outputs_bit_for_bit(kind, implementation):
    model = make(kind, implementation)
    whole = model(images())
    for rate in ("r=0", None):
        with attach(model, "tome", rate):
            found = model(images())
            assert torch.equal(found.last_hidden_state, whole.last_hidden_state)
            assert torch.equal(found.pooler_output, whole.pooler_output)
    with attach(model, Untouched(), "r=1"):
        torch.testing.assert_close(model(images(), return_dict=False), whole.to_tuple(), **TINY32)
    assert torch.equal(model(images()).pooler_output, whole.pooler_output)


@pytest.mark.parametrize(("method", "rate"), METHODS, ids=[method for method, _ in METHODS])
@kinds
@torch.no_grad()
def test_a_method_passes_on_what_is_planned_at_a_cost_that_counters_agree_on(kind, method, rate):
    model = make(kind)
    if method == "evit" and kind == "SiglipVisionModel":
        with pytest.raises(RequestError, match="no class token"):
            attach(model, method, rate)
        return
    with attach(model, method, rate) as handle:
        pooled = model(images()).pooler_output
        assert handle.token_counts == handle.planned_counts
        torch.testing.assert_close(model(images()[1:]).pooler_output, pooled[1:], **TINY32)
        report = count_flops(model)
    assert not report.disputed, report.why
    assert report.total - report.reducer == report.formula


@torch.no_grad()
def test_a_head_that_pools_by_attention_reads_a_merged_token_as_often_as_it_stands_for():
    model = make("SiglipVisionModel")
    with attach(model, "tome", "r=6@3") as handle:  # in the last block: what merged is alike for the head alone
        found = model(images())
        sizes = handle.tokens.sizes
        states = [state.repeat_interleave(size.long(), dim=0) for state, size in zip(found.last_hidden_state, sizes)]
        torch.testing.assert_close(found.pooler_output, model.head(torch.stack(states)), **TINY32)


@torch.no_grad()
def test_padding_of_samples_with_fewer_tokens_is_read_by_no_head():
    model = make("DINOv3ViTModel")
    with attach(model, "ats", "keep=0.7"):
        both = model(images()).pooler_output
        torch.testing.assert_close(model(images()[:1]).pooler_output, both[:1], **TINY32)


def test_what_is_no_backbone_itself_or_asks_for_more_is_one_clear_line():
    torch.manual_seed(0)
    whole = hf.ViTForImageClassification(hf.ViTConfig(**WIDE)).eval()
    with pytest.raises(RequestError, match=r"pass the inner model: model\.vit"):
        attach(whole, "tome", "r=2")
    with attach(whole.vit, "tome", "r=6") as handle, torch.no_grad():
        assert whole(images()).logits.shape == (2, 2)
        assert handle.token_counts[-1] < 65
        with pytest.raises(RuntimeError, match="output_attentions is not possible"):
            whole.vit(images(), output_attentions=True)
