"""Representation Shift on vectors that were worked out by hand, and what the block before is asked for."""

import pytest
import torch
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.rates.rate import parse_rate
from suite.rates.schedule import resolve
from suite.reducers import make_reducer
from suite.reducers.representation_shift import shift

GIVEN = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]])
ADDED = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]]])


@pytest.mark.parametrize(
    ("metric", "from_branch", "wanted"),
    [
        ("l2", True, [5, 2**0.5, 0]),
        ("l2", False, [0, 2**0.5, 1]),
        ("l1", True, [7, 2, 0]),
        ("l1", False, [0, 2, 1]),
        ("cosine", True, [1, 1, 0]),  # no angle with a vector of length 0
        ("cosine", False, [0, 1, 0]),
    ],
)
def test_the_shift_of_three_tokens(metric, from_branch, wanted):
    found = shift(GIVEN, ADDED, from_branch, metric)
    torch.testing.assert_close(found, torch.tensor([wanted], dtype=torch.float32))


def test_half_precision_is_widened_before_it_is_subtracted():
    given = torch.full((1, 1, 4), 256.0, dtype=torch.bfloat16)
    added = torch.full((1, 1, 4), 1.0, dtype=torch.bfloat16)  # bfloat16 holds 256 and 254, not 255
    assert shift(given, added, True, "l1").item() == 4 * 255
    assert shift(given, added, True, "l1").dtype == torch.float32


def kept(model, **options):
    """Owners of a model that drops 20 patches in front of block 2."""
    with torch.no_grad(), attach(model, "representation_shift", "r=20@2", **options) as handle:
        model(images())
    return handle.tokens.owner


def captured(model, **options):
    """What the second block of the whole model does: (x entering, x after attention, what the MLP adds)."""
    seen = {}
    block = model.blocks[1]
    hooks = [
        block.register_forward_pre_hook(lambda _, given: seen.update(entered=given[0])),
        block.norm2.register_forward_pre_hook(lambda _, given: seen.update(middle=given[0])),
        block.mlp.register_forward_hook(lambda _, given, out: seen.update(added=out)),
    ]
    with torch.no_grad():
        model(images())
    for hook in hooks:
        hook.remove()
    return seen["entered"], seen["middle"], seen["added"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"form": "residual"},
        {"layer": "attention"},
        {"layer": "attention", "form": "residual"},
        {"layer": "block"},
        {"metric": "cosine"},
    ],
)
def test_the_patches_that_the_block_before_changed_least_go(options):
    model = make_model()
    entered, middle, added = captured(model)
    given, what = (middle, added) if options.get("layer", "mlp") == "mlp" else (entered, middle - entered)
    if options.get("layer") == "block":
        moved = (middle + added - entered).norm(dim=2)
    elif options.get("form") == "residual":
        moved = what.norm(dim=2)
    else:
        moved = (what - given).norm(dim=2)
    if options.get("metric") == "cosine":
        moved = 1 - torch.cosine_similarity(added, middle, dim=2)
    gone = kept(model, **options)[:, 1:] < 0
    least = torch.zeros_like(gone).scatter(1, moved[:, 1:].argsort(dim=1)[:, :20], True)
    assert torch.equal(gone, least)


def test_scaling_what_the_mlp_adds_changes_the_order_by_its_branch_but_not_by_its_residual():
    outcomes = {}
    for form in ("branch_minus_input", "residual"):
        model = make_model()
        before = kept(model, form=form)
        with torch.no_grad():
            for parameter in model.blocks[1].mlp.fc2.parameters():
                parameter.mul_(3)
        outcomes[form] = torch.equal(before, kept(model, form=form))
    assert outcomes == {"branch_minus_input": False, "residual": True}


@torch.no_grad()
def test_attention_stays_fused_and_only_blocks_in_front_of_a_cut_are_watched(monkeypatch):
    model, calls = make_model(), []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k)
    )
    with attach(model, "representation_shift", "keep=0.7@1,3") as handle:
        watched = []
        observe = handle.reducer.observe
        handle.reducer.observe = lambda tokens, signals: watched.append(signals.block) or observe(tokens, signals)
        model(images())
    assert watched == [0, 2]
    assert len(calls) == 4


@pytest.mark.parametrize("rate", ["r=5@0", "r=[5]", "keep=0.7@0,2", "merge=0.3@0"])
def test_block_0_has_no_block_before_it_and_is_refused_by_name(rate):
    with pytest.raises(RequestError, match=r"is of block 0, but 'representation_shift' .*begin at block 1"):
        attach(make_model(), "representation_shift", rate)
    shape = {"depth": 1, "tokens": 65, "num_prefix": 1}
    with pytest.raises(RequestError, match="begin at block 1"):
        resolve(parse_rate("r=5"), make_reducer("representation_shift"), **shape)


def test_a_rate_of_all_blocks_begins_at_block_1_and_zero_may_name_any():
    shape = {"depth": 4, "tokens": 65, "num_prefix": 1}
    made = make_reducer("representation_shift")
    assert resolve(parse_rate("r=5"), made, **shape).amounts == (0, 5, 5, 5)
    assert resolve(parse_rate("merge=0.3"), made, **shape).amounts == (0, 7, 6, 6)
    assert resolve(parse_rate("r=[0,5]"), made, **shape).amounts == (0, 5, 0, 0)
    assert resolve(parse_rate("keep=1@0"), made, **shape).amounts == (0, 0, 0, 0)


def test_deit_keeps_what_costs_what_the_paper_says():
    shape = {"depth": 12, "tokens": 197, "num_prefix": 1}
    made = make_reducer("representation_shift")
    assert resolve(parse_rate("keep=0.7"), made, **shape).counts == (197,) * 3 + (139,) * 3 + (98,) * 3 + (69,) * 3
    assert resolve(parse_rate("keep=0.72"), made, **shape).counts == (197,) * 3 + (143,) * 3 + (104,) * 3 + (76,) * 3


@pytest.mark.parametrize("options", [{"layer": "mlps"}, {"form": "both"}, {"metric": "l3"}])
def test_an_unknown_option_is_refused_with_the_known_ones(options):
    with pytest.raises(RequestError, match="is unknown; use"):
        make_reducer("representation_shift", **options)
