"""dTPS, eTPS and DynamicViT: examples worked out by hand, promises, and the cost of every method that prunes."""

import math

import pytest
import timm
import torch
from reducer_steps import changes, planned, tiny
from torch.testing import assert_close

from suite import RequestError, attach
from suite.attachment.reducer_weights import read_reducer_weights
from suite.measure.flops import count_flops
from suite.reducers import make_reducer
from suite.reducers.score_predictor import ScorePredictor
from suite.reducers.squeeze import squeeze
from suite.tokens.state import Tokens


def squeezed(rows, staying, leaving, num_prefix=0):
    tokens = Tokens.start(torch.tensor([rows], dtype=torch.float32), num_prefix)
    return squeeze(tokens, torch.tensor([staying]), torch.tensor([leaving]))


def test_a_guest_at_right_angles_weighs_one_against_e():
    merged = squeezed([[1.0, 0.0], [0.0, 1.0]], [0], [1])
    assert_close(merged.x, torch.tensor([[[0.7311, 0.2689]]]), atol=1e-4, rtol=0)
    assert merged.sizes.tolist() == [[2.0]]


def test_a_guest_that_is_its_host_changes_nothing():
    assert_close(squeezed([[3.0, -1.0], [3.0, -1.0]], [1], [0]).x, torch.tensor([[[3.0, -1.0]]]))


def test_hosts_without_guests_are_copied_bit_for_bit_and_the_prefix_is_no_host():
    rows = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).tolist()
    rows[4] = rows[0]  # the guest is the class token's twin, yet goes to another
    merged = squeezed(rows, [3, 1, 2], [4, 5], num_prefix=1)
    before = torch.tensor(rows)
    owner = merged.owner[0]
    assert (owner[[4, 5]] >= 1).all()
    assert torch.equal(merged.x[0, 0], before[0])
    for place, token in enumerate([3, 1, 2], start=1):
        assert torch.equal(merged.x[0, place], before[token]) == (place not in owner[[4, 5]].tolist())


def test_a_guest_of_several_equal_hosts_goes_to_all_and_is_owned_by_the_first():
    merged = squeezed([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [2, 0, 1], [3])
    share = math.exp(math.sqrt(0.5))
    near, far = (math.e + share) / (math.e + share), share / (math.e + share)
    assert_close(merged.x[0], torch.tensor([[near, far], [far, near], [near, far]]), atol=1e-5, rtol=0)
    assert merged.owner.tolist() == [[1, 2, 0, 0]]


def test_scores_are_log_probabilities_and_half_of_the_channels_is_shared():
    predictor = ScorePredictor(8)
    x = torch.randn(2, 5, 8)
    score = predictor(x)
    assert score.shape == (2, 5)
    assert (score < 0).all()
    logits = []
    predictor.out_conv.register_forward_hook(lambda _, given, out: logits.append((given[0], out)))
    assert_close(predictor(x), logits[0][1].softmax(-1)[..., 0].log())
    shared = logits[0][0][..., 4:]
    assert_close(shared, predictor.in_conv(x)[..., 4:].mean(1, keepdim=True).expand(-1, 5, -1))


@pytest.mark.parametrize("name", ["dtps", "etps", "dynamicvit"])
def test_stages_keep_parts_of_the_original_patches_rounded_down(name):
    assert sorted(set(planned(name, "keep=0.7")), reverse=True) == [197, 138, 97, 68]
    assert planned(name, "keep=0.5")[::3] == [197, 99, 50, 25]
    assert planned(name, "keep=[0.6,0.4,0.2]")[::3] == [197, 118, 79, 40]


@pytest.mark.parametrize("name", ["dtps", "dynamicvit"])
def test_the_authors_whole_checkpoint_loads_by_its_keys(name, tmp_path):
    model = tiny()
    donor = attach(model, name, "keep=0.7").reducer
    state = {f"module.{key}": value + 1 for key, value in donor.state_dict().items()}
    torch.save({"model": {**state, "module.blocks.0.attn.qkv.weight": torch.zeros(3)}}, tmp_path / "whole.pth")
    made = make_reducer(name)
    with attach(tiny(), made, "keep=0.7"):
        assert not made.trained
        read_reducer_weights(made, tmp_path / "whole.pth").load_into(made)
        assert made.trained
    for key, value in made.state_dict().items():
        assert torch.equal(value, state[f"module.{key}"])
    with pytest.raises(RequestError, match="as many stages"), attach(tiny(), name, "keep=0.7@1,2") as handle:
        read_reducer_weights(handle.reducer, tmp_path / "whole.pth").load_into(handle.reducer)


def test_pruning_keeps_the_rows_that_squeezing_would_keep():
    kept = {}
    for name in ("dtps", "dynamicvit"):
        seen, _ = changes(tiny(), name, "keep=0.5@1")
        kept[name] = seen[0][1].steps[-1].kept
    assert torch.equal(kept["dtps"], kept["dynamicvit"])


# What they cost


@pytest.mark.parametrize(
    ("model", "name", "rate", "gmacs"),
    [
        ("deit_tiny_patch16_224", "dtps", "keep=0.7", 0.807),
        ("deit_tiny_patch16_224", "pitome", "keep=0.9125", 0.759),
        ("deit_tiny_patch16_224", "tofu", "r=13", 0.7346),  # ToMe's, which measures the same similarities
        ("deit_small_patch16_224", "dtps", "keep=0.7", 2.992),
        ("deit_small_patch16_224", "diffrate", "r=12", None),
        ("deit_tiny_patch16_224", "etps", "keep=0.7", None),
        ("deit_tiny_patch16_224", "dynamicvit", "keep=0.7", None),
    ],
)
def test_everything_that_is_computed_is_counted(model, name, rate, gmacs):
    made = timm.create_model(model).eval()
    with attach(made, name, rate) as handle:
        report = count_flops(made)
    assert not report.disputed
    assert report.uncounted == {}
    overhead = {"tofu": 98 * 98 * 64}  # at least the first block's similarities
    assert report.reducer > overhead.get(name, 0)
    assert report.total == report.formula + report.reducer
    assert handle.reducer.name == name
    if gmacs is not None:
        assert report.total / 1e9 == pytest.approx(gmacs, rel=0.003)
