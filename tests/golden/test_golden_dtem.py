"""DTEM gives what its authors' implementation gives: merged hard, and softly with the gradients of training."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recipe
import safetensors.torch
import timm
import torch
from reference import Reference, tome
from test_reference import KINDS, tiny

from suite import attach
from suite.measure.flops import count_flops, count_macs_fast
from suite.reducers import make_reducer
from suite.tokens.soft_matching import soft_grouping, soft_merge, split

DATA = Path(__file__).parent / "data"
MANIFEST = json.loads((DATA / "manifest_dtem.json").read_text())
INPUTS = {"noise": recipe.noise, "smooth": recipe.smooth}
HARD = {"dtem_t_r8": "r=8", "dtem_t_r16": "r=16"}


def embeddings():
    """{the authors' name: float32 array} of the embeddings of DeiT-T."""
    generator, out = recipe.rng(2), {}
    names = [f"blocks.{block}.attn.qkv.metric_layer.{part}" for block in range(12) for part in ("bias", "weight")]
    for name in sorted(names):
        weight = name.endswith("weight")
        z = generator.standard_normal(size=(64, 192) if weight else 64)
        out[name] = ((recipe.QKV_STD if weight else recipe.OTHER_STD) * z).astype(np.float32)
    return out


def probe():
    """V (2, 1000) float64 of the loss sum(logits * V)."""
    return recipe.rng(4).standard_normal((2, 1000))


def expected(name, array):
    return np.load(DATA / f"{name}.npz")[array]


def error(got, wanted):
    """Largest difference, relative to the largest value where that is above 1."""
    got = np.asarray(got, dtype=np.float64)
    assert got.shape == wanted.shape
    return np.abs(got - wanted).max() / max(1, np.abs(wanted).max())


@pytest.fixture(scope="module")
def deit_tiny():
    model = timm.create_model("deit_tiny_patch16_224").eval()
    weights = recipe.weights("deit_tiny_patch16_224")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=True)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file as the authors save it: backbone and embeddings side by side."""
    file = tmp_path_factory.mktemp("dtem") / "model.safetensors"
    state = {name: torch.from_numpy(array) for name, array in embeddings().items()}
    safetensors.torch.save_file(state | {"cls_token": torch.zeros(1, 1, 192)}, file)
    return file


def test_embeddings_and_probe_are_those_of_the_reference():
    assert recipe.digest(recipe.weights("deit_tiny_patch16_224")) == MANIFEST["weights_sha256"]["deit_tiny_patch16_224"]
    assert hashlib.sha256(probe().tobytes()).hexdigest() == MANIFEST["probe_sha256"]
    for case in MANIFEST["cases"].values():
        assert case.get("extra_weights_sha256") in (None, recipe.digest(embeddings()))


@pytest.mark.parametrize("image", INPUTS)
@pytest.mark.parametrize("name", HARD)
@torch.no_grad()
def test_hard_merging_gives_the_same_logits_groups_and_sizes(deit_tiny, checkpoint, name, image):
    with attach(deit_tiny, "dtem", HARD[name], weights=checkpoint) as handle:
        logits = deit_tiny(torch.from_numpy(INPUTS[image]()))
    tokens = handle.tokens
    assert handle.reducer.trained
    assert handle.token_counts == MANIFEST["cases"][name]["token_counts"]
    assert error(logits, expected(name, f"{image}_logits")) <= 1e-5
    assert (tokens.sizes.numpy() == expected(name, f"{image}_size")).all()
    for block, wanted in enumerate(expected(name, f"{image}_maps_by_layer")):
        assert (replace(tokens, steps=tokens.steps[: block + 1]).owner.numpy() == wanted).all()


@pytest.mark.parametrize("image", INPUTS)
@pytest.mark.parametrize("name", HARD)
@torch.no_grad()
def test_hard_merging_in_double_precision_gives_the_same_logits(deit_tiny, checkpoint, name, image):
    deit_tiny.double()
    try:
        with attach(deit_tiny, "dtem", HARD[name], weights=checkpoint):
            logits = deit_tiny(torch.from_numpy(INPUTS[image]()).double())
    finally:
        deit_tiny.float()
    assert error(logits, expected(name, f"{image}_logits64")) <= 1e-12


@pytest.mark.parametrize("name", HARD)
def test_the_cost_is_what_was_counted_on_the_authors_code_and_the_embedding_is_the_reducers(
    deit_tiny, checkpoint, name
):
    with attach(deit_tiny, "dtem", HARD[name], weights=checkpoint) as handle:
        report = count_flops(deit_tiny)
        fast = count_macs_fast(deit_tiny, torch.from_numpy(recipe.smooth()[:1]))
    entering = [197, *handle.token_counts[:-1]]
    assert report.total / 1e9 == pytest.approx(MANIFEST["cases"][name]["gflops"], abs=1e-6)
    assert fast == report.torch == report.total
    assert not report.disputed
    assert report.uncounted == {}
    assert report.reducer == sum(n * 192 * 64 + (n + 1) // 2 * (n // 2) * 64 for n in entering)


def train_once(model, checkpoint, rate, image, dtype):
    """Logits, per block gradients of weight and bias, and tokens of one forward and backward of soft merging."""
    model.to(dtype)
    try:
        with attach(model, "dtem", rate, weights=checkpoint) as handle:
            handle.reducer.train()
            logits = model(torch.from_numpy(INPUTS[image]()).to(dtype))
            (logits * torch.from_numpy(probe()).to(dtype)).sum().backward()
    finally:
        model.float()
    gradients = [(layer.weight.grad, layer.bias.grad) for layer in handle.reducer.embeddings]
    assert all(parameter.grad is None for parameter in model.parameters())
    return logits.detach(), gradients, handle


@pytest.mark.parametrize("image", INPUTS)
@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), [(torch.float32, "", 2e-5), (torch.float64, "64", 1e-10)])
def test_soft_merging_in_one_block_gives_the_same_logits_sizes_and_gradients(
    deit_tiny, checkpoint, image, dtype, suffix, tolerance
):
    name = "dtem_train1_t_l0_r16"
    logits, gradients, handle = train_once(deit_tiny, checkpoint, "r=[16]", image, dtype)
    (weight, bias), *others = gradients
    size = handle.tokens.size.detach()
    assert handle.token_counts == MANIFEST["cases"][name]["token_counts"] == handle.planned_counts
    assert handle.tokens.active == MANIFEST["cases"][name]["tokens_taking_part"][-1]
    assert others == [(None, None)] * 11
    assert error(logits, expected(name, f"{image}_logits{suffix}")) <= min(tolerance, 1e-5)
    assert error(size.sort(descending=True).values, expected(name, f"{image}_size_sorted{suffix}")) <= tolerance
    assert error(weight[:16, :16], expected(name, f"{image}_gw_slice{suffix}")) <= tolerance
    assert error(weight.norm(dim=1), expected(name, f"{image}_gw_rownorm{suffix}")) <= tolerance
    assert error(weight.norm(), expected(name, f"{image}_gw_norm{suffix}")) <= tolerance
    assert error(bias, expected(name, f"{image}_gb{suffix}")) <= tolerance


@pytest.mark.parametrize("image", INPUTS)
def test_soft_merging_in_every_block_gives_the_same_logits_and_gradients(deit_tiny, checkpoint, image):
    name = "dtem_train_t_r8"
    logits, gradients, handle = train_once(deit_tiny, checkpoint, "r=8", image, torch.float64)
    active = [197 - 8 * (block + 1) for block in range(12)]
    weights, biases = (torch.stack(part) for part in zip(*gradients, strict=True))
    assert (expected(name, f"{image}_n_effective") == active).all()
    assert handle.tokens.active == active[-1]
    assert error(logits, expected(name, f"{image}_logits64_stable")) <= 1e-8
    assert error(weights[:, :8, :8], expected(name, f"{image}_gw_slice64_stable")) <= 1e-8
    assert error(weights.norm(dim=(1, 2)), expected(name, f"{image}_gw_norm64_stable")) <= 1e-8
    assert error(biases, expected(name, f"{image}_gb64_stable")) <= 1e-8
    assert not weights[-1].any()  # the class token is never merged, and nothing attends after the last merge


@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), [(torch.float32, "", 1e-5), (torch.float64, "64", 1e-10)])
def test_one_soft_merge_gives_the_same_result_grouping_and_gradients(dtype, suffix, tolerance):
    stored = np.load(DATA / "unit_dtem_merge_train.npz")
    x, size, metric = (torch.from_numpy(stored[name]).to(dtype) for name in ("x", "size", "metric"))
    x.requires_grad_()
    metric.requires_grad_()
    grouping = soft_grouping(*split(metric, 29, 1), r=5)
    merged, sizes, _ = soft_merge(x, size, grouping, active=29, protected=1)
    (sizes * merged.square().sum(-1)).sum().backward()
    wanted = stored[f"x_out{suffix}"].copy()
    assert (stored[f"size_out{suffix}"][1, 27:29] == 0).all()
    wanted[1, 27:29] = wanted[1, 28:26:-1]  # equal sizes keep their order here, in the stored sort they do not
    assert error(merged.detach(), wanted) <= tolerance
    assert error(sizes.detach(), stored[f"size_out{suffix}"]) <= tolerance
    assert error(grouping.detach(), stored[f"assign{suffix}"]) <= tolerance
    assert error(x.grad, stored[f"grad_x{suffix}"]) <= tolerance
    # saturated choices amplify rounding: the stored float32 gradient is itself 1.5e-3 from the float64 one
    assert error(metric.grad, stored[f"grad_metric{suffix}"]) <= (tolerance if suffix else 1e-4)


class Embedded(Reference):
    """The literal model whose metric is the embedding in place of the keys."""

    def attention(self, x, block, sizes):
        with np.errstate(divide="ignore"):  # log of size 0: no attention at all
            mixed, _, class_attention = super().attention(x, block, sizes)
        return mixed, self.linear(x, f"embeddings.{block}"), class_attention


def literal_grouping(a, b, r, tau1=0.1, tau2=0.1, top=3):
    """Rows of A choose rows of B, r times, one softmax over all pairs each time: the whole matrix, step by step."""
    cosine = np.array([[p @ q / np.linalg.norm(p) / np.linalg.norm(q) for q in b] for p in a])
    logits = np.full(cosine.shape, -np.inf)
    for i, row in enumerate(cosine):
        for j in sorted(range(len(b)), key=lambda j: -row[j])[:top]:
            logits[i, j] = row[j] / tau1
    total = np.zeros(cosine.shape)
    for _ in range(r):
        share = np.exp((logits - logits.max()) / tau2)
        share /= share.sum()
        total += share
        for i in range(len(a)):
            logits[i] += np.log(max(1 - share[i].sum(), np.finfo(np.float32).eps))
    return np.array([row / max(1, row.sum()) for row in total])


def soft(r_per_block, prefix):
    """Soft merging of one image, r_per_block[l] tokens in block l; all tokens stay."""
    active = None

    def reduce(block, x, sizes, embedded, class_attention):
        nonlocal active
        active = len(x) if active is None else active
        a_side, b_side = list(range(prefix, active, 2)), list(range(prefix + 1, active, 2))
        r = min(r_per_block[block], (active - prefix) // 2)
        if r <= 0:
            return x, sizes, [[i] for i in range(len(x))]
        shares = literal_grouping(embedded[a_side], embedded[b_side], r)
        after, mass = x.copy(), sizes.copy()
        for column, j in enumerate(b_side):
            flows = [(shares[row, column] * sizes[i], i) for row, i in enumerate(a_side)]
            mass[j] = sizes[j] + sum(flow for flow, _ in flows)
            after[j] = (sizes[j] * x[j] + sum(flow * x[i] for flow, i in flows)) / mass[j]
        for row, i in enumerate(a_side):
            mass[i] = sizes[i] * min(1, max(0, 1 - shares[row].sum()))
        largest_first = sorted([*a_side, *b_side], key=lambda i: -mass[i])
        order = [*range(prefix), *largest_first, *range(active, len(x))]
        active -= r
        return after[order], mass[order], [[i] for i in range(len(x))]

    return reduce


def with_embeddings(kind):
    """A tiny model, a reducer that is built for it, the literal model with the same embeddings, an image."""
    model, about, image = tiny(kind)
    reducer = make_reducer("dtem")
    with attach(model, reducer, "r=1"):
        state = model.state_dict() | reducer.state_dict()
    return model, reducer, Embedded(state, proportional=True, **about), about["prefix"], image


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_hard_merging_equals_the_literal_form(kind):
    model, reducer, reference, prefix, image = with_embeddings(kind)
    for rate, amounts in {"r=7": [7] * 5, "r=[20, 0, 3, 11]": [20, 0, 3, 11, 0], "r=30": [30] * 5}.items():
        with attach(model, reducer, rate) as handle:
            logits = model(image[None])[0]
        wanted, owner, sizes, counts = reference(image.numpy(), tome(amounts, prefix))
        assert handle.token_counts == counts
        assert (handle.tokens.owner[0].numpy() == owner).all()
        assert (handle.tokens.sizes[0].numpy() == sizes).all()
        assert error(logits, wanted) <= 1e-11


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_soft_merging_equals_the_literal_form(kind):
    model, reducer, reference, prefix, image = with_embeddings(kind)
    for rate, amounts in {"r=7": [7] * 5, "r=[20, 0, 3, 11]": [20, 0, 3, 11, 0], "r=30": [30] * 5}.items():
        with attach(model, reducer, rate) as handle:
            reducer.train()
            logits = model(image[None])[0]
        wanted, _, sizes, counts = reference(image.numpy(), soft(amounts, prefix))
        assert handle.token_counts == counts == [handle.layout.tokens] * 5
        assert error(handle.tokens.sizes[0], sizes) <= 1e-9
        assert error(logits, wanted) <= 1e-9
