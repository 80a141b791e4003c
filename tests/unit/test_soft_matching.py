"""Soft grouping and soft merging against their literal form, values and gradients."""

import pytest
import torch

from suite.tokens.soft_matching import soft_grouping, soft_merge, split

EPSILON = torch.finfo(torch.float32).eps


def metrics(batch=2, a=9, b=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(batch, n, 6, generator=generator, dtype=dtype).requires_grad_() for n in (a, b)]


def literal_grouping(a, b, r, tau1, tau2, top):
    """One image, the whole matrix in every one of the r steps; -> shares, and the softmax of each step."""
    cosine = (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T
    seen = torch.zeros_like(cosine, dtype=torch.bool)
    for i, row in enumerate(cosine.tolist()):
        seen[i, sorted(range(len(row)), key=lambda j: (-row[j], j))[:top]] = True
    logits, steps = (cosine / tau1).masked_fill(~seen, -torch.inf), []
    for _ in range(r):
        steps.append((logits / tau2).flatten().softmax(0).view_as(logits))
        logits = logits + (1 - steps[-1].sum(1, keepdim=True)).clamp(min=EPSILON).log()
    total = sum(steps)
    return total / total.sum(1, keepdim=True).detach().clamp(min=1), steps


@pytest.mark.parametrize(("a", "b", "r", "top"), [(9, 8, 5, 3), (8, 8, 8, 3), (9, 8, 1, 1), (3, 2, 2, 3), (1, 1, 1, 3)])
@pytest.mark.parametrize(("tau1", "tau2"), [(0.1, 0.1), (0.1, 1.0), (1.0, 0.05), (0.01, 0.1)])
def test_the_grouping_and_its_gradient_are_those_of_the_literal_recursion(a, b, r, top, tau1, tau2):
    given = metrics(a=a, b=b)
    shares = soft_grouping(*given, r, tau1, tau2, top)
    literal = torch.stack([literal_grouping(*pair, r, tau1, tau2, top)[0] for pair in zip(*given, strict=True)])
    torch.testing.assert_close(shares, literal, atol=1e-11, rtol=0)
    weight = torch.randn(shares.shape, generator=torch.Generator().manual_seed(6), dtype=shares.dtype)
    gradients, expected = (torch.autograd.grad((weight * e).sum(), given) for e in (shares, literal))
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-9 * max(1.0, wanted.abs().max().item()), rtol=0)


def test_every_step_chooses_one_pair_and_no_token_gives_more_than_itself():
    a, b = metrics(a=20, b=19)
    shares = soft_grouping(a, b, 12)
    assert (shares >= 0).all()
    assert (shares.sum(-1) <= 1 + 1e-5).all()
    assert ((shares > 0).sum(-1) <= 3).all()
    assert (shares.sum((1, 2)) <= 12 + 1e-9).all()
    for step in literal_grouping(a[0], b[0], 12, 0.1, 0.1, 3)[1]:
        torch.testing.assert_close(step.sum(), torch.ones_like(step.sum()))


def test_a_cold_choice_is_the_hard_assignment_of_the_best_rows():
    a, b = metrics(a=20, b=19)
    shares = soft_grouping(a, b, 7, tau2=1e-4)
    cosine = torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).mT
    best, to = cosine.max(-1)
    hard = torch.zeros_like(cosine).scatter(-1, to[..., None], 1.0)
    chosen = torch.zeros_like(best).scatter(1, best.topk(7, dim=1).indices, 1.0)
    torch.testing.assert_close(shares, hard * chosen[..., None], atol=1e-6, rtol=0)


def test_equal_candidates_are_taken_in_the_order_of_their_places():
    a, b = torch.ones(1, 2, 4), torch.ones(1, 6, 4)
    assert (soft_grouping(a, b, 1, top=3)[0] > 0).tolist() == [[True] * 3 + [False] * 3] * 2


def test_half_precision_and_autocast_are_grouped_in_single_precision():
    a, b = metrics(dtype=torch.bfloat16)
    expected = soft_grouping(a.float(), b.float(), 4)
    with torch.autocast("cpu", torch.bfloat16):
        for given in ((a, b), (a.float(), b.float())):
            shares = soft_grouping(*given, 4)
            assert shares.dtype == torch.float32
            torch.testing.assert_close(shares, expected, atol=0, rtol=0)


def literal_merge(x, size, shares, r, active, protected):
    """One image, token by token."""
    a_side, b_side = list(range(protected, active, 2)), list(range(protected + 1, active, 2))
    after, mass = list(x), list(size)
    for column, j in enumerate(b_side):
        mass[j] = size[j] + sum(shares[row, column] * size[i] for row, i in enumerate(a_side))
        flow = sum(shares[row, column] * size[i] * x[i] for row, i in enumerate(a_side))
        after[j] = (size[j] * x[j] + flow) / mass[j]
    for row, i in enumerate(a_side):
        mass[i] = size[i] * (1 - shares[row].sum())
    order = sorted([*a_side, *b_side], key=lambda i: -mass[i].item())
    order = [*range(protected), *order, *range(active, len(x))]
    return torch.stack([after[i] for i in order]), torch.stack([mass[i] for i in order])


@pytest.mark.parametrize(("protected", "active"), [(1, 18), (0, 17), (5, 20), (2, 20)])
def test_the_merge_and_its_gradients_are_those_of_the_literal_form(protected, active):
    generator = torch.Generator().manual_seed(7)
    x, metric = (torch.randn(2, 20, c, generator=generator, dtype=torch.float64).requires_grad_() for c in (5, 4))
    size = (0.1 + torch.rand(2, 20, generator=generator, dtype=torch.float64)).requires_grad_()
    size.data[:, protected + 2 : protected + 6] = 1.0  # equal sizes keep their order
    shares = soft_grouping(*split(metric, active, protected), 4) * 0.999  # the clip is not met
    given = (x, size, metric)
    pairs = [literal_merge(*row, 4, active, protected) for row in zip(x, size, shares, strict=True)]
    expected = [torch.stack(part) for part in zip(*pairs, strict=True)]
    result = soft_merge(x, size, shares, active, protected)[:2]
    weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in result]
    for got, wanted in zip(result, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    losses = [sum((w * part).sum() for w, part in zip(weights, parts, strict=True)) for parts in (result, expected)]
    gradients = [torch.autograd.grad(loss, given, retain_graph=True) for loss in losses]
    for gradient, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-9 * max(1.0, wanted.abs().max().item()), rtol=0)


def test_a_row_that_leaves_completely_still_has_a_gradient_and_a_size_of_zero():
    shares = torch.tensor([[[1.0 + 1e-7, 0.0], [0.25, 0.5]]], requires_grad=True)
    x, size = torch.randn(1, 5, 3), torch.tensor([[1.0, 2.0, 1.0, 4.0, 1.0]])
    merged, sizes, _ = soft_merge(x, size, shares, active=5, protected=1)
    assert sizes.tolist() == [[1.0, 4.0, 3.0, 1.0, 0.0]]
    assert torch.equal(merged[:, 0], x[:, 0])
    sizes[0, -1].backward()
    assert shares.grad.tolist() == [[[-2.0, -2.0], [0.0, 0.0]]]


def test_tokens_without_any_size_give_finite_results():
    merged, sizes, _ = soft_merge(torch.ones(1, 3, 2), torch.zeros(1, 3), torch.zeros(1, 1, 1), active=3, protected=1)
    assert merged.isfinite().all()
    assert not sizes.any()
