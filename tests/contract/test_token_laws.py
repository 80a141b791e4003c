"""What every method owes on every kind of model: planned counts, a protected prefix, sizes, owners, lone samples."""

import pytest
import torch
from tiny_models import (
    IMPOSSIBLE,
    REDUCERS,
    make_images,
    make_model,
    on_a_third,
    on_every_pair,
    rates,
    reducer_id,
    shrinks_images,
    zero_rates,
)

from suite import attach
from suite.errors import RequestError
from suite.tokens.grouping import take
from suite.tokens.history import compose_owner
from tests.tolerances import TINY32

reducers = pytest.mark.parametrize("name", REDUCERS, ids=reducer_id)


@on_every_pair(0)
@torch.no_grad()
def test_every_block_passes_on_as_many_tokens_as_planned(name, kind):
    model = make_model(kind)
    images = make_images(model, batch=1)
    for rate in rates(name) if kind == "class token" else rates(name)[:2]:
        with attach(model, name, rate) as handle:
            assert handle.token_counts == []
            model(images)
            observed = handle.token_counts
            assert len(observed) == len(model.blocks)
            if handle.reducer.input_dependent:
                assert handle.planned_counts is None
                bound = handle.schedule(handle.layout.tokens).counts
                assert all(o <= b for o, b in zip(observed, bound, strict=True))
            assert not handle.unplanned, handle.unplanned
            whole, restored = handle.images.layout().tokens, handle.restoring == "per_block"
            assert handle.tokens.count == handle.tokens.x.shape[1] == (whole if restored else observed[-1])
            assert handle.tokens.origin == whole
            assert [t.entering for t in handle.trace] == [whole, *(whole if restored else n for n in observed[:-1])]
            assert min(observed) < handle.layout.tokens


@on_a_third(0)
@torch.no_grad()
def test_prefix_tokens_stay_first_alone_and_of_size_one(name, kind):
    model = make_model(kind)
    with attach(model, name, rates(name)[0]) as handle:
        model(make_images(model))
    tokens, prefix = handle.tokens, model.num_prefix_tokens
    assert tokens.num_prefix == prefix
    assert (tokens.sizes[:, :prefix] == 1).all()
    assert (tokens.owner[:, :prefix] == torch.arange(prefix)).all()
    assert not ((tokens.owner[:, prefix:] >= 0) & (tokens.owner[:, prefix:] < prefix)).any()


@on_every_pair(1)
@torch.no_grad()
def test_owners_account_for_every_original_token_and_sizes_count_them(name, kind):
    model = make_model(kind)
    for rate in rates(name)[:3]:
        with attach(model, name, rate) as handle:
            model(make_images(model))
        tokens, owner = handle.tokens, handle.tokens.owner
        assert owner.dtype == torch.int64
        assert owner.shape == (2, handle.images.layout().tokens)
        assert owner.min() >= -1
        assert owner.max() < tokens.count
        assert tokens.size is None or tokens.size.dtype == torch.float32
        assert tokens.sizes.isfinite().all()
        valid = torch.ones(tokens.x.shape[:2], dtype=torch.bool) if tokens.valid is None else tokens.valid
        for owners, sizes, real in zip(owner, tokens.sizes, valid, strict=True):
            counted = torch.bincount(owners[owners >= 0], minlength=tokens.count)
            if handle.reducer.exact_groups:
                assert ((counted > 0) == real).all(), "a token that stands for nothing"
                assert torch.equal(counted.float(), sizes)


@pytest.mark.parametrize("rate", ["r=6", "r=8:-1", "r=20"])
@torch.no_grad()
def test_merging_loses_no_token(rate):
    model = make_model()
    with attach(model, "tome", rate) as handle:
        model(make_images(model))
    assert (handle.tokens.sizes.sum(1) == handle.layout.tokens).all()
    assert (handle.tokens.owner >= 0).all()
    assert handle.tokens.expand().shape == (2, handle.layout.tokens, handle.layout.width)


@on_a_third(1)
@torch.no_grad()
def test_a_sample_does_not_see_its_neighbours(name, kind):
    model = make_model(kind)
    images = make_images(model, batch=3)
    with attach(model, name, rates(name)[0]) as handle:
        together, owners = model(images), handle.tokens.owner
        for sample, (logits, owner) in enumerate(zip(together, owners, strict=True)):
            alone = model(images[sample : sample + 1])
            torch.testing.assert_close(alone[0], logits, **TINY32)
            if handle.reducer.exact_groups:  # the largest of nearly equal shares is anybody's
                assert torch.equal(handle.tokens.owner[0], owner)


@on_a_third(2)
@torch.no_grad()
def test_two_forwards_are_equal(name, kind):
    model = make_model(kind)
    images = make_images(model)
    with attach(model, name, rates(name)[0]):
        first = model(images)
        model(images.flip(0) * 2)
        assert torch.equal(model(images), first)


@on_a_third(0)
@torch.no_grad()
def test_reduction_changes_the_output(name, kind):
    model = make_model(kind, depth=5)  # a block more than some need: the class token reads nothing after the last one
    images = make_images(model)
    whole = model(images)
    for rate in rates(name)[:2]:
        with attach(model, name, rate):
            reduced = model(images)
        assert reduced.shape == whole.shape
        assert reduced.isfinite().all()
        assert not torch.equal(reduced, whole)


@pytest.mark.parametrize(("name", "kind"), IMPOSSIBLE, ids=[f"{reducer_id(n)}-{kind}" for n, kind in IMPOSSIBLE])
@torch.no_grad()
def test_class_attention_without_a_class_token_is_one_clear_line_and_zero_reduction_still_works(name, kind):
    model = make_model(kind)
    images = make_images(model)
    whole = model(images)
    with pytest.raises(RequestError, match="no class token") as caught:
        attach(model, name, rates(name)[0])
    assert "\n" not in str(caught.value)
    for rate in zero_rates(name):
        with attach(model, name, rate):
            assert torch.equal(model(images), whole)
    assert torch.equal(model(images), whole)


@reducers
@pytest.mark.parametrize("kind", ["class token", "distilled", "average pool"])
@torch.no_grad()
def test_lone_tokens_are_copied_and_averages_lie_in_the_hull_of_their_group(name, kind):
    model = make_model(kind)
    handle = attach(model, name, rates(name)[0])
    changes = []
    hook = handle.reducer.register_forward_hook(lambda _, given, result: changes.append((given[1], result)))
    with handle:
        model(make_images(model))
    hook.remove()
    assert bool(changes) == (rates(name) != [None])
    if shrinks_images(name):  # before there are tokens
        return
    for before, after in changes:
        if isinstance(after, torch.Tensor):  # what gives all tokens back
            continue
        after = getattr(after, "tokens", after)  # what is declared inside attention holds them
        steps = after.steps[len(before.steps) :]
        if not steps:
            continue  # what is made before the first block
        step = steps[-1]
        if step.assigned is not None or step.mixed:
            continue  # every new token is made of all, or of what it is a neighbour of
        owner, places = compose_owner(before.x, before.count, steps), torch.arange(after.count)
        members = owner[:, None, :] == places[:, None]
        lone = members.sum(-1) == 1
        copies = take(before.x, members.int().argmax(-1))
        if step.rest >= 0:  # the fused token of a pruner is made, not copied
            lone[:, step.rest] = False
        assert torch.equal(after.x[lone], copies[lone])
        if step.source is not None:
            spread = members[..., None]
            low = before.x[:, None].masked_fill(~spread, torch.inf).amin(2)
            high = before.x[:, None].masked_fill(~spread, -torch.inf).amax(2)
            in_hull = ((after.x >= low - 1e-6) & (after.x <= high + 1e-6)).all(-1)
            longest = (members * before.x.norm(dim=-1)[:, None]).amax(-1)
            norm_kept = (after.x.norm(dim=-1) / longest - 1).abs() < 1e-5
            assert (in_hull | norm_kept).all()
