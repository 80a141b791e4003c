"""MCTF: what fusing inside attention promises, block by block, and examples worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from reducer_steps import changes, images, planned, tiny
from timm.layers import set_fused_attn
from timm.models.deit import VisionTransformerDistilled
from torch.testing import assert_close

from suite import RequestError, attach
from suite.reducers import make_reducer
from suite.reducers.mctf import match
from suite.tokens.matching import bipartite_soft_matching
from suite.tokens.state import Tokens

PREFIXES = {"class token": {}, "registers": {"reg_tokens": 4}, "no class token": {"class_token": False}}
POOLED = {**PREFIXES, "no class token": {"class_token": False, "global_pool": "avg"}}


def fusions(model, rate="r=9", x=None, **options):
    """[(tokens before, tokens after, weight of every token before or None)] of a forward, and the handle."""
    seen, handle = changes(model, "mctf", rate, x, **options)
    out = []
    for before, change in seen:
        inside = hasattr(change, "tokens")
        out.append((before, change.tokens if inside else change, change.weight if inside else None))
    return out, handle


@torch.no_grad()
def watch(model, rate, **options):
    """[(tokens, signals, what the hook returned)] and {block: stream between attention and MLP} of a forward."""
    calls, middles, handle = [], {}, attach(model, "mctf", rate, **options)
    hooks = [handle.reducer.register_forward_hook(lambda _, given, result: calls.append((*given[1:3], result)))]
    for index, block in enumerate(model.blocks):

        def note(_, given, index=index):
            middles[index] = given[0]

        hooks.append(block.norm2.register_forward_pre_hook(note))
    with handle:
        model(images())
    for hook in hooks:
        hook.remove()
    return calls, middles


def members(owner, count):
    """(B, N) owners -> (B, N', N) ones where a token went into a group."""
    return (owner[:, None] == torch.arange(count)[:, None]).float()


@torch.no_grad()
@pytest.mark.parametrize("pooling", range(4))
@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"init_values": 0.5}, {"qk_norm": True}], ids=str)
def test_the_fast_form_is_the_map_with_columns_added_up_and_rows_averaged(options, pooling):
    model = tiny(**options)
    calls, middles = watch(model, "r=9", pooling=pooling)
    assert len(calls) == 3
    for _, signals, change in calls:
        block, fused = model.blocks[signals.block], change.tokens
        group = members(fused.steps[-1].index_map(), fused.count)
        rows = group * change.weight[:, None]
        rows = rows / rows.sum(2, keepdim=True)
        attention = rows[:, None] @ signals.attention_map @ group.transpose(1, 2)[:, None]
        assert_close(attention.sum(-1), torch.ones(attention.shape[:3]), atol=1e-6, rtol=0)
        values = block.attn.qkv(block.norm1(fused.x))[..., 64:].unflatten(2, (2, 16)).transpose(1, 2)
        literal = fused.x + block.ls1(block.attn.proj((attention @ values).transpose(1, 2).flatten(2)))
        assert_close(middles[signals.block], literal, atol=2e-6 * max(1, literal.abs().max()), rtol=0)


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("pooling", range(4))
@pytest.mark.parametrize("kind", POOLED)
def test_fused_tokens_lie_within_their_groups_and_prefix_tokens_stay_alone(kind, pooling, ahead):
    steps, handle = fusions(tiny(**POOLED[kind]), pooling=pooling, one_step_ahead=ahead)
    prefix = handle.layout.num_prefix
    assert handle.token_counts == handle.planned_counts
    for before, after, _ in steps:
        owner = after.steps[-1].index_map()
        assert (owner[:, :prefix] == torch.arange(prefix)).all()
        assert (owner[:, prefix:] >= prefix).all()
        assert torch.equal(after.x[:, :prefix], before.x[:, :prefix])
        assert (after.sizes.sum(1) == before.origin).all()
        assert (after.sizes[:, :prefix] == 1).all()
        for sample in range(2):
            for place in range(after.count):
                rows, row = before.x[sample, owner[sample] == place], after.x[sample, place]
                if len(rows) == 1:
                    assert torch.equal(row, rows[0])
                assert (row >= rows.amin(0) - 1e-5).all()
                assert (row <= rows.amax(0) + 1e-5).all()


def test_poolings_are_what_they_are_called():
    for pooling in range(4):
        steps, _ = fusions(tiny().double(), x=images().double(), pooling=pooling)
        for before, after, weight in steps:
            owner = after.steps[-1].index_map()[0]
            place = int(owner.bincount().argmax())
            rows, sizes = before.x[0, owner == place], before.sizes[0, owner == place]
            assert len(rows) > 1
            wanted = {
                0: (rows * sizes[:, None]).sum(0) / sizes.sum(),
                1: (rows * weight[0, owner == place][:, None]).sum(0) / weight[0, owner == place].sum(),
                2: rows.amax(0),
                3: rows.mean(0),
            }[pooling]
            assert_close(after.x[0, place], wanted)


def test_a_token_weighs_by_its_size_and_the_attention_that_it_receives():
    calls, _ = watch(tiny(), "r=9")
    for before, signals, change in calls:
        weight = signals.attention_map.mean(dim=(1, 2)) * before.sizes
        assert_close(change.weight / change.weight.sum(1, keepdim=True), weight / weight.sum(1, keepdim=True))


@pytest.mark.parametrize("kind", ["class token", "registers", "distilled"])
def test_one_way_by_similarity_and_size_alone_is_bipartite_soft_matching_of_the_features(kind):
    if kind == "distilled":
        torch.manual_seed(0)
        shape = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2}
        model = VisionTransformerDistilled(**shape).eval().double()
    else:
        model = tiny(**PREFIXES[kind]).double()
    one_way = {"bidirectional": False, "tau_info": 0, "tau_size": 0, "pooling": 0}
    steps, handle = fusions(model, x=images().double(), **one_way)
    for before, after, _ in steps:
        matching = bipartite_soft_matching(before.x, before.count - after.count, handle.layout.num_prefix)
        merged = before.merge(matching)
        assert torch.equal(after.steps[-1].index_map(), merged.steps[-1].index_map())
        assert torch.equal(after.x, merged.x)
        assert torch.equal(after.size, merged.size)


@pytest.mark.parametrize("r", [1, 2, 7, 8, 13])
def test_half_of_r_goes_to_odd_places_and_the_larger_half_back(r):
    scores = torch.rand(2, 17, 16, generator=torch.Generator().manual_seed(2))
    source = match(scores, r, 1, bidirectional=True).source
    assert (source[:, : r // 2] % 2 == 0).all()
    assert (source[:, r // 2 :] % 2 == 1).all()
    assert source.shape[1] == r
    assert (match(scores, r, 1, bidirectional=False).source % 2 == 0).all()


def test_what_an_odd_place_has_taken_in_moves_along_with_it_and_the_others_stand_by_score():
    scores = torch.tensor([[[9.0, 9.0, 9.0], [0.9, 0.2, 0.3], [0.8, 0.1, 0.5]]])  # places 0, 2, 4 by 1, 3, 5
    both_ways = match(scores, 2, 1, bidirectional=True)
    assert both_ways.kept.tolist() == [[0, 4, 5, 3]]  # 2 went to 1, then 1 to 4; 5 is closer to 4 than 3 is
    assert both_ways.source.tolist() == [[2, 1]]
    assert both_ways.target.tolist() == [[1, 1]]
    one_way = match(scores, 2, 1, bidirectional=False)
    assert one_way.kept.tolist() == [[0, 1, 3, 5]]
    assert one_way.target.tolist() == [[1, 1]]


def test_all_even_places_can_go_one_way_where_none_is_protected():
    matching = match(torch.tensor([[[0.3, 0.1], [0.2, 0.4]]]), 2, 0, bidirectional=False)
    assert matching.kept.tolist() == [[1, 3]]
    assert matching.source.tolist() == [[2, 0]]
    assert matching.target.tolist() == [[1, 0]]


def test_unattended_and_small_tokens_are_fused_first_among_equally_similar_ones():
    x = torch.ones(1, 7, 4)
    size = torch.tensor([[1.0, 1, 3, 1, 1, 3, 3]])
    received = torch.tensor([[0.4, 0.1, 0.05, 0.2, 0.15, 0.05, 0.05]])
    by_size = make_reducer("mctf", tau_info=0).scores(Tokens(x, 1, 7, size), received)
    assert by_size[0, 2, 0] == by_size[0, 2, 1] == by_size.max()  # places 4 with 1 and 3, each of size 1
    assert_close(by_size[0, 1, 2], torch.tensor((1 / 9) ** (1 / 40)))  # places 2 and 5, each of size 3
    by_attention = make_reducer("mctf", tau_size=0).scores(Tokens(x, 1, 7, size), received)
    assert by_attention[0, 1, 2] == by_attention[0, 3, 2] == by_attention.max()  # places 2 and 6 with 5
    assert_close(by_attention[0, 2, 1], torch.tensor((1 / 12) ** (1 / 20)))  # places 4 and 3


@torch.no_grad()
def test_tokens_that_nobody_attends_to_are_fused_by_their_similarity():
    model = tiny()
    for block in model.blocks:
        block.attn.qkv.weight[:64] *= 1000  # attention falls on single tokens; float32 leaves exactly 0 to most
    calls, _ = watch(model, "r=4", bidirectional=False, tau_info=1, tau_size=0)
    for before, signals, change in calls:
        alone = signals.received < 1e-30
        allowed = alone & (torch.arange(before.count) % 2 == 1)
        metric = F.normalize(before.x, dim=2)
        nearest = (metric @ metric.transpose(1, 2)).masked_fill(~allowed[:, None], -2).argmax(2)
        owner, source = change.tokens.steps[-1].index_map(), change.matching.source
        assert alone.gather(1, source).all()
        assert torch.equal(owner.gather(1, source), owner.gather(1, nearest.gather(1, source)))
        assert change.tokens.x.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_explicit_and_fused_attention_give_the_same(ahead):
    found = {}
    for fused in (True, False):
        set_fused_attn(fused)
        try:
            model = tiny(depth=6).double()
        finally:
            set_fused_attn(True)
        assert model.blocks[0].attn.fused_attn == fused
        with attach(model, "mctf", "r=9@1,3", one_step_ahead=ahead) as handle:
            found[fused] = model(images().double()), handle.tokens.owner
    assert_close(found[True][0], found[False][0], atol=1e-12, rtol=0)
    assert torch.equal(found[True][1], found[False][1])


@torch.no_grad()
@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("precision", ["autocast", "bfloat16"])
def test_half_precision_stays_finite_with_sizes_in_single_precision(precision, ahead):
    model, x = tiny(), images()
    if precision == "bfloat16":
        model, x = model.bfloat16(), x.bfloat16()
    with (
        attach(model, "mctf", "r=9", one_step_ahead=ahead) as handle,
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"),
    ):
        logits = model(x)
    assert logits.isfinite().all()
    assert handle.token_counts == handle.planned_counts
    assert handle.tokens.size.dtype == torch.float32
    assert (handle.tokens.size.sum(1) == 65).all()


def test_weights_and_sizes_carry_no_gradient_but_features_do():
    model, x = tiny(), images().requires_grad_()
    handle, seen = attach(model, "mctf", "r=9"), []
    hook = handle.reducer.register_forward_hook(lambda _, given, result: seen.append(result))
    with handle:
        model(x).square().sum().backward()
    hook.remove()
    for change in seen:
        assert change.tokens.x.requires_grad
        assert not change.weight.requires_grad
        assert not change.tokens.size.requires_grad
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


def test_ten_tokens_stay_of_a_number_and_any_number_of_a_fraction():
    assert planned("mctf", "r=20")[-4:] == [37, 19, 10, 10]
    assert planned("mctf", "r=7", tokens=17, depth=4) == [17, 10, 10, 10]
    assert planned("mctf", "r=0.45") == [197, 109, 61, 34, 20, 12, 8, 5, 4, 3, 3, 3]
    assert planned("mctf", "r=0.9@1", depth=2) == [197, 99]  # half of the patches at most


def test_the_first_block_is_idle_unless_it_is_named():
    assert planned("mctf", "r=16")[:2] == [197, 181]
    assert planned("mctf", "r=0.35")[:2] == [197, 129]
    assert planned("mctf", "r=16@0,2")[:3] == [181, 181, 165]


@torch.no_grad()
def test_a_block_that_takes_nothing_out_is_asked_for_no_map():
    model = tiny(depth=6)
    with attach(model, "mctf", "r=20@1,2,3,4,5") as handle:
        calls = []
        handle.reducer.register_forward_hook(lambda _, given, result: calls.append(given[2].block))
        model(images())
    assert handle.token_counts == [65, 45, 25, 13, 10, 10]
    assert calls == [1, 2, 3, 4]


def test_the_row_says_which_formulation_ran():
    assert make_reducer("mctf").formulation
    assert make_reducer("mctf", one_step_ahead=2).formulation is None


@pytest.mark.parametrize(
    "options", [{"pooling": 4}, {"pooling": -1}, {"one_step_ahead": 3}, {"tau_info": -1.0}, {"tau_sim": -math.inf}]
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(RequestError):
        make_reducer("mctf", **options)
