"""Sharing what comes before a method acts changes no bit of what it gives."""

import pytest
import torch
from tiny_models import REDUCERS, make_images, make_model, rates, reducer_id

from suite import attach
from suite.attachment.shared_prefix import SharedPrefix


@pytest.mark.parametrize("name", REDUCERS, ids=reducer_id)
@torch.no_grad()
def test_a_shared_prefix_changes_no_bit(name):
    model = make_model()
    images = make_images(model, batch=3)
    shared = SharedPrefix(images)
    for rate in rates(name):
        with attach(model, name, rate) as handle:
            expected, trace, owner = model(images), handle.trace, handle.tokens.owner
            for _ in range(2):
                handle.prefix = shared
                assert torch.equal(model(images), expected)
                assert handle.trace == trace
                assert torch.equal(handle.tokens.owner, owner)
            assert torch.equal(model(images.clone()), expected)
    whole = model(images)
    with attach(model, "none") as handle:
        handle.prefix = shared
        assert torch.equal(model(images), whole)


@torch.no_grad()
def test_an_image_of_another_size_is_reduced_where_its_own_schedule_says():
    model = make_model("dynamic image size")
    images = torch.randn(2, 3, 44, 44)
    with attach(model, "evit", "keep=0.7") as handle:
        expected = model(images)
        handle.prefix = SharedPrefix(images)
        assert torch.equal(model(images), expected)
