"""What DTEM does in training and in evaluation, and what its embeddings are."""

from functools import partial

import pytest
import safetensors.torch
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from suite import RequestError, attach
from suite.backbones.mae import MaeViT
from suite.reducers import make_reducer
from tests.tolerances import TINY32

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}
KINDS = {
    "class token": VisionTransformer,
    "distilled": VisionTransformerDistilled,
    "registers, average pool": partial(VisionTransformer, reg_tokens=4, global_pool="avg"),
    "average pool, no class token": partial(VisionTransformer, global_pool="avg", class_token=False),
    "q/k norm": partial(VisionTransformer, qk_norm=True),
    "no qkv bias": partial(VisionTransformer, qkv_bias=False),
}


def make_model(kind="class token"):
    torch.manual_seed(3)
    model = KINDS[kind](**SHAPE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_images(batch=2):
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("rate", ["r=6", "r=[5, 0, 3]", "r=28"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_keeps_every_token_and_the_sum_of_sizes(kind, rate):
    model = make_model(kind)
    with attach(model, "dtem", rate) as handle:
        evaluated = model(make_images()).detach()
        hard, prefix = handle.token_counts, handle.tokens.num_prefix
        model.train()
        logits = model(make_images())
        tokens = handle.tokens
        assert handle.token_counts == handle.planned_counts == [handle.layout.tokens] * 4
        assert tokens.active == hard[-1]
        assert tokens.size.dtype == torch.float32
        assert (tokens.size[:, :prefix] == 1).all()
        torch.testing.assert_close(tokens.size.sum(1), torch.full((2,), float(handle.layout.tokens)))
        assert tokens.owner is None
        assert not torch.equal(logits, evaluated)
        model.eval()
        assert torch.equal(model(make_images()), evaluated)
        assert handle.token_counts == handle.planned_counts == hard


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_backbone_trains_every_embedding_that_is_used(kind):
    model = make_model(kind).requires_grad_(False)
    with attach(model, "dtem", "r=[6, 6, 0, 6]") as handle:
        handle.reducer.train()
        assert not model.training
        model(make_images()).square().sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    first, second, unused, last = (layer.weight.grad for layer in handle.reducer.embeddings)
    assert unused is None
    assert all(gradient.isfinite().all() and gradient.any() for gradient in (first, second))
    assert last.any() == ("pool" in kind)  # a class token is never merged, and nothing attends after the last merge


def test_the_backbone_learns_nothing_through_the_embedding():
    model = make_model()
    for block in model.blocks:
        block.attn.qkv.weight.data.zero_()  # the embedding is all that sees the first norm now
    with attach(model, "dtem", "r=6") as handle:
        handle.reducer.train()
        model(make_images()).square().sum().backward()
    assert handle.reducer.embeddings[0].weight.grad.any()
    assert not any(block.norm1.weight.grad.any() for block in model.blocks)


def test_the_backbone_trains_with_hard_merges_while_the_reducer_evaluates():
    model = make_model().train()
    with attach(model, "dtem", "r=6") as handle:
        handle.reducer.eval()
        model(make_images()).square().sum().backward()
        assert handle.token_counts == [59, 53, 47, 41]
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in handle.reducer.parameters())


def test_a_sample_in_training_does_not_see_its_neighbours():
    model = make_model().double()
    images = make_images(3).double()
    with attach(model, "dtem", "r=6") as handle, torch.no_grad():
        handle.reducer.train()
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=0)


def test_training_compiles_to_one_graph_with_the_same_gradients():
    torch._dynamo.reset()
    model = make_model().requires_grad_(False)
    with attach(model, "dtem", "r=[2, 1]") as handle:
        handle.reducer.train()
        gradients = []
        for forward in (model, torch.compile(model, fullgraph=True, backend="eager")):
            handle.reducer.zero_grad()
            forward(make_images()).square().sum().backward()
            gradients.append([layer.weight.grad.clone() for layer in handle.reducer.embeddings[:2]])
    torch.testing.assert_close(*gradients)


def test_training_always_attends_in_proportion_to_sizes():
    outputs = []
    for proportional in (True, False):
        model = make_model()
        with attach(model, "dtem", "r=6", proportional_attention=proportional) as handle, torch.no_grad():
            outputs.append(model(make_images()))
            assert handle.reducer.proportional_attention is proportional
            handle.reducer.train()
            outputs.append(model(make_images()))
            assert handle.reducer.proportional_attention is True
    assert not torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])


@pytest.mark.parametrize(("make", "default"), [(VisionTransformer, True), (MaeViT, False)])
@torch.no_grad()
def test_evaluation_attends_in_proportion_to_sizes_unless_the_model_is_an_mae(make, default):
    torch.manual_seed(3)
    model, outputs = make(**SHAPE).eval(), {}
    for wanted in (None, True, False):
        with attach(model, "dtem", "r=6", proportional_attention=wanted):
            outputs[wanted] = model(make_images())
    assert torch.equal(outputs[None], outputs[default])
    assert not torch.equal(outputs[None], outputs[not default])


@torch.no_grad()
def test_an_embedding_that_is_the_mean_key_merges_as_tome_does():
    model = make_model()
    with attach(model, "tome", "r=6") as handle:
        expected = model(make_images())
        owner = handle.tokens.owner
    with attach(model, "dtem", "r=6") as handle:
        for block, layer in zip(model.blocks, handle.reducer.embeddings, strict=True):
            layer.weight.copy_(block.attn.qkv.weight[32:64].unflatten(0, (2, 16)).mean(0))
            layer.bias.copy_(block.attn.qkv.bias[32:64].unflatten(0, (2, 16)).mean(0))
        torch.testing.assert_close(model(make_images()), expected, **TINY32)
        assert torch.equal(handle.tokens.owner, owner)


def change_by_step(model, reducer):
    reducer.train()
    optimizer = torch.optim.AdamW([*reducer.parameters(), *model.parameters()], lr=0.3)
    model(make_images()).square().sum().backward()
    optimizer.step()
    reducer.eval()


def change_by_loading(model, reducer):
    for module in (model, reducer):
        module.load_state_dict({key: value.roll(1, -1) for key, value in module.state_dict().items()})


@torch.no_grad()
def change_in_place(model, reducer):
    model.blocks[2].attn.qkv.weight.mul_(1.3)
    reducer.embeddings[0].weight.neg_()


def change_unseen(model, reducer):
    """As libraries of moving averages swap weights in: no version counter tells of it."""
    for parameter in [*model.parameters(), *reducer.parameters()]:
        parameter.data.copy_(parameter.data.roll(1, -1))


def change_unseen_and_frozen(model, reducer):
    for module in (model, reducer):
        module.requires_grad_(False)
    change_unseen(model, reducer)


def change_by_assignment(model, reducer):
    reducer.load_state_dict({key: value.roll(1, -1) for key, value in reducer.state_dict().items()}, assign=True)


CHANGES = change_by_step, change_by_loading, change_in_place, change_by_assignment


@pytest.mark.parametrize("change", [*CHANGES, change_unseen, change_unseen_and_frozen])
@pytest.mark.parametrize("kind", ["class token", "no qkv bias", "q/k norm"])
def test_embedding_and_qkv_in_one_product_are_those_of_the_weights_as_they_are_now(kind, change):
    model = make_model(kind)

    def forwards(handle):
        with torch.no_grad():
            fused, owner = model(make_images()), handle.tokens.owner
        apart = model(make_images())  # with gradients, in two products
        torch.testing.assert_close(fused, apart, **TINY32)
        assert torch.equal(handle.tokens.owner, owner)
        return fused

    with attach(model, "dtem", "r=6") as handle:
        before = forwards(handle)
        change(model, handle.reducer)
        assert not torch.allclose(forwards(handle), before, atol=1e-3)


@pytest.mark.parametrize(("width", "heads", "options", "dim"), [
    (32, 2, {}, 16), (192, 3, {}, 64), (1024, 16, {}, 128), (32, 2, {"feat_dim": 5}, 5),
])  # fmt: skip
def test_the_embedding_is_as_wide_as_a_head_and_twice_that_in_wide_models(width, heads, options, dim):
    model = VisionTransformer(**{**SHAPE, "depth": 2, "embed_dim": width, "num_heads": heads})
    with attach(model, "dtem", "r=1@0", **options) as handle:
        assert [tuple(layer.weight.shape) for layer in handle.reducer.embeddings] == [(dim, width)] * 2
        assert all(layer.bias is not None for layer in handle.reducer.embeddings)


def test_untrained_embeddings_repeat_and_weights_are_found_in_a_checkpoint_of_the_authors(tmp_path):
    states = [attach(make_model(), "dtem", "r=6").reducer.state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    theirs = {
        f"module.blocks.{block}.attn.qkv.metric_layer.{part}": states[0][f"embeddings.{block}.{part}"] + 1
        for block in range(4)
        for part in ("weight", "bias")
    }
    safetensors.torch.save_file(theirs | {"module.cls_token": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    handle = attach(make_model(), "dtem", "r=6", weights=tmp_path / "theirs.safetensors")
    assert handle.reducer.trained
    assert all(torch.equal(value, states[0][key] + 1) for key, value in handle.reducer.state_dict().items())


def test_a_reducer_built_for_another_width_is_refused():
    reducer = make_reducer("dtem")
    attach(make_model(), reducer, "r=6").detach()
    wide = VisionTransformer(**{**SHAPE, "embed_dim": 64})
    with pytest.raises(RequestError, match="another model's") as caught:
        attach(wide, reducer, "r=6")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"feat_dim": 0}, {"feat_dim": "16"}, {"tau1": 0.0}, {"tau2": -1}, {"top": 0}])
def test_options_that_mean_nothing_are_refused_in_one_line(options):
    with pytest.raises(RequestError, match="'dtem' refuses") as caught:
        make_reducer("dtem", **options)
    assert "\n" not in str(caught.value)
