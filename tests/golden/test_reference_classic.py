"""Samplers, clusterings, soft mixtures and floors of the suite against a literal second implementation of each."""

from functools import partial

import numpy as np
import pytest
import torch
from reference import Reference
from reference_classic import (
    Classic,
    Watched,
    ats,
    dpcknn,
    heuristic,
    kmedoids,
    patchmerger,
    sinkhorn,
    sit,
    tome_kth,
    tome_random,
)
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from suite import attach
from tests.tiers import spread

TINY = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 5, "num_heads": 2, "num_classes": 10}
KINDS = {
    "class token": (VisionTransformer, 1, 1),
    "distilled": (VisionTransformerDistilled, 2, 2),
    "LayerScale": (partial(VisionTransformer, init_values=0.5, no_embed_class=True), 1, 1),
    "registers": (partial(VisionTransformer, reg_tokens=4, no_embed_class=True), 5, 1),
    "q/k norm": (partial(VisionTransformer, qk_norm=True), 1, 1),
    "average pool": (partial(VisionTransformer, global_pool="avg"), 1, 1),
    "average pool, no class token": (partial(VisionTransformer, global_pool="avg", class_token=False), 0, 0),
}
# rate -> patches that are left of 64, by block; a list names every block, so every block is a stage of its own
RATES = {
    "keep=0.7": {1: 44, 2: 31, 3: 21},
    "keep=0.25": {1: 16, 2: 4, 3: 1},
    "keep=0.6@0,4": {0: 38, 4: 23},
    "r=7": {0: 57, 1: 50, 2: 43, 3: 36, 4: 29},
    "r=[20, 0, 3, 11]": {0: 44, 1: None, 2: 41, 3: 30, 4: None},
}
MERGES = {"r=1": [1] * 5, "r=6": [6] * 5, "r=[20, 0, 3, 11]": [20, 0, 3, 11, 0]}


def tiny(kind):
    make, prefix, classes = KINDS[kind]
    torch.manual_seed(11)
    given = make.keywords if isinstance(make, partial) else {}
    model = make(**{**TINY, **given}).double().eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn_like(parameter)
            gain = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if gain else 0.3 * noise)
    about = {"heads": 2, "prefix": prefix, "classes": classes}
    return model, about, torch.randn(3, 3, 32, 32, dtype=torch.float64)


def learned_weights(reducer, seed=5):
    """Draws the reducer's weights anew, strong enough to tell tokens apart, and returns them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(reducer.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            if name.endswith("scale"):
                parameter.fill_(1.7)
    return {name: value.numpy() for name, value in reducer.state_dict().items()}


def assert_equal(handle, logits, reference, images, owners, **hooks):
    """Every sample of the batch is what the literal form makes of that image alone, padded to the longest."""
    per_sample = []
    for sample, image in enumerate(images):
        wanted, owner, counts = reference(image.numpy(), **hooks)
        per_sample.append(counts)
        assert int(handle.tokens.counts[sample]) == counts[-1]
        assert not owners or (handle.tokens.owner[sample].numpy() == owner).all()
        assert np.abs(logits[sample].numpy() - wanted).max() <= 1e-11
    assert handle.token_counts == [max(counts) for counts in zip(*per_sample)]


def compare(kind, name, rate, literal, hook="before", owners=True, **options):
    model, about, images = tiny(kind)
    with torch.no_grad(), attach(model, name, rate, **options) as handle:
        weights = (learned_weights(handle.reducer),) if handle.reducer.learned else ()
        logits = model(images)
        hooks = {hook: literal(RATES[rate], about["prefix"], *weights)}
        assert_equal(handle, logits, Classic(model.state_dict(), **about), images, owners, **hooks)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind][2]])
def test_adaptive_sampling_equals_the_literal_form_for_every_sample_of_a_padded_batch(kind, rate):
    compare(kind, "ats", rate, partial(ats, classes=KINDS[kind][2]), hook="select")


def test_the_batches_that_adaptive_sampling_was_compared_on_were_padded():
    model, _, images = tiny("class token")
    with torch.no_grad(), attach(model, "ats", "r=7") as handle:
        model(images)
    assert len(set(handle.tokens.counts.tolist())) > 1


@pytest.mark.parametrize(("kind", "rate"), spread(3, KINDS, RATES))
def test_density_peak_clustering_equals_the_literal_form(kind, rate):
    compare(kind, "dpcknn", rate, dpcknn)


def test_density_over_other_neighbours_equals_the_literal_form():
    compare("class token", "dpcknn", "keep=0.7", partial(dpcknn, neighbours=3), neighbours=3)


@pytest.mark.parametrize(("kind", "rate"), spread(3, KINDS, RATES))
def test_weighted_medoids_equal_the_literal_form(kind, rate):
    compare(kind, "kmedoids", rate, kmedoids)


@pytest.mark.parametrize("options", [{"iterations": 0}, {"iterations": 6}, {"weighted": False}])
def test_medoids_with_options_equal_the_literal_form(options):
    compare("class token", "kmedoids", "keep=0.7", partial(kmedoids, **options), **options)


@pytest.mark.parametrize(("kind", "rate", "name"), spread(3, KINDS, RATES, ["patchmerger", "sinkhorn", "sit"]))
def test_soft_mixtures_equal_the_literal_form(kind, rate, name):
    # five transports of so much entropy make all tokens alike to the last digit: who takes most is rounding's choice
    alike = name == "sinkhorn" and rate == "r=7"
    compare(kind, name, rate, {"patchmerger": patchmerger, "sinkhorn": sinkhorn, "sit": sit}[name], owners=not alike)


@pytest.mark.parametrize("rate", ["keep=0.7", "r=7"])
def test_less_entropy_and_more_scalings_equal_the_literal_form(rate):
    options = {"eps": 0.05, "iterations": 7}
    compare("class token", "sinkhorn", rate, partial(sinkhorn, **options), **options)


@pytest.mark.parametrize(("kind", "rate", "metric"), spread(3, KINDS, RATES, ["l1", "l2", "linf"]))
def test_the_middle_of_the_image_equals_the_literal_form(kind, rate, metric):
    compare(kind, "heuristic", rate, partial(heuristic, grid=(8, 8), metric=metric), hook="after", metric=metric)


def compare_merging(kind, name, rate, literal, **options):
    """literal(reference) -> the reduction of the literal form."""
    model, about, images = tiny(kind)
    weighted = {**about, "weighted_pool": "average pool" in kind}
    reference = Watched(model.state_dict(), proportional=options.get("proportional_attention", True), **weighted)
    assert isinstance(reference, Reference)
    with torch.no_grad(), attach(model, name, rate, **options) as handle:
        logits = model(images)
        for sample, image in enumerate(images):
            wanted, owner, sizes, counts = reference(image.numpy(), literal(reference))
            assert handle.token_counts == counts
            assert (handle.tokens.owner[sample].numpy() == owner).all()
            assert (handle.tokens.sizes[sample].numpy() == sizes).all()
            assert np.abs(logits[sample].numpy() - wanted).max() <= 1e-11


@pytest.mark.parametrize(("kind", "rate", "k"), spread(3, KINDS, MERGES, [2, 3, 5]))
def test_merging_into_every_kth_token_equals_the_literal_form(kind, rate, k):
    prefix = KINDS[kind][1]
    compare_merging(kind, "tome_kth", rate, lambda _: tome_kth(MERGES[rate], prefix, k), k=k)


@pytest.mark.parametrize(
    ("kind", "rate", "options"), spread(3, KINDS, MERGES, [{}, {"seed": 3}, {"proportional_attention": False}])
)
def test_merging_random_sources_equals_the_literal_form(kind, rate, options):
    prefix, seed = KINDS[kind][1], options.get("seed", 0)
    compare_merging(kind, "tome_random", rate, lambda seen: tome_random(MERGES[rate], prefix, seen, seed), **options)
