"""MCTF gives what its authors' implementation gives, and what a literal second one gives where no outputs exist."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import recipe
import timm
import torch
from reference_mctf import FusionReference, Setting
from test_reference import KINDS, SMALL, tiny

from suite import attach
from suite.measure.flops import count_flops
from tests.tiers import spread

DATA = Path(__file__).parent / "data"
MANIFEST = json.loads((DATA / "manifest_mctf.json").read_text())
CASES = {"mctf_t_r16": "r=16", "mctf_t_fast": "r=0.35@3,6,9"}
INPUTS = {"noise": recipe.noise, "smooth": recipe.smooth}
ROUNDING = 1e-6  # closer scores are ordered by rounding in float32, and the groups that follow are either's


def official(name):
    """A model with the weights of the reference outputs."""
    weights = recipe.weights(name)
    assert recipe.digest(weights) == MANIFEST["weights_sha256"][name]
    model = timm.create_model(name).eval()
    model.load_state_dict({key: torch.from_numpy(array) for key, array in weights.items()}, strict=True)
    return model


@pytest.fixture(scope="module")
def deit_tiny():
    return official("deit_tiny_patch16_224")


@pytest.fixture(scope="module")
def deit_small():
    return official(SMALL).double()


def owners(tokens, counts):
    """(depth, B, N0) owner after each block."""
    done, out, before = 0, [], tokens.origin
    for count in counts:
        done, before = done + (count != before), count
        out.append(replace(tokens, steps=tokens.steps[:done]).owner.numpy())
    return np.stack(out)


def expected_owners(stored):
    """The authors' maps by layer; -2 while nothing was fused and everybody is still alone in its place."""
    return np.where(stored == -2, np.arange(stored.shape[2]), stored)


@torch.no_grad()
def features_by_block(model, images):
    """[(B, N, C)] after every block: what the next one's first norm, or the last norm, is given first."""
    norms, seen = [*(block.norm1 for block in model.blocks[1:]), model.norm], {}

    def note(norm, given):
        seen.setdefault(norm, given[0])  # not returned, which would replace what the norm is given

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    logits = model(images)
    for hook in hooks:
        hook.remove()
    return logits, [seen[norm] for norm in norms]


@pytest.mark.parametrize("image", INPUTS)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits_groups_and_sizes_equal_the_authors_in_single_precision(deit_tiny, name, image):
    stored = np.load(DATA / f"{name}.npz")
    with attach(deit_tiny, "mctf", CASES[name]) as handle:
        logits = deit_tiny(torch.from_numpy(INPUTS[image]())).numpy()
    assert handle.token_counts == handle.planned_counts == MANIFEST["cases"][name]["token_counts"]
    assert np.abs(logits - stored[f"{image}_logits"]).max() <= MANIFEST["cases"][name]["recommended_atol"]
    assert (handle.tokens.sizes.numpy() == stored[f"{image}_size"]).all()
    assert (handle.tokens.owner.numpy() == stored[f"{image}_map"]).all()
    maps = expected_owners(stored[f"{image}_maps_by_layer"])
    assert (owners(handle.tokens, handle.token_counts) == maps).all()


@pytest.mark.parametrize("image", INPUTS)
@pytest.mark.parametrize("name", CASES)
def test_logits_groups_and_features_equal_the_authors_in_double_precision(deit_tiny, name, image):
    stored = np.load(DATA / f"{name}.npz")
    deit_tiny.double()
    try:
        with attach(deit_tiny, "mctf", CASES[name]) as handle:
            logits, features = features_by_block(deit_tiny, torch.from_numpy(INPUTS[image]()).double())
    finally:
        deit_tiny.float()
    assert np.abs(logits.numpy() - stored[f"{image}_logits64"]).max() <= 1e-12
    assert (handle.tokens.sizes.numpy() == stored[f"{image}_size"]).all()
    maps = expected_owners(stored[f"{image}_maps_by_layer"])
    assert (owners(handle.tokens, handle.token_counts) == maps).all()
    class_norm = torch.stack([x[:, 0].norm(dim=1) for x in features])
    mean_norm = torch.stack([x.norm(dim=2).mean(1) for x in features])
    np.testing.assert_allclose(class_norm, stored[f"{image}_block_cls_l2_64"], rtol=1e-6)
    np.testing.assert_allclose(mean_norm, stored[f"{image}_block_tok_l2_64"], rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_cost_exceeds_what_was_counted_on_the_authors_code_by_the_wider_product_alone(deit_tiny, name):
    with attach(deit_tiny, "mctf", CASES[name]) as handle:
        report = count_flops(deit_tiny)
    # the map meets the values of all places, not of the fused tokens only: N^2 C in place of N'^2 C
    wider = [t for t in handle.trace if t.values < t.attended]
    extra = sum(192 * (t.attended**2 - t.values**2) for t in wider)
    wanted = MANIFEST["cases"][name]["gflops"]
    assert (report.total - extra) / 1e9 == pytest.approx(wanted, abs=1e-6)
    assert report.total / 1e9 == pytest.approx(wanted, rel=0.03)
    assert report.reducer == sum((t.attended + 1) // 2 * (t.attended // 2) * 192 for t in wider)
    assert not report.disputed
    assert report.uncounted == {}


@torch.no_grad()
def compare(model, image, rate, asked, about, setting, atol):
    """A forward beside the literal form: counts, owners after every block, sizes, logits. Returns the literal form."""
    with attach(model, "mctf", rate, **asdict(setting)) as handle:
        logits = model(image[None])[0]
    reference = FusionReference(model.state_dict(), setting, **about)
    wanted, owner, sizes, counts = reference(image.numpy(), asked)
    assert handle.token_counts == handle.planned_counts == counts
    assert (owners(handle.tokens, counts)[:, 0] == owner).all()
    assert (handle.tokens.sizes[0].numpy() == sizes).all()
    assert np.abs(logits.numpy() - wanted).max() <= atol
    return reference


@pytest.mark.parametrize(
    ("name", "asked"), [("mctf_t_r16", [0] + [16] * 11), ("mctf_t_fast", [0, 0, 0, *[0.35, 0, 0] * 3])]
)
def test_the_literal_form_itself_equals_the_authors(deit_tiny, name, asked):
    stored = np.load(DATA / f"{name}.npz")
    reference = FusionReference(deit_tiny.state_dict(), Setting(), heads=3, prefix=1, classes=1)
    logits, owner, sizes, counts = reference(recipe.smooth()[1], asked)
    assert counts == MANIFEST["cases"][name]["token_counts"]
    assert (owner == expected_owners(stored["smooth_maps_by_layer"])[:, 1]).all()
    assert (sizes == stored["smooth_size"][1]).all()
    assert np.abs(logits - stored["smooth_logits64"][1]).max() <= 1e-12


RATES = {
    "r=1": [0, 1, 1, 1, 1],
    "r=7": [0, 7, 7, 7, 7],
    "r=30": [0, 30, 30, 30, 30],  # 65 tokens: to 35, to 18, and the floor of ten
    "r=9:-1": [0, 13, 9, 4, 0],
    "r=6@1,4": [0, 6, 0, 0, 6],
    "r=[0, 11, 0, 3]": [0, 11, 0, 3, 0],
    "r=0.35@1,3": [0, 0.35, 0, 0.35, 0],
    "r=0.3": [0, 0.3, 0.3, 0.3, 0.3],
    "r=0.5": [0, 0.5, 0.5, 0.5, 0.5],  # fractions know no floor
}
SETTINGS = [
    Setting(),
    Setting(one_step_ahead=0),
    Setting(one_step_ahead=2),
    Setting(tau_sim=0),
    Setting(tau_info=0),
    Setting(tau_size=0),
    Setting(tau_info=0, tau_size=0),
    Setting(tau_sim=3, tau_info=2, tau_size=0.5),
    Setting(tau_sim=0, tau_info=0, tau_size=0),  # nothing to choose by: the lowest places
    Setting(bidirectional=False),
    Setting(bidirectional=False, one_step_ahead=0, pooling=0),
    Setting(pooling=0),
    Setting(pooling=2),
    Setting(pooling=3),
    Setting(pooling=2, one_step_ahead=2),
    Setting(pooling=3, one_step_ahead=0, tau_sim=0),
]


def described(setting):
    if not isinstance(setting, Setting):
        return None
    changed = {key: value for key, value in asdict(setting).items() if value != getattr(Setting(), key)}
    return " ".join(f"{key}={value}" for key, value in changed.items()) or "defaults"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_rate_equals_the_literal_form(kind):
    model, about, image = tiny(kind)
    for rate, asked in RATES.items():
        compare(model, image, rate, asked, about, Setting(), 1e-11)


@pytest.mark.parametrize(("kind", "setting"), spread(3, KINDS, SETTINGS), ids=described)
def test_every_option_equals_the_literal_form(kind, setting):
    model, about, image = tiny(kind)
    for rate in ("r=7", "r=30"):
        compare(model, image, rate, RATES[rate], about, setting, 1e-11)


@pytest.mark.parametrize("kind", ["class token", "distilled", "registers"])
def test_rows_of_the_fused_map_sum_to_one(kind):
    model, about, image = tiny(kind)
    for setting in SETTINGS:
        if setting.one_step_ahead == 1:
            maps = compare(model, image, "r=7", RATES["r=7"], about, setting, 1e-11).watched.maps
            assert len(maps) == 4
            for attention in maps:
                assert np.abs(attention.sum(-1) - 1).max() <= 1e-12


SMALL_RATES = {
    "r=13": [0] + [13] * 11,
    "r=16": [0] + [16] * 11,
    "r=20": [0] + [20] * 11,
    "r=0.35@3,6,9": [0.35 if block in (3, 6, 9) else 0 for block in range(12)],
}
ABOUT_SMALL = {"heads": 6, "prefix": 1, "classes": 1}


@pytest.mark.parametrize(("rate", "image"), spread(4, SMALL_RATES, INPUTS))
@torch.no_grad()
def test_deit_small_equals_the_literal_form_in_both_precisions(deit_small, rate, image):
    pixels = torch.from_numpy(INPUTS[image]()[0])
    reference = compare(deit_small, pixels.double(), rate, SMALL_RATES[rate], ABOUT_SMALL, Setting(), 1e-11)
    assert reference.watched.gap > ROUNDING
    wanted, owner, sizes, _ = reference(pixels.numpy(), SMALL_RATES[rate])
    deit_small.float()
    try:
        with attach(deit_small, "mctf", rate) as handle:
            logits = deit_small(pixels[None])[0]
    finally:
        deit_small.double()
    assert np.abs(logits.numpy() - wanted).max() <= 1e-5
    assert (handle.tokens.owner[0].numpy() == owner[-1]).all()
    assert (handle.tokens.sizes[0].numpy() == sizes).all()


def test_scores_closer_than_single_precision_are_told_apart_in_double_precision(deit_tiny):
    about = {"heads": 3, "prefix": 1, "classes": 1}
    deit_tiny.double()
    try:
        forms = [
            compare(deit_tiny, torch.from_numpy(pixels).double(), "r=20", [0] + [20] * 11, about, Setting(), 1e-11)
            for pixels in recipe.noise()
        ]
    finally:
        deit_tiny.float()
    assert min(form.watched.gap for form in forms) < ROUNDING / 10
