"""Positions of tokens that were pruned and merged, for rotary position embedding and for biases of pairs of places."""

import math
from dataclasses import replace

import pytest
import timm
import torch
from timm.layers import apply_rot_embed_cat
from timm.models.eva import Eva
from timm.models.vision_transformer_relpos import VisionTransformerRelPos

from suite import RequestError, attach
from suite.reducers import make_reducer
from suite.reducers.base import Reducer
from suite.tokens.grouping import Matching
from suite.tokens.places import Places, bias_of, rotations_of
from suite.tokens.state import Tokens
from tests.tolerances import TINY32

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 10}
ROTARY = {"use_rot_pos_emb": True, "rope_type": "dinov3", "rope_rotate_half": True, "num_reg_tokens": 2}
PLACES = 16


def strengthened(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def tokens_of(table, rule="representative", batch=1):
    """One prefix token, and a patch for every row of a table."""
    x = torch.randn(batch, 1 + len(table), 4, generator=torch.Generator().manual_seed(0))
    tokens = Tokens.start(x, 1)
    return replace(tokens, places=Places(table, rule=rule))


def table():
    angles = torch.arange(PLACES)[:, None] * torch.tensor([[0.1, 0.3]])
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def test_a_pruned_set_keeps_the_rotations_of_its_places():
    tokens = tokens_of(table()).keep(torch.tensor([[3, 9, 16]])).keep(torch.tensor([[1, 3]]))
    for rule in ("representative", "mean"):
        placed = replace(tokens, places=replace(tokens.places, rule=rule))
        torch.testing.assert_close(rotations_of(placed, 0)[0, 0], table()[[2, 15]])


def test_a_group_has_the_rotation_of_its_representative_or_the_mean_of_its_members():
    matching = Matching(torch.tensor([[0, 1, 5]]), torch.tensor([[7, 9]]), torch.tensor([[2, 2]]))
    merged = tokens_of(table()).merge(matching)
    assert torch.equal(rotations_of(merged, 0)[0, 0], table()[[0, 4]])
    merged = tokens_of(table(), "mean").merge(matching)
    torch.testing.assert_close(rotations_of(merged, 0)[0, 0, 0], table()[0])
    torch.testing.assert_close(rotations_of(merged, 0)[0, 0, 1], table()[[4, 6, 8]].mean(0))
    key = torch.randn(2)
    rotated = torch.stack([apply_rot_embed_cat(key, row, half=True) for row in table()[[4, 6, 8]]]).mean(0)
    torch.testing.assert_close(apply_rot_embed_cat(key, rotations_of(merged, 0)[0, 0, 1], half=True), rotated)


def test_a_token_that_nobody_represents_has_the_mean_under_either_rule():
    fused = tokens_of(table()).keep(torch.tensor([[2, 4]]), fused=torch.zeros(1, 1, 4))
    rest = [place for place in range(PLACES) if place not in (1, 3)]
    torch.testing.assert_close(rotations_of(fused, 0)[0, 0], torch.stack([*table()[[1, 3]], table()[rest].mean(0)]))
    target = torch.tensor([[0] * 8 + [2] * 8])
    mixed = rotations_of(tokens_of(table()).assign(torch.zeros(1, 3, 4), target), 0)[0, 0]
    torch.testing.assert_close(mixed[[0, 2]], torch.stack([table()[:8].mean(0), table()[8:].mean(0)]))
    assert mixed[1].tolist() == [0, 0, 1, 1]  # of which nobody counts as part: not rotated


def test_the_rotations_of_heads_blocks_and_samples_are_told_apart():
    plain = table()
    by_block = torch.stack([torch.stack([plain, 2 * plain]), torch.stack([3 * plain, 4 * plain])])  # (blocks, H, P, D)
    tokens = tokens_of(plain, batch=2)
    tokens = replace(tokens, places=Places(by_block, by_block=True))
    assert torch.equal(rotations_of(tokens, 1), by_block[1])
    kept = rotations_of(tokens.keep(torch.tensor([[1, 2], [4, 8]])), 1)
    assert kept.shape == (2, 2, 2, 4)
    torch.testing.assert_close(kept[1, 1], 4 * plain[[3, 7]])


def test_a_bias_is_gathered_or_averaged_for_both_tokens_of_a_pair():
    bias = torch.randn(1, 2, 1 + PLACES, 1 + PLACES, generator=torch.Generator().manual_seed(2))
    matching = Matching(torch.tensor([[0, 1, 5]]), torch.tensor([[7, 9]]), torch.tensor([[2, 2]]))
    assert torch.equal(bias_of(tokens_of(table()), bias), bias)
    merged = bias_of(tokens_of(table()).merge(matching), bias)
    assert torch.equal(merged, bias[:, :, [0, 1, 5]][..., [0, 1, 5]])
    mean = bias_of(tokens_of(table(), "mean").merge(matching), bias)
    torch.testing.assert_close(mean[0, :, 2, 0], bias[0, :, [5, 7, 9], 0].mean(1))
    torch.testing.assert_close(mean[0, :, 2, 2], bias[0][:, [5, 7, 9]][..., [5, 7, 9]].mean(dim=(1, 2)))


class KeepFew(Reducer):
    """The same patches of every image, before the first block."""

    def before_block(self, tokens, signals, amount):
        return tokens.keep(torch.tensor([[3, 7, 8, 12]] * len(tokens.x)))


@torch.no_grad()
def test_a_pruned_rotary_model_is_the_model_on_those_patches_at_their_places():
    model = strengthened(Eva(**SHAPE, **ROTARY, global_pool="token"))
    x, rotations = model._pos_embed(model.patch_embed(images()))
    x, rotations = x[:, [0, 1, 2, 3, 7, 8, 12]], rotations[[0, 4, 5, 9]]
    for block in model.blocks:
        x = block(x, rope=rotations)
    with attach(model, KeepFew(), "r=12@0"):
        torch.testing.assert_close(model(images()), model.forward_head(model.norm(x)), **TINY32)


@torch.no_grad()
def test_a_pruned_model_of_relative_biases_is_the_model_with_theirs():
    model = strengthened(VisionTransformerRelPos(**SHAPE, rel_pos_type="bias", class_token=True, global_pool="token"))
    index = torch.tensor([0, 3, 7, 8, 12])
    x = torch.cat([model.cls_token.expand(2, -1, -1), model.patch_embed(images())], dim=1)[:, index]
    for block in model.blocks:
        bias = block.attn.rel_pos.get_bias()[:, :, index][..., index]
        q, k, v = block.attn.qkv(block.norm1(x)).reshape(2, 5, 3, 2, 16).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-2, -1) / math.sqrt(16) + bias
        attended = (logits.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 32)
        x = x + block.ls1(block.attn.proj(attended))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    with attach(model, KeepFew(), "r=12@0"):
        torch.testing.assert_close(model(images()), model.head(model.norm(x)[:, 0]), **TINY32)


def test_tokens_that_are_merged_softly_keep_their_own_rotations():
    model = strengthened(Eva(**SHAPE, **ROTARY, global_pool="token")).train()
    table = model.rope.get_embed()
    with attach(model, "dtem", "r=4") as handle:
        before = model(images())
        place = handle.tokens.places.place
        assert place.sort(dim=1).values.equal(torch.arange(3 + PLACES).expand(2, -1))
        assert not place.equal(torch.arange(3 + PLACES).expand(2, -1))
        torch.testing.assert_close(rotations_of(handle.tokens, 0)[:, 0], table[place[:, 3:] - 3])
        before.sum().backward()
        assert all(embedding.weight.grad is not None for embedding in list(handle.reducer.embeddings)[:-1])


@torch.no_grad()
def test_the_rule_is_an_option_of_every_method():
    model = strengthened(Eva(**SHAPE, **ROTARY, global_pool="token"))
    outputs = {}
    for rule in ("representative", "mean"):
        with attach(model, "tome", "r=4", group_position=rule):
            outputs[rule] = model(images())
    with attach(model, "tome", "r=4"):
        assert torch.equal(model(images()), outputs["representative"])
    assert not torch.allclose(outputs["mean"], outputs["representative"])
    with pytest.raises(RequestError, match="unknown group_position of reducer 'tome': 'median'; did you mean 'mean'"):
        make_reducer("tome", group_position="median")


@torch.no_grad()
def test_a_smaller_image_is_rotated_as_timm_rotates_it():
    for options in (ROTARY, {"use_rot_pos_emb": True, "ref_feat_shape": (7, 7)}, {**ROTARY, "dynamic_img_size": True}):
        model = strengthened(Eva(**SHAPE, **options))
        native = Eva(**SHAPE, **options).eval()
        native.load_state_dict(model.state_dict())
        native.set_input_size((24, 24))
        with attach(model, "resize", "side=24") as handle:
            seen, _ = handle.images.of(images(), model)
            assert torch.equal(model(images()), native(seen))


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_small_patch16_dinov3", "vit_pe_core_tiny_patch16_384"])
@torch.no_grad()
def test_timms_own_models_stay_what_they_are_at_zero_reduction_and_can_be_reduced(name):
    model = strengthened(timm.create_model(name, img_size=112, depth=2, global_pool="avg"))
    picture = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    whole = model(picture)
    with attach(model, "tome", "r=0"):
        assert torch.equal(model(picture), whole)
    with attach(model, "tome", "r=8") as handle:
        assert model(picture).isfinite().all()
        assert handle.token_counts == handle.planned_counts
