"""What every method owes a dense task: all tokens are given back, each where it was, in every mode."""

from functools import cache
from itertools import product

import pytest
import torch
from tiny_models import REDUCERS, on_pairs, reducer_id, shrinks_images, zero_rates

from suite import RequestError, attach, count_flops
from suite.backbones.segmenter import RESTORE, MaskTransformer, Segmenter, build_segmenter
from suite.reducers import make_reducer, reducer_class
from suite.reducers.base import Reducer
from suite.tokens.grouping import take
from suite.tokens.state import Tokens
from tests.tolerances import TINY32

REDUCING = [name for name in REDUCERS if name != "none"]
methods = pytest.mark.parametrize("name", REDUCING, ids=map(reducer_id, REDUCING))
modes = pytest.mark.parametrize("mode", RESTORE)
AT_THE_END = [name for name in REDUCING if make_reducer(name).site == "after_block"]  # nothing to give back per block
methods_in_modes = on_pairs(
    [pair for pair in product(REDUCING, RESTORE) if pair[0] not in AT_THE_END or pair[1] != "per_block"],
    quick=3,
    what="mode",
)
GONE_AND_BACK = {"before_decoder", "after_decoder"}


def make_segmenter(mode: str = "before_decoder", depth: int = 4, seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    model = build_segmenter(
        image_size=32, patch_size=4, width=32, depth=depth, heads=2, num_classes=5, decoder_heads=2
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "cls_emb" in name:
                parameter.normal_()  # classes that differ, so that masks hold more than one of them
            elif parameter.dim() > 1:
                parameter.normal_(std=0.2)
    model.restore = mode
    return model


def make_images(batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    slope = torch.linspace(-1, 1, 32) * torch.randn(batch, 3, 32, 1, generator=generator)
    return slope + 0.5 * torch.randn(batch, 3, 32, 32, generator=generator)


def rate_of(name: str) -> str:
    rates = {"r": "merge=0.5", "keep": "keep=0.6", "tau": "tau=0"}
    return next(rate for form, rate in rates.items() if form in reducer_class(name).rates)


@cache
def unreduced_cost(mode: str) -> int:
    return count_flops(make_segmenter(mode), images=make_images()).total


@methods_in_modes
@torch.inference_mode()
def test_zero_reduction_is_the_untouched_segmenter_bit_for_bit(name, mode):
    model, images = make_segmenter(mode), make_images()
    untouched = model(images)
    for rate in zero_rates(name):
        with attach(model, name, rate):
            assert torch.equal(model(images), untouched), rate
    assert torch.equal(model(images), untouched)


@methods_in_modes
@torch.inference_mode()
def test_every_patch_has_class_scores_and_the_cost_is_as_planned(name, mode):
    model, images = make_segmenter(mode), make_images()
    with attach(model, name, rate_of(name)) as handle:
        scores = model.grid_logits(images)
        side = 6 if shrinks_images(name) else 8  # the nearest to 0.6 of 8 x 8
        assert scores.shape == (2, 5, side, side)
        assert model(images).shape == (2, 5, 32, 32)
        assert torch.isfinite(scores).all()
        assert handle.planned_counts in (None, handle.token_counts)
        assert min(handle.token_counts) < 65
        report = count_flops(model, images=images)
    assert not report.disputed, report.why
    assert not report.uncounted
    assert report.total < unreduced_cost(mode)


@methods
@torch.inference_mode()
def test_a_patch_has_what_its_owner_has_and_without_one_what_it_had_when_it_was_dropped(name):
    model, images = make_segmenter(), make_images()
    seen = []  # tokens before and after every call of the method's hook

    def note(_, arguments, result):
        if isinstance(result, torch.Tensor):  # an image, before there are tokens
            return
        seen.append((arguments[1], result if isinstance(result, Tokens) else result.tokens))

    with attach(model, name, rate_of(name)) as handle:
        watching = handle.reducer.register_forward_hook(note)
        (features,) = model.decoder_inputs(images)
        tokens = handle.tokens
        watching.remove()
    expected = take(tokens.x, tokens.owner.clamp(min=0))
    known = tokens.owner >= 0
    for before, after in seen:
        dropped = (before.owner >= 0) & (after.owner < 0)
        expected[dropped] = take(before.x, before.owner.clamp(min=0))[dropped]
        known |= dropped
    assert known.all()
    torch.testing.assert_close(features, model.backbone.norm(expected)[:, 1:])


@torch.inference_mode()
def test_patches_that_were_dropped_in_different_blocks_keep_what_each_had():
    model, images = make_segmenter(depth=3), make_images()
    vit = model.backbone
    x, expected = vit.norm_pre(vit._pos_embed(vit.patch_embed(images))), []
    for block, dropped in zip(vit.blocks, (5, 3, 0), strict=True):
        x = x + block.attn(block.norm1(x))
        stays = x.shape[1] - dropped
        expected.insert(0, x[:, stays:])
        x = x[:, :stays]
        x = x + block.mlp(block.norm2(x))
    with attach(model, Drop(), "r=[5,3]"):
        (features,) = model.decoder_inputs(images)
    torch.testing.assert_close(features, vit.norm(torch.cat([x, *expected], dim=1))[:, 1:])


@pytest.mark.parametrize("mode", sorted(set(RESTORE) - {"before_decoder"}))
def test_tokens_that_were_merged_softly_are_given_back_before_the_decoder_alone(mode):
    model, images = make_segmenter(mode), make_images()
    with attach(model, "dtem", "r=6"):
        model.train()
        with pytest.raises(RequestError, match=r"merged softly \(training\); use restore=before_decoder"):
            model(images)
        model.eval()
        model(images)


@methods_in_modes
@torch.inference_mode()
def test_samples_of_a_batch_do_not_see_each_other(name, mode):
    model, images = make_segmenter(mode), make_images(3)
    with attach(model, name, rate_of(name)):
        together = model.grid_logits(images)
        alone = torch.cat([model.grid_logits(image[None]) for image in images])
    torch.testing.assert_close(together, alone, **TINY32)


class Drop(Reducer):
    """Drops the last patches after attention."""

    def after_attention(self, tokens, signals, amount):
        index = torch.arange(tokens.num_prefix, tokens.count - amount).expand(len(tokens.x), -1)
        return tokens.keep(index)


class Pairs(Reducer):
    """Makes one token of every two neighbours after attention."""

    def after_attention(self, tokens, signals, amount):
        patches = tokens.x[:, 1:].unflatten(1, (-1, 2)).mean(2)
        return tokens.assign(
            patches, torch.arange(tokens.num_patches).div(2, rounding_mode="floor").expand(len(tokens.x), -1)
        )


class Regroup(Reducer):
    """As many tokens as before, patch i in the place order[i]."""

    def __init__(self, order: torch.Tensor, hook: str) -> None:
        super().__init__()
        self.order, self.hook = order, hook

    @property
    def site(self):
        return self.hook

    def leaving(self, count, amount):
        return count

    def after_attention(self, tokens, signals, amount):
        order = self.order.expand(len(tokens.x), -1)
        return tokens.assign(take(tokens.x[:, 1:], order.argsort(1)), order)

    before_block = after_attention


hooks = pytest.mark.parametrize("hook", ["before_block", "after_attention"])


@hooks
@modes
@torch.inference_mode()
def test_the_identity_merge_is_restored_exactly(mode, hook):
    model, images = make_segmenter(mode), make_images()
    untouched = model(images)
    with attach(model, Regroup(torch.arange(64), hook), "r=1"):
        assert torch.equal(model(images), untouched)


@hooks
@modes
@torch.inference_mode()
def test_tokens_in_another_order_go_back_to_their_places(mode, hook):
    model, images = make_segmenter(mode), make_images()
    untouched = model(images)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    with attach(model, Regroup(order, hook), "r=1"):
        torch.testing.assert_close(model(images), untouched, **TINY32)


@pytest.mark.parametrize("mode", sorted(GONE_AND_BACK))
@torch.inference_mode()
def test_a_shuffled_owner_map_gives_other_masks(mode, monkeypatch):
    model, images = make_segmenter(mode), make_images()
    right = Tokens.restorable

    def shuffled(tokens):
        rows, place = right(tokens)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(0)) + 1
        return rows, torch.cat([place[:, :1], place[:, order]], dim=1)

    with attach(model, "tome", "merge=0.5"):
        masks = model(images).argmax(1)
        monkeypatch.setattr(Tokens, "restorable", shuffled)
        assert (model(images).argmax(1) != masks).float().mean() > 0.1


@torch.inference_mode()
def test_a_shuffled_owner_map_gives_other_masks_per_block(monkeypatch):
    model, images = make_segmenter("per_block"), make_images()
    right = Tokens.owner.fget

    def shuffled(tokens):
        owner = right(tokens)
        order = torch.randperm(owner.shape[1] - 1, generator=torch.Generator().manual_seed(0)) + 1
        return torch.cat([owner[:, :1], owner[:, order]], dim=1)

    with attach(model, "tome", "merge=0.5"):
        masks = model(images).argmax(1)
        monkeypatch.setattr(Tokens, "owner", property(shuffled))
        assert (model(images).argmax(1) != masks).float().mean() > 0.1


@torch.inference_mode()
def test_a_dropped_patch_keeps_the_value_that_it_had_when_it_was_dropped():
    model, images = make_segmenter(depth=2), make_images()
    vit = model.backbone
    block = vit.blocks[0]
    x = vit.patch_embed(images)
    x = vit.norm_pre(vit._pos_embed(x))
    after_attention = x + block.attn(block.norm1(x))
    with attach(model, Drop(), "r=[5]"):
        (features,) = model.decoder_inputs(images)
    torch.testing.assert_close(features[:, -5:], vit.norm(after_attention[:, -5:]))
    x = after_attention[:, :-5]
    expected = vit.norm(vit.blocks[1](x + block.mlp(block.norm2(x))))
    torch.testing.assert_close(features[:, :-5], expected[:, 1:])


@torch.inference_mode()
def test_per_block_a_dropped_patch_misses_the_mlp_of_its_block_and_nothing_else():
    model, images = make_segmenter("per_block", depth=2), make_images()
    vit = model.backbone
    first, second = vit.blocks
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    x = x + first.attn(first.norm1(x))
    x = torch.cat([x[:, :-5] + first.mlp(first.norm2(x[:, :-5])), x[:, -5:]], dim=1)
    expected = vit.norm(second(x))
    with attach(model, Drop(), "r=[5]") as handle:
        (features,) = model.decoder_inputs(images)
        assert handle.token_counts == [60, 65]
    torch.testing.assert_close(features, expected[:, 1:])


@torch.inference_mode()
def test_per_block_every_token_gets_what_the_mlp_made_of_its_group():
    model, images = make_segmenter("per_block", depth=1), make_images()
    vit = model.backbone
    (block,) = vit.blocks
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    x = x + block.attn(block.norm1(x))
    pairs = x.clone()
    pairs[:, 1:] = x[:, 1:].unflatten(1, (32, 2)).mean(2, keepdim=True).expand(-1, -1, 2, -1).flatten(1, 2)
    expected = vit.norm(x + block.mlp(block.norm2(pairs)))
    with attach(model, Pairs(), "r=32"):
        (features,) = model.decoder_inputs(images)
    torch.testing.assert_close(features, expected[:, 1:])


@torch.inference_mode()
def test_after_decoder_the_decoder_runs_on_the_tokens_that_are_left():
    model, images = make_segmenter("after_decoder"), make_images()
    with attach(model, "tome", "merge=0.5"):
        patches, frozen, valid = model.decoder_inputs(images)
        assert (patches.shape[1], frozen, valid) == (32, None, None)
    with attach(model, "topk", "merge=0.5"):
        patches, frozen, _ = model.decoder_inputs(images)
        assert (patches.shape[1], frozen.shape[1]) == (32, 32)
        scores = model.decoder(patches, frozen)
    torch.testing.assert_close(scores[:, :32], model.decoder(patches))  # the frozen ones change nothing for the others


@torch.inference_mode()
def test_padding_is_not_attended_to_by_the_decoder():
    decoder = MaskTransformer(32, 5, heads=2).eval()
    x = torch.randn(1, 10, 32)
    valid = torch.arange(10)[None] < 7
    padded = decoder(x, valid=valid)
    torch.testing.assert_close(padded[:, :7], decoder(x[:, :7]), **TINY32)


def test_a_method_that_acts_after_the_block_has_nothing_to_give_back_per_block():
    model = make_segmenter("per_block")
    with pytest.raises(RequestError, match=r"mctf.*end of a block.*before_decoder"):
        attach(model, "mctf", "r=4", one_step_ahead=0)


def test_an_unknown_mode_is_refused_by_name():
    with pytest.raises(RequestError, match="restore='never' is unknown; use before_decoder, after_decoder, per_block"):
        make_segmenter("never")


@modes
def test_the_mode_can_change_while_a_reducer_is_attached(mode):
    model, images = make_segmenter(), make_images()
    with torch.inference_mode(), attach(model, "tome", "r=6"):
        model(images)
        model.restore = mode
        changed = model(images)
    model = make_segmenter(mode)
    with torch.inference_mode(), attach(model, "tome", "r=6"):
        assert torch.equal(model(images), changed)


@modes
def test_gradients_reach_the_patch_embedding_through_restored_tokens(mode):
    model, images = make_segmenter(mode), make_images()
    with attach(model, "tome", "merge=0.5"):
        model(images).square().mean().backward()
    assert model.backbone.patch_embed.proj.weight.grad.abs().max() > 0


def test_tokens_that_nobody_wants_back_cannot_be_restored():
    tokens = Tokens.start(torch.randn(1, 5, 4), 1)
    with pytest.raises(ValueError, match="not started to be restored"):
        tokens.restorable()
