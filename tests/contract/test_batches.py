"""What a sample becomes depends on the sample alone: not on its batch, its place in it, or what was run before."""

import pytest
import torch
from tiny_models import make_images, make_model, on_a_share, on_every_pair, rates

from suite import attach
from suite.reducers import reducer_class
from suite.reducers.base import Reducer

MOST = 33
BATCHES = ([0], [16], [32], [32, 5], list(range(16, 33)), list(range(16, -1, -1)))
IN_SINGLE = "GIT, explicit attention"  # its softmax, whatever else is in double, in blocks that run as they are
TOLERANCE = 1e-9  # of float64: kernels add up in another order for another batch, and ties between tokens stay ties


def assert_independent(model, reducer, rate, tolerance=TOLERANCE):
    """Samples alone, in pairs, in batches of 17 and of 33, in order and permuted, before and after each other."""
    model, images = model.double(), make_images(model, batch=MOST).double()
    order = torch.randperm(MOST, generator=torch.Generator().manual_seed(2))
    state = torch.get_rng_state()
    with attach(model, reducer, rate) as handle:
        for row, rows in enumerate([order.tolist(), *BATCHES, list(range(MOST))]):
            logits = model(images[rows])
            owner = handle.tokens.owner if handle.reducer.exact_groups else None
            if row == 0:
                expected, owners = logits[order.argsort()], None if owner is None else owner[order.argsort()]
            torch.testing.assert_close(logits, expected[rows], atol=tolerance, rtol=tolerance)
            if owner is not None:  # the largest of nearly equal shares is anybody's
                assert torch.equal(owner, owners[rows])
    assert torch.equal(torch.get_rng_state(), state), "draws from, or sets, the random state that all share"


@on_a_share(10, 3)
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch_or_on_its_place_in_it(name, kind):
    padded_later_on = kind == IN_SINGLE and reducer_class(name).input_dependent
    assert_independent(make_model(kind), name, rates(name)[0], 1e-6 if padded_later_on else TOLERANCE)


NEVER_EMPTY = [  # nor unreduced
    *("dynamic image size", "no position embedding, no head", "GIT, explicit attention"),
    *("EVA", "EVA-02", "DINOv3", "Beit"),
]


@on_every_pair(1)
@pytest.mark.parametrize("training", [False, True])
def test_an_empty_batch_gives_an_empty_result(name, kind, training):
    model = make_model(kind)
    if kind in NEVER_EMPTY or (training and kind == "LV-ViT"):
        pytest.skip("the unreduced model takes none, or its head takes no softly pruned tokens")
    images = make_images(model)[:0]
    expected = model(images).shape
    with attach(model, name, rates(name)[0]) as handle:
        model.train(training)
        logits = model(images)
        assert logits.shape == expected
        assert len(handle.tokens.sizes) == 0
        assert handle.planned_counts is None or handle.token_counts == handle.planned_counts
        if not handle.tokens.soft:
            assert handle.tokens.owner.shape == (0, handle.images.layout().tokens)
        logits.sum().backward()


class Leak(Reducer):
    """Keeps the patches of the largest scores; `scores` is where it leaks."""

    def after_attention(self, tokens, signals, amount):
        patches = tokens.x[:, tokens.num_prefix :]
        kept = self.scores(patches.norm(dim=-1), patches).topk(tokens.num_patches - amount, dim=1).indices
        return tokens.keep(tokens.num_prefix + kept.sort(dim=1).values)


class AboveSixteen(Leak):
    def scores(self, own, patches):
        return own - own.mean(0) if len(own) > 16 else own


class ByPlace(Leak):
    def scores(self, own, patches):
        return own + (torch.arange(len(own)) == 3)[:, None] * torch.arange(own.shape[1])


class CachedByShape(Leak):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def scores(self, own, patches):
        return self.cache.setdefault(own.shape, own)


class CachedInLargeBatches(CachedByShape):
    def scores(self, own, patches):
        return super().scores(own, patches) if len(own) > 16 else own


class Counting(CachedByShape):
    def scores(self, own, patches):
        self.cache["forwards"] = self.cache.get("forwards", 0) + 1
        return own if self.cache["forwards"] < 20 else -own


class GlobalRandom(Leak):
    def scores(self, own, patches):
        return torch.rand_like(own)


class SeedsTheGlobalState(Leak):
    def scores(self, own, patches):
        torch.manual_seed(0)
        return torch.rand(own.shape[1]).expand_as(own)


class NeighboursCount(Leak):
    """As many tokens of every sample as the busiest sample of the batch wants to keep."""

    input_dependent = True

    def after_attention(self, tokens, signals, amount):
        patches = tokens.x[:, tokens.num_prefix :].norm(dim=-1)
        most = int((patches > patches.mean(1, keepdim=True)).sum(1).max())
        kept = patches.topk(max(1, min(most, tokens.num_patches - amount)), dim=1).indices
        return tokens.keep(tokens.num_prefix + kept.sort(dim=1).values)


LEAKS = [
    *(AboveSixteen, ByPlace, CachedByShape, CachedInLargeBatches, Counting),
    *(GlobalRandom, SeedsTheGlobalState, NeighboursCount),
]


@pytest.mark.parametrize("leak", LEAKS)
@torch.no_grad()
def test_what_leaks_between_samples_or_forwards_is_found(leak):
    with pytest.raises(AssertionError):
        assert_independent(make_model(), leak(), "r=6")


@torch.no_grad()
def test_what_does_not_leak_is_not_accused():
    class Sound(Leak):
        def scores(self, own, patches):
            return own

    assert_independent(make_model(), Sound(), "r=6")
