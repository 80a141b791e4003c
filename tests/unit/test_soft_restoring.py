"""Softly merged tokens are given back as mixtures by shares: against matrices, hard merging, and with gradients."""

import pytest
import torch
from cold_dtem import COLD, HardTwin

from suite import RequestError, attach
from suite.backbones.segmenter import build_segmenter
from suite.tokens.grouping import Matching
from suite.tokens.soft_matching import log_presence, soft_grouping, soft_merge, split
from suite.tokens.state import SMALLEST_SIZE, Tokens

N, PREFIX = 14, 1
STEPS = (4, 3, 2)  # r of three merges, one after the other


def make_segmenter(mode="before_decoder"):
    torch.manual_seed(0)
    model = build_segmenter(
        image_size=32, patch_size=4, width=32, depth=4, heads=2, num_classes=5, decoder_heads=2
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    model.restore = mode
    return model


def make_images(batch=2):
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def started(restoring="at_end", batch=2, dtype=torch.float64):
    x = torch.randn(batch, N, 5, generator=torch.Generator().manual_seed(2), dtype=dtype)
    return Tokens.start(x, PREFIX, restoring)


def groupings(batch=2, r=STEPS, seed=3):
    """Shares of every merge, leaves with a gradient; and how many tokens are active in each."""
    generator, active, made = torch.Generator().manual_seed(seed), N, []
    for amount in r:
        sides = [len(range(PREFIX + turn, active, 2)) for turn in (0, 1)]
        metric = [torch.randn(batch, side, 4, generator=generator, dtype=torch.float64) for side in sides]
        made.append((soft_grouping(*metric, amount, tau2=1.0).detach().requires_grad_(), active))
        active -= amount
    return made


def merged(tokens, made):
    for (grouping, active), r in zip(made, STEPS, strict=True):
        x, size, flow = soft_merge(tokens.x, tokens.sizes, grouping, active, PREFIX)
        tokens = tokens.soften(x, size, active - r, flow)
    return tokens


def literal_shares(made):
    """(B, N, N) share of every original token in every token of the end: a product of matrices, entry by entry."""
    batch, size, found = len(made[0][0]), torch.ones(N, dtype=torch.float64), []
    for image in range(batch):
        shares, mass = torch.eye(N, dtype=torch.float64), size
        for grouping, active in made:
            e, step = grouping[image], [[0.0] * N for _ in range(N)]
            a_side, b_side = list(range(PREFIX, active, 2)), list(range(PREFIX + 1, active, 2))
            after = list(mass)
            for row, i in enumerate(a_side):
                step[i][i] = 1 - e[row].sum()
                after[i] = mass[i] * (1 - e[row].sum())
                for column, j in enumerate(b_side):
                    step[i][j] = e[row, column]
                    after[j] = after[j] + e[row, column] * mass[i]
            for i in (*range(PREFIX), *b_side, *range(active, N)):
                step[i][i] = 1.0
            order = sorted([*a_side, *b_side], key=lambda i: -after[i].item())
            order = [*range(PREFIX), *order, *range(active, N)]
            columns = [torch.stack([torch.as_tensor(row[i], dtype=torch.float64) for row in step]) for i in order]
            shares, mass = shares @ torch.stack(columns, dim=1), torch.stack([after[i] for i in order])
        found.append(shares)
    return torch.stack(found)


def test_what_is_given_back_is_the_mixture_by_shares_composed_over_all_merges():
    made = groupings()
    tokens, shares = merged(started(), made), literal_shares(made)
    torch.testing.assert_close(tokens.expand(), shares @ tokens.x)
    torch.testing.assert_close(tokens.expand(torch.eye(N, dtype=torch.float64).expand(2, -1, -1)), shares)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, N, dtype=torch.float64))
    torch.testing.assert_close(shares.sum(1), tokens.sizes)  # as many as it stands for flowed into a token


def test_the_gradient_of_what_is_given_back_is_that_of_the_matrices():
    made = groupings()
    tokens = merged(started(), made)
    weight = torch.randn(tokens.x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    leaves = [grouping for grouping, _ in made]
    ours = torch.autograd.grad((tokens.expand() * weight).sum(), leaves, retain_graph=True)
    wanted = torch.autograd.grad((literal_shares(made) @ tokens.x * weight).sum(), leaves)
    for got, expected in zip(ours, wanted, strict=True):
        assert expected.any()
        torch.testing.assert_close(got, expected)


def test_shares_of_0_and_1_give_every_token_what_its_owner_has():
    tokens = started()
    grouping = torch.zeros(2, 7, 6, dtype=torch.float64)  # A: 1, 3, .. 13; B: 2, 4, .. 12
    grouping[:, 0, 2] = grouping[:, 3, 2] = grouping[:, 6, 5] = 1.0  # 1 and 7 into 6, 13 into 12
    x, size, flow = soft_merge(tokens.x, tokens.sizes, grouping, N, PREFIX)
    soft = tokens.soften(x, size, N - 3, flow)
    kept = torch.tensor([[0, 6, 12, 3, 5, 9, 11, 2, 4, 8, 10]] * 2)
    source, target = torch.tensor([[1, 7, 13]] * 2), torch.tensor([[1, 1, 2]] * 2)
    hard = tokens.merge(Matching(kept, source, target))
    assert soft.sizes[0].tolist() == [*hard.sizes[0].tolist(), 0.0, 0.0, 0.0]
    torch.testing.assert_close(soft.expand(), hard.expand())
    assert soft.owner is None


def test_a_row_that_leaves_completely_still_learns_from_what_is_given_back():
    grouping = torch.tensor([[[1.0 + 1e-7, 0.0], [0.25, 0.5]]], requires_grad=True)
    x, size = torch.arange(5.0).view(1, 5, 1), torch.ones(1, 5)
    after, _, flow = soft_merge(x, size, grouping, 5, 1)
    flow.restore(after.detach())[0, 1].sum().backward()
    targets = [after[0, flow.order[0].tolist().index(2 + j) + 1].item() for j in range(2)]
    torch.testing.assert_close(grouping.grad[0, 0], torch.tensor(targets) - x[0, 1])  # to there, away from itself


@pytest.mark.parametrize("restoring", [None, "per_block"])
def test_nothing_is_kept_where_nothing_is_given_back_at_the_end(restoring):
    tokens = merged(started(restoring), groupings())
    assert tokens.flows == ()
    with pytest.raises(ValueError, match=r"merged softly \(training\)"):
        tokens.expand()
    assert len(merged(started(), groupings()).flows) == 3


def test_under_autocast_shares_are_mixed_in_single_precision():
    made = groupings()
    tokens = started(dtype=torch.float32)
    made = [(grouping.detach().float(), active) for grouping, active in made]
    expected = merged(tokens, made).expand()
    with torch.autocast("cpu", torch.bfloat16):
        found = merged(tokens, made).expand()
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_decoder_reads_the_mixture_of_normed_tokens():
    model, images = make_segmenter(), make_images()
    with attach(model, "dtem", "r=6") as handle:
        handle.reducer.train()
        (features,) = model.decoder_inputs(images)
        tokens = handle.tokens
    assert len(tokens.flows) == 4
    shares = tokens.expand(torch.eye(65).expand(2, -1, -1))
    assert (shares > -1e-6).all()
    torch.testing.assert_close(features, (shares @ model.backbone.norm(tokens.x))[:, 1:])


@torch.no_grad()
def test_with_a_cold_choice_patches_have_what_the_hard_merge_gives_them():
    model, images = make_segmenter().double(), make_images().double()
    scores = {}
    for reducer in (HardTwin(), "dtem"):
        with attach(model, reducer, "r=[9,9,0,9]", **(COLD if reducer == "dtem" else {})) as handle:
            handle.reducer.train()
            scores[handle.reducer.soft] = model.grid_logits(images)
            counts = handle.token_counts
            assert counts[-1] == (65 if handle.reducer.soft else 38)
    torch.testing.assert_close(scores[True], scores[False], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_rate_that_takes_nothing_out_is_the_untouched_model_in_training_too():
    model, images = make_segmenter(), make_images()
    untouched = model(images)
    with attach(model, "dtem", "r=0") as handle:
        handle.reducer.train()
        assert torch.equal(model(images), untouched)


@pytest.mark.parametrize("mode", ["after_decoder", "per_block"])
def test_other_ways_to_give_tokens_back_are_refused_in_training_with_what_to_do(mode):
    model, images = make_segmenter(mode), make_images()
    with attach(model, "dtem", "r=6") as handle:
        handle.reducer.train()
        with pytest.raises(RequestError, match=r"merged softly \(training\).*before_decoder") as error:
            model(images)
        assert "\n" not in str(error.value)
        handle.reducer.eval()
        model(images)


def test_presence_fades_with_size_and_is_full_for_whole_tokens():
    size = torch.tensor([[3.0, 1.0, 0.5, 0.0]], requires_grad=True)
    whole = Tokens.start(torch.zeros(1, 4, 2), 1)
    assert log_presence(whole) is None
    presence = log_presence(whole.soften(whole.x, size, 3))
    expected = [0.0, 0.0, torch.tensor(0.5).log().item(), torch.tensor(SMALLEST_SIZE).log().item()]
    assert presence[0].tolist() == pytest.approx(expected)
    presence.sum().backward()
    assert size.grad[0].tolist() == pytest.approx([0.0, 0.0, 2.0, 1 / SMALLEST_SIZE])


def test_every_embedding_learns_from_all_patches_the_last_one_too():
    model, images = make_segmenter().requires_grad_(False), make_images()
    with attach(model, "dtem", "r=6") as handle:
        handle.reducer.train()
        model.grid_logits(images).square().sum().backward()
        gradients = [layer.weight.grad for layer in handle.reducer.embeddings]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_the_active_tokens_are_split_as_the_merge_splits_them():
    x = torch.arange(9.0).view(1, 9, 1)
    assert [side.flatten().tolist() for side in split(x, 7, 1)] == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]
