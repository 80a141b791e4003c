"""What dTPS and DynamicViT do in training, and attention under a policy: all tokens stay, masks say who takes part."""

import copy
import math

import pytest
import torch
from reducer_steps import images, tiny
from torch.testing import assert_close

from suite import attach
from suite.reducers.learned_counts import merge_softly
from suite.reducers.score_predictor import ScorePredictor, drawn
from suite.reducers.squeeze import likeness_to_hosts, squeeze_softly, unit
from suite.tokens.state import Tokens

PREDICTED = pytest.mark.parametrize("name", ["dynamicvit", "dtps"])


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# Attention under a policy


def literal_attention(queries, keys, values, policy, size=None):
    """softmax(a) over the tokens that a policy lets through, and oneself, multiplied out."""
    logits = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    eye = torch.eye(policy.shape[1], dtype=policy.dtype)
    open_to = (policy[:, None, :] + (1 - policy[:, None, :]) * eye)[:, None]
    weight = (logits - logits.amax(-1, keepdim=True).detach()).exp() * open_to
    weight = weight if size is None else weight * size[:, None, None]
    return weight / weight.sum(-1, keepdim=True) @ values


@pytest.mark.parametrize("sized", [False, True])
def test_the_bias_of_a_policy_is_masked_attention_in_value_and_gradient(sized):
    heads = [rows(2, 3, 9, 4, seed=n).requires_grad_() for n in range(3)]
    masks = torch.ones(2, 9, dtype=torch.float64)
    masks[0, 3:7], masks[1, [2, 8]] = 0, 0
    sizes = 1 + rows(2, 9, seed=5).abs()
    outputs, gradients = [], []
    for fused in (True, False):
        policy, size = masks.clone().requires_grad_(), sizes.clone().requires_grad_()
        if fused:
            tokens = Tokens.start(rows(2, 9, 12), 1).mask(policy, size=size if sized else None)
            bias = tokens.attention_bias(proportional=sized)
            assert bias.shape == (2, 1, 9, 9)
            out = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=bias)
        else:
            out = literal_attention(*heads, policy, size if sized else None)
        outputs.append(out)
        wanted = [*heads, policy, *([size] if sized else [])]
        gradients.append(torch.autograd.grad((out * rows(*out.shape, seed=9)).sum(), wanted))
    assert_close(*outputs, atol=1e-12, rtol=0)
    assert_close(*gradients, atol=1e-12, rtol=0)
    assert (gradients[0][3][masks == 0] != 0).all()  # what was pruned still learns


def test_a_pruned_token_attends_to_itself_when_nobody_else_is_left():
    tokens = Tokens.start(rows(1, 3, 4), 0).mask(torch.zeros(1, 3, dtype=torch.float64))
    q, k, v = rows(3, 1, 1, 3, 2)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=tokens.attention_bias(False))
    assert_close(out, v)


def test_softly_pruned_tokens_have_no_owner_and_are_not_restored():
    tokens = Tokens.start(rows(2, 5, 4), 1, restoring="at_end").mask(torch.ones(2, 5))
    assert tokens.soft
    assert tokens.owner is None
    for restore in (tokens.expand, tokens.restorable, tokens.give_back):
        with pytest.raises(ValueError, match=r"pruned softly \(training\)"):
            restore()


# Predictors


def forced(handle):
    """Make every predictor certain of what it thinks best, so that Gumbel noise changes nothing: as many stay as the
    rate plans, those that it scores best."""
    for predictor, count in zip(handle.reducer.score_predictor, sorted(set(handle.planned_counts), reverse=True)[1:]):
        plain = predictor.log_probabilities

        def certain(x, policy=None, plain=plain, kept=count - handle.layout.num_prefix):
            score = plain(x, policy)[..., 0]
            score = score if policy is None else score.masked_fill(policy == 0, -torch.inf)
            worst = score.sort(dim=1, descending=True).values[:, kept - 1 : kept]
            sure = torch.where(score >= worst, 0.0, -1e4).to(x.dtype)
            return torch.stack([sure, -1e4 - sure], dim=-1)

        predictor.log_probabilities = certain


@PREDICTED
@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}, {"global_pool": "avg", "class_token": False},
                                     {"reg_tokens": 2, "qk_norm": True}], ids=str)  # fmt: skip
def test_a_mask_of_the_best_is_what_evaluation_does(name, options):
    model = tiny(**options).double()
    with attach(model, name, "keep=0.6") as handle, torch.no_grad():
        hard = model(images().double())
        kept = handle.token_counts
        forced(handle)
        handle.reducer.train()
        soft = model(images().double())
        assert handle.token_counts == handle.planned_counts == [handle.layout.tokens] * 4
        assert (handle.tokens.policy.sum(1) == kept[-1]).all()
        shares, planned = handle.reducer.kept_shares, handle.reducer.planned_shares
        assert_close(torch.stack(shares), torch.tensor(planned, dtype=torch.float64)[:, None].expand(-1, 2))
    assert_close(soft, hard, atol=1e-9, rtol=1e-9)


@PREDICTED
@pytest.mark.parametrize("frozen", [False, True])
def test_the_task_and_the_shares_teach_every_predictor(name, frozen):
    torch.manual_seed(0)
    model = tiny().requires_grad_(not frozen)
    with attach(model, name, "keep=0.7") as handle:
        handle.reducer.train()
        out = model(images())
        assert handle.reducer.planned_shares == [44 / 64, 31 / 64, 21 / 64]
        taught = [
            torch.autograd.grad(loss, list(handle.reducer.parameters()), retain_graph=True, allow_unused=True)
            for loss in (out.square().sum(), torch.stack(handle.reducer.kept_shares).sum())
        ]
        out.sum().backward()
    for gradients in taught:
        for (key, _), gradient in zip(handle.reducer.named_parameters(), gradients, strict=True):
            assert gradient.isfinite().all(), key
            assert gradient.any(), key
    assert all((parameter.grad is None) == frozen for parameter in model.parameters())


@PREDICTED
def test_masks_are_zeros_and_ones_that_only_fall(name):
    torch.manual_seed(0)
    model, seen = tiny(), []
    with attach(model, name, "keep=0.7") as handle:
        handle.reducer.register_forward_hook(lambda _, given, result: seen.append(result.policy))
        handle.reducer.train()
        model(images())
        model(images())
        assert len(handle.reducer.kept_shares) == len(handle.reducer.planned_shares) == 3
    assert len(seen) == 6
    first, second, third = seen[3:]
    for policy, share in zip(seen[3:], handle.reducer.kept_shares, strict=True):
        assert set(policy.unique().tolist()) == {0.0, 1.0}
        assert (policy[:, 0] == 1).all()
        assert_close(share, policy[:, 1:].mean(1))
    assert ((first >= second) & (second >= third)).all()
    assert not torch.equal(seen[0], first)  # every forward draws anew


@PREDICTED
def test_a_stage_that_takes_nothing_out_is_no_share(name):
    model = tiny()
    with attach(model, name, "keep=[1,0.5,0.3]") as handle:
        handle.reducer.train()
        model(images())
        model(images())
        assert handle.reducer.planned_shares == [32 / 64, 19 / 64]
        assert len(handle.reducer.kept_shares) == 2


@PREDICTED
def test_what_a_forward_left_behind_is_neither_saved_nor_copied(name):
    model = tiny()
    with attach(model, name, "keep=0.7") as handle:
        keys = list(handle.reducer.state_dict())
        handle.reducer.train()
        model(images())
        assert handle.reducer.kept_shares[0].requires_grad
        assert list(handle.reducer.state_dict()) == keys
        assert copy.deepcopy(handle.reducer).kept_shares == []
        assert handle.reducer.kept_shares


def test_draws_follow_the_probabilities_and_the_gradient_is_the_gumbel_softmax():
    torch.manual_seed(0)
    likely = torch.tensor([0.9, 0.3, 1.0, 0.0])
    logits = torch.stack([likely, 1 - likely], -1).log().clamp(min=-1e4).expand(4000, 4, 2).clone().requires_grad_()
    draws = drawn(logits)
    assert_close(draws.mean(0), likely, atol=0.03, rtol=0)
    draws[:, 0].sum().backward()
    given = logits.grad[:, 0]
    assert (given[:, 0] > 0).all()
    assert_close(given[:, 0], -given[:, 1])
    torch.manual_seed(0)
    soft = torch.nn.functional.gumbel_softmax(logits.detach(), dim=-1)[:, 0, 0]
    assert_close(given[:, 0], soft * (1 - soft))


def test_half_of_what_a_predictor_sees_is_the_mean_of_those_left():
    predictor, x = ScorePredictor(8).double(), rows(2, 6, 8)
    policy = torch.tensor([[1.0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    given = []
    predictor.out_conv.register_forward_hook(lambda _, args, out: given.append(args[0][..., 4:]))
    full, both = predictor(x), predictor.log_probabilities(x, torch.ones_like(policy))
    assert_close(full, both[..., 0])
    assert_close(both.exp().sum(-1), torch.ones_like(full))
    predictor.log_probabilities(x, policy)
    inner = predictor.in_conv(x)[..., 4:]
    assert_close(given[-1][0], inner[0, [0, 1, 3]].mean(0).expand(6, 4))
    assert (given[-1][1] == 0).all()  # of a sample that lost all, no NaN


def test_soft_squeezing_is_the_literal_sum_and_its_gradient_that_of_the_guests_weights():
    x, staying = rows(1, 7, 5), torch.tensor([[1.0, 0, 1, 1, 0, 0, 1]], dtype=torch.float64)
    leaving = torch.tensor([[0.0, 1, 0, 0, 1, 0, 0]], dtype=torch.float64).requires_grad_()  # 5 had gone before
    out = squeeze_softly(x, staying, leaving)
    cosine = (unit(x) @ unit(x).transpose(1, 2))[0]

    def literal(weights):
        result = []
        for host in range(7):
            top, bottom = math.e * x[0, host], torch.tensor(math.e, dtype=torch.float64)
            for guest in range(7):
                others = [j for j in range(7) if staying[0, j] and j != guest]
                if host == max(others, key=lambda j, guest=guest: float(cosine[guest, j])):
                    share = weights[0, guest] * cosine[guest, host].exp()
                    top, bottom = top + share * x[0, guest], bottom + share
            result.append(top / bottom)
        return torch.stack(result)[None]

    same = leaving.detach().clone().requires_grad_()
    assert_close(out, literal(same))
    picked = rows(1, 7, 5, seed=3)
    (out * picked).sum().backward()
    (literal(same) * picked).sum().backward()
    assert_close(leaving.grad, same.grad)
    assert leaving.grad[0, 0] != 0  # also of one that stays: what its host would gain by it


def test_nobody_is_the_host_of_a_sample_that_keeps_nothing():
    x = rows(1, 4, 3).requires_grad_()
    out = squeeze_softly(x, torch.zeros(1, 4), torch.ones(1, 4))
    assert_close(out, x)
    out.sum().backward()
    assert x.grad.isfinite().all()
    ones = torch.ones(1, 4, dtype=torch.float64)
    merged, size = merge_softly(x, ones, 0 * ones, ones)
    assert_close(merged, x)
    assert (size == 1).all()
    assert (likeness_to_hosts(unit(x), torch.zeros(1, 4)) == -100).all()


@pytest.mark.parametrize(("name", "rate"), [("dynamicvit", "keep=0.7"), ("dtps", "keep=0.7"), ("diffrate", "r=1")])
@pytest.mark.parametrize("explicit", [False, True])
def test_training_in_bfloat16_teaches_much_the_same(name, rate, explicit):
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = tiny().requires_grad_(False)
        for block in model.blocks:
            block.attn.fused_attn = not explicit
        with attach(model, name, rate) as handle:
            handle.reducer.train()
            torch.manual_seed(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                out = model(images())
            out.float().square().sum().backward()
            assert handle.tokens.policy.dtype == torch.float32
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in handle.reducer.parameters()]))
    assert gradients[1].isfinite().all()
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9
