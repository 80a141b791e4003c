"""NAP, HyNAP, POMT and SAINT of the suite against a literal second form, on models that no outputs exist for."""

import numpy as np
import pytest
import torch
from reference import Reference
from reference_curve import hynap, nap, pomt, saint
from test_reference import KINDS, tiny

from suite import attach

with_class = [kind for kind, (_, about) in KINDS.items() if about["classes"]]


def assert_equal(kind, method, rate, make, proportional=False, **options):
    """A forward beside the literal form: counts, owners, sizes, logits. make(reference, prefix, grid) -> reduce."""
    model, about, image = tiny(kind)
    about = {**about, "weighted_pool": proportional, "proportional": proportional}
    with torch.no_grad(), attach(model, method, rate, **options) as handle:
        logits = model(image[None])[0]
    reference = Reference(model.state_dict(), **about)
    wanted, owner, sizes, counts = reference(
        image.numpy(), make(reference, about["prefix"], model.patch_embed.grid_size)
    )
    assert handle.token_counts == counts
    assert (handle.tokens.owner[0].numpy() == owner).all()
    if handle.tokens.size is not None:
        assert np.abs(handle.tokens.sizes[0].numpy() - sizes).max() <= 1e-12
    assert np.abs(logits.numpy() - wanted).max() <= 1e-11
    return counts


@pytest.mark.parametrize("kind", with_class)
@pytest.mark.parametrize("options", [{}, {"window": 3, "alpha": 0.5}, {"fuse": False, "alpha": 1.0}], ids=str)
def test_pruning_by_neighbours_equals_the_literal_form(kind, options):
    for keep, blocks in ((0.7, (1, 2, 3)), (0.4, (0, 4))):
        rate = f"keep={keep}@{','.join(map(str, blocks))}"
        assert_equal(
            kind, "nap", rate, lambda *about, k=keep, b=blocks: nap(about[0], k, b, *about[1:], **options), **options
        )


@pytest.mark.parametrize("kind", with_class)
@pytest.mark.parametrize("options", [{}, {"window": 2, "alpha": 0.4}], ids=str)
def test_pruning_and_merging_by_neighbours_equals_the_literal_form(kind, options):
    for prune, merge in (([99, 99, 40, 40, 20], [99, 50, 40, 30, 9]), ([60, 50, 99, 30, 30], [60, 50, 99, 30, 20])):
        plan = {"prune_kept": prune, "merge_kept": merge}
        assert_equal(
            kind, "hynap", None, lambda *about, p=plan: hynap(about[0], *p.values(), *about[1:], **options),
            proportional=True, **plan, **options,
        )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("active", [0, 3])
def test_pruning_once_equals_the_literal_form(kind, active):
    for r in (1, 20, 60):
        assert_equal(kind, "pomt", f"r={r}@{active}", lambda *about, r=r: pomt(about[0], r, active, about[1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "taus"), [({}, {0: 0.3, 1: 0.1}), ({"k": 2, "gamma": 3.0}, {1: 0.6, 2: 0.5, 4: 0.2})]
)
def test_dropping_what_has_neighbours_equals_the_literal_form(kind, options, taus):
    rate = f"tau={list(taus.values())}@{','.join(map(str, taus))}"
    counts = assert_equal(kind, "saint", rate, lambda *about: saint(taus, about[1], **options), **options)
    assert counts[-1] < 60  # of 64 to 69
