"""dTPS, PiToMe and DiffRate equal their authors' implementations; all six methods equal the literal form."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recipe
import timm
import torch
from reference import Reference
from reference_prune_merge import EarlyReference, diffrate, etps, keep_scores, pitome, predicted, tofu
from test_reference import KINDS, SMALL, tiny

from suite import attach
from suite.measure.flops import count_macs_fast
from suite.reducers.score_predictor import ScorePredictor
from tests.tiers import spread

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[3] / "shared" / "golden"
CASES = json.loads((DATA / "manifest_prune_merge.json").read_text())["cases"]
ASKED = {"dtps_t_k07": ("dtps", "keep=0.7"), "pitome_t_0p95": ("pitome", "keep=0.95")}
INPUTS = {"noise": recipe.noise, "smooth": recipe.smooth}
DEPTH, BLOCKS = 5, (1, 2, 3)  # of the tiny models; where staged methods act in them


def extra(shapes):
    """What a method has learned, by the same recipe as the backbone: {name: float32 array}."""
    generator, out = recipe.rng(2), {}
    for name in sorted(shapes):
        z = generator.standard_normal(size=tuple(shapes[name]))
        gain = name.endswith(".weight") and z.ndim == 1
        std = recipe.QKV_STD if name.endswith(".weight") else recipe.OTHER_STD
        out[name] = (1.0 + 0.1 * z if gain else std * z).astype(np.float32)
    return out


def official(name):
    """A model with the weights of the reference outputs."""
    model = timm.create_model(name).eval()
    model.load_state_dict({key: torch.from_numpy(array) for key, array in recipe.weights(name).items()}, strict=True)
    return model


@pytest.fixture(scope="module")
def deit_tiny():
    return official("deit_tiny_patch16_224")


def forward(model, asked, images, extras=None, **options):
    """Logits and handle after a forward with a reducer, its weights loaded."""
    with torch.no_grad(), attach(model, *asked, **options) as handle:
        if extras:
            handle.reducer.load_state_dict({key: torch.from_numpy(value) for key, value in extras.items()})
        return model(images).numpy(), handle


def compare_with_authors(model, name, stored, images, prefix, *, asked, extras=None, options=None):
    """Logits, owners and (where they are stored) sizes of both inputs; float64 where `images` are."""
    double = images.dtype == torch.float64
    logits, handle = forward(model, asked, images, extras, **(options or {}))
    owner, key = handle.tokens.owner.numpy(), f"{prefix}_map"
    exact = stored[f"{key}_64" if double and f"{key}_64" in stored else key]
    assert (recipe.canonical_partition(owner) == recipe.canonical_partition(exact)).all()
    assert np.abs(logits - stored[f"{prefix}_logits64"]).max() <= (1e-12 if double else 1e-5)
    if not double:
        assert np.abs(logits - stored[f"{prefix}_logits"]).max() <= 1e-5
    if f"{prefix}_size" in stored:
        sizes = stored[f"{prefix}_size_64" if double and f"{prefix}_size_64" in stored else f"{prefix}_size"]
        assert np.abs(handle.tokens.sizes.numpy() - sizes).max() <= 1e-5
    return handle


def extras_of(name):
    shapes = CASES[name].get("extra_weights") if name in CASES else None
    return extra(shapes) if shapes else None


def test_what_is_learned_is_that_of_the_reference():
    assert recipe.digest(extras_of("dtps_t_k07")) == CASES["dtps_t_k07"]["extra_weights_sha256"]


@pytest.mark.parametrize(
    ("name", "prefix"), [("dtps_t_k07", "noise"), ("dtps_t_k07", "smooth"), ("pitome_t_0p95", "smooth")]
)
def test_logits_and_groups_equal_the_authors(deit_tiny, name, prefix):
    images = torch.from_numpy(INPUTS[prefix]())
    stored = np.load(DATA / f"{name}.npz")
    handle = compare_with_authors(deit_tiny, name, stored, images, prefix, asked=ASKED[name], extras=extras_of(name))
    assert handle.token_counts == CASES[name]["token_counts"]
    assert (handle.tokens.owner.numpy() == stored[f"{prefix}_map"]).all(), "the authors' order"


@pytest.mark.parametrize("prefix", INPUTS)
@pytest.mark.parametrize("name", ASKED)
def test_double_precision_equals_the_authors_in_double_precision(deit_tiny, name, prefix):
    images = torch.from_numpy(INPUTS[prefix]()).double()
    stored = np.load(DATA / f"{name}.npz")
    deit_tiny.double()
    try:
        handle = compare_with_authors(
            deit_tiny, name, stored, images, prefix, asked=ASKED[name], extras=extras_of(name)
        )
    finally:
        deit_tiny.float()
    if name == "pitome_t_0p95":
        tokens, maps = handle.tokens, stored[f"{prefix}_maps_by_layer_64"]
        for block in range(12):
            owner = replace(tokens, steps=tokens.steps[: block + 1]).owner.numpy()
            assert (recipe.canonical_partition(owner) == recipe.canonical_partition(maps[block])).all()


@pytest.mark.parametrize("prefix", INPUTS)
def test_tps_keeps_and_squeezes_as_the_authors_do_at_every_stage(deit_tiny, prefix):
    stored = np.load(DATA / "dtps_t_k07.npz")
    images = torch.from_numpy(INPUTS[prefix]())
    _, handle = forward(deit_tiny, ASKED["dtps_t_k07"], images, extras_of("dtps_t_k07"))
    for stage, step in enumerate(handle.tokens.steps):
        kept, gone, nearest = (
            stored[f"{prefix}_{what}_stage{stage}"].astype(np.int64) for what in ("keep_idx", "drop_idx", "nearest")
        )
        assert (step.kept[:, 1:].numpy() - 1 == kept).all()
        assert (np.take_along_axis(step.index_map().numpy(), gone + 1, axis=1) == nearest + 1).all()


@pytest.mark.parametrize("name", ASKED)
def test_the_cost_is_what_was_counted_on_the_authors_code(deit_tiny, name):
    with attach(deit_tiny, *ASKED[name]):
        macs = count_macs_fast(deit_tiny, torch.from_numpy(recipe.smooth()[:1]))
    assert macs / 1e9 == pytest.approx(CASES[name]["gflops"], abs=1e-6)


@pytest.mark.skipif(not SHARED.exists(), reason="the larger set of reference outputs is not here")
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("prefix", INPUTS)
def test_a_published_plan_gives_what_it_gives_the_authors(deit_tiny, prefix, double):
    case = json.loads((SHARED / "manifest.json").read_text())["cases"]["diffrate_t_0p8"]
    plan = {"prune_kept": case["params"]["prune_kept_num"], "merge_kept": case["params"]["merge_kept_num"]}
    stored = np.load(SHARED / "diffrate_t_0p8.npz")
    images = torch.from_numpy(INPUTS[prefix]()).to(torch.float64 if double else torch.float32)
    asked = ("diffrate", None)
    deit_tiny.to(images.dtype)
    try:
        handle = compare_with_authors(deit_tiny, "diffrate", stored, images, prefix, asked=asked, options=plan)
    finally:
        deit_tiny.float()
    assert handle.token_counts == case["token_counts"]["block_out"]
    changed, maps, done = handle.tokens.steps, stored[f"{prefix}_maps_by_layer"], 0
    for block, (entering, leaving) in enumerate(zip([197, *handle.token_counts], handle.token_counts, strict=False)):
        done += leaving != entering
        if done:
            owner = replace(handle.tokens, steps=changed[:done]).owner.numpy()
            assert (recipe.canonical_partition(owner) == recipe.canonical_partition(maps[block])).all()
    with attach(deit_tiny, *asked, **plan) as handle:
        macs = count_macs_fast(deit_tiny, torch.from_numpy(recipe.smooth()[:1]))
    # ours adds one query row where the authors keep the whole map
    macs -= 192 * sum(trace.attended for trace in handle.trace if trace.leaving != trace.entering)
    assert macs / 1e9 == pytest.approx(case["gflops"], abs=1e-6)


# The literal form, at rates and on models that no reference outputs exist for.


def compare(model, image, reducer, rate, literal, atol=1e-11, **options):
    """`literal(handle)` -> (Reference, reduce); made late, because what is learned is there only when attached."""
    model_state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad(), attach(model, reducer, rate, **options) as handle:
        strong(handle.reducer)
        logits = model(image[None])[0].numpy()
    reference, reduce = literal(model_state, {k: v.double().numpy() for k, v in handle.reducer.state_dict().items()})
    wanted, owner, sizes, counts = reference(image.numpy(), reduce)
    assert handle.token_counts == counts
    assert (handle.tokens.owner[0].numpy() == owner).all()
    if handle.tokens.size is not None:
        assert np.abs(handle.tokens.sizes[0].numpy() - sizes).max() <= 1e-12
    assert np.abs(logits - wanted).max() <= atol


def strong(module):
    """Weights large enough that predictors tell tokens apart."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            gain = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if gain else 0.3 * noise)


with_class = [kind for kind, (_, about) in KINDS.items() if about["classes"]]


def late(about, proportional=False, **other):
    return {**about, "weighted_pool": False, "proportional": proportional, **other}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"d": 1}, {"merge": "average"}, {"d": 0, "size_weighted": True},
                                     {"d": 2, "merge": "avg", "size_weighted": True}], ids=str)  # fmt: skip
def test_token_fusion_equals_the_literal_form(kind, options):
    model, about, image = tiny(kind)
    weighted = options.get("size_weighted", False)
    about = late(about, weighted, weighted_pool=weighted)
    merge = "average" if "merge" in options else "mlerp"
    reduce = tofu([7] * DEPTH, about["prefix"], options.get("d", 2), merge, weighted)
    compare(model, image, "tofu", "r=7", lambda state, _: (Reference(state, **about), reduce), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("keep", "options"), [(0.8, {}), (0.9, {"order": "mae"}), (0.55, {"margin": 0.9})], ids=str)
def test_energy_merging_equals_the_literal_form(kind, keep, options):
    model, about, image = tiny(kind)
    about = late(about, weighted_pool=True)
    reduce = pitome(lambda _, patches: int(patches - patches * keep), about["prefix"], DEPTH, **options)
    compare(model, image, "pitome", f"keep={keep}", lambda state, _: (Reference(state, **about), reduce), **options)


@pytest.mark.parametrize("kind", with_class)
def test_a_plan_equals_the_literal_form(kind):
    model, about, image = tiny(kind)
    about = late(about, True, weighted_pool=True)
    # a block that does nothing, one that merges, one that does both, one that prunes, one that does both again
    plan = {"prune_kept": [99, 99, 50, 40, 20], "merge_kept": [99, 56, 44, 60, 9]}
    reduce = diffrate(**plan, prefix=about["prefix"])
    compare(model, image, "diffrate", None, lambda state, _: (Reference(state, **about), reduce), **plan)


@pytest.mark.parametrize("kind", with_class)
def test_squeezing_by_class_attention_equals_the_literal_form(kind):
    model, about, image = tiny(kind)
    about, patches = late(about), model.patch_embed.num_patches
    kept_at = {block: int(patches * 0.6 ** (stage + 1)) for stage, block in enumerate(BLOCKS)}
    reduce = etps(kept_at, about["prefix"])
    compare(model, image, "etps", "keep=0.6", lambda state, _: (Reference(state, **about), reduce))


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # so small that the epsilon of the normalisation shows
@torch.no_grad()
def test_the_predictor_equals_the_literal_form(scale):
    predictor = ScorePredictor(32).double()
    strong(predictor)
    x = scale * torch.randn(1, 20, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    state = {f"score_predictor.0.{key}": value.numpy() for key, value in predictor.state_dict().items()}
    assert np.abs(predictor(x)[0].numpy() - keep_scores(x[0].numpy(), state, 0)).max() <= 1e-12


@pytest.mark.parametrize("name", ["dtps", "dynamicvit"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", ["keep=0.6", "keep=[0.9,0.9,0.2]", "keep=0.8@0,4"])
def test_predicted_pruning_equals_the_literal_form(kind, rate, name):
    model, about, image = tiny(kind)
    patches = model.patch_embed.num_patches
    blocks = (0, 4) if "@" in rate else BLOCKS
    parts = (0.9, 0.9, 0.2) if "[" in rate else [float(rate[5:8]) ** (stage + 1) for stage in range(len(blocks))]
    kept_at = {block: int(patches * part) for block, part in zip(blocks, parts, strict=True)}

    def literal(state, learned):
        reduce = predicted(learned, kept_at, about["prefix"], squeeze=name == "dtps")
        return EarlyReference(state, **late(about)), reduce

    compare(model, image, name, rate, literal)


SMALL_RATES = {"tofu": "r=13", "pitome": "keep=0.875", "diffrate": "r=12", "etps": "keep=0.5", "dtps": "keep=0.5"}


@pytest.mark.parametrize("name", spread(3, SMALL_RATES))
def test_deit_small_equals_the_literal_form(name):
    model, image = official(SMALL).double(), torch.from_numpy(recipe.smooth()[0]).double()
    about = {"heads": 6, "prefix": 1, "classes": 1, "proportional": name == "diffrate"}
    kept_at = {3: 98, 6: 49, 9: 24}
    counts = [197 - 12 * block for block in range(13)]
    reduces = {
        "tofu": tofu([13] * 12, 1, 6),
        "pitome": pitome(lambda _, patches: int(patches - patches * 0.875), 1, 12),
        "diffrate": diffrate([count - 6 for count in counts[:-1]], counts[1:], 1),
        "etps": etps(kept_at, 1),
    }

    def literal(state, learned):
        if name == "dtps":
            return EarlyReference(state, **about), predicted(learned, kept_at, 1)
        return Reference(state, **about), reduces[name]

    compare(model, image, name, SMALL_RATES[name], literal, atol=1e-10)
