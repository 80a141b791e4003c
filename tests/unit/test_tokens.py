"""The token algebra, on examples small enough to be worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.tokens.grouping import Matching, flat_index, full_precision, rank, take
from suite.tokens.matching import bipartite_soft_matching
from suite.tokens.ranking import best_first, ranked_rows
from suite.tokens.state import Tokens
from tests.tolerances import BLOCK32


def tokens_of(*rows, num_prefix=1, dtype=torch.float32):
    """One sample of one-dimensional tokens."""
    return Tokens.start(torch.tensor(rows, dtype=dtype)[None, :, None], num_prefix)


def index(*positions):
    return torch.tensor([positions])


def features(tokens):
    return tokens.x[0, :, 0].tolist()


def test_a_fresh_sequence_owns_itself_and_has_no_sizes():
    tokens = tokens_of(0.0, 1.0, 2.0)
    assert (tokens.count, tokens.num_patches, tokens.origin) == (3, 2, 3)
    assert tokens.size is None
    assert tokens.log_size is None
    assert tokens.sizes.tolist() == [[1, 1, 1]]
    assert tokens.owner.tolist() == [[0, 1, 2]]
    assert torch.equal(tokens.expand(), tokens.x)


def test_take_copies_whole_rows_of_each_sample():
    x = torch.arange(12.0).view(2, 3, 2)
    chosen = torch.tensor([[2, 0], [1, 1]])
    assert take(x, chosen).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
    assert take(x[..., 0], chosen).tolist() == [[4, 0], [8, 8]]
    assert flat_index(chosen, 3).tolist() == [2, 0, 4, 4]


def test_ranking_leaves_out_the_prefix_and_keeps_ties_in_order():
    assert rank(torch.tensor([[9.0, 1.0, 3.0, 1.0, 3.0]]), 1).tolist() == [[2, 4, 1, 3]]


def test_half_precision_is_summed_in_single_and_double_stays_double():
    assert full_precision(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert full_precision(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
    assert full_precision(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


def test_keeping_drops_the_others_and_puts_the_prefix_first():
    tokens = tokens_of(0.0, 1.0, 2.0, 3.0, 4.0).keep(index(4, 2))
    assert features(tokens) == [0, 4, 2]
    assert tokens.owner.tolist() == [[0, -1, 2, -1, 1]]
    assert tokens.size is None


def test_dropped_tokens_cannot_be_restored():
    with pytest.raises(ValueError, match="dropped"):
        tokens_of(0.0, 1.0, 2.0).keep(index(1)).expand()


def test_a_fused_token_comes_last_and_owns_all_that_was_dropped():
    tokens = tokens_of(0.0, 1.0, 2.0, 3.0, 4.0).keep(index(4, 2), fused=torch.full((1, 1, 1), 7.0))
    assert features(tokens) == [0, 4, 2, 7]
    assert tokens.owner.tolist() == [[0, 3, 2, 3, 1]]
    assert tokens.size.tolist() == [[1, 1, 1, 2]]
    assert tokens.expand()[0, :, 0].tolist() == [0, 7, 2, 7, 4]


def test_a_fused_token_that_is_fused_again_counts_all_it_stands_for():
    tokens = tokens_of(*range(6)).keep(index(1, 2, 3), fused=torch.full((1, 1, 1), 7.0))
    again = tokens.keep(index(2), fused=torch.full((1, 1, 1), 8.0))
    assert again.size.tolist() == [[1, 1, 4]]
    assert again.owner.tolist() == [[0, 2, 1, 2, 2, 2]]


def test_what_was_dropped_stays_dropped_when_others_are_fused_later():
    tokens = tokens_of(*range(5)).keep(index(1, 2, 3)).keep(index(1), fused=torch.zeros(1, 1, 1))
    assert tokens.owner.tolist() == [[0, 1, 2, 2, -1]]
    assert tokens.size.tolist() == [[1, 1, 2]]


def test_dropping_merged_tokens_keeps_the_sizes_of_the_others():
    merged = tokens_of(0.0, 1.0, 3.0, 9.0).merge(Matching(index(0, 2, 3), index(1), index(1)))
    kept = merged.keep(index(1))
    assert features(kept) == [0, 2]
    assert kept.size.tolist() == [[1, 2]]
    assert kept.owner.tolist() == [[0, 1, 1, -1]]


def test_merging_averages_by_size_and_composes_owners():
    first = tokens_of(0.0, 1.0, 3.0, 9.0).merge(Matching(index(0, 2, 3), index(1), index(1)))
    assert features(first) == [0, 2, 9]
    assert first.size.tolist() == [[1, 2, 1]]
    assert first.owner.tolist() == [[0, 1, 1, 2]]
    second = first.merge(Matching(index(0, 2), index(1), index(1)))
    assert features(second) == pytest.approx([0, (2 * 2 + 9) / 3])
    assert second.size.tolist() == [[1, 3]]
    assert second.owner.tolist() == [[0, 1, 1, 1]]
    assert second.log_size.flatten().tolist() == pytest.approx([0, 1.0986123])
    assert features(first) == [0, 2, 9], "an operation never changes its input"


def test_many_tokens_may_merge_into_one():
    tokens = tokens_of(0.0, 1.0, 2.0, 6.0).merge(Matching(index(0, 3), index(1, 2), index(1, 1)))
    assert features(tokens) == pytest.approx([0, 3])
    assert tokens.size.tolist() == [[1, 3]]


def test_merging_nothing_returns_the_same_object():
    tokens = tokens_of(0.0, 1.0)
    assert tokens.merge(Matching(index(0, 1), index()[:, :0].long(), index()[:, :0].long())) is tokens


def test_a_token_alone_in_its_group_is_copied_bit_for_bit():
    x = torch.randn(2, 6, 8)
    sizes = torch.tensor([3.0, 7.0, 11.0, 1.0, 13.0, 1.0]).expand(2, -1)
    tokens = Tokens(x, 1, 36, sizes)
    merged = tokens.merge(Matching(*(torch.tensor([row] * 2) for row in ([0, 1, 2, 4, 5], [3], [4]))))
    assert torch.equal(merged.x[:, :4], x[:, [0, 1, 2, 4]])
    assert torch.equal(merged.size[:, :4], sizes[:, [0, 1, 2, 4]])


def test_half_precision_tokens_are_averaged_in_single_precision():
    rows = [1.0, *[1 + 2**-7] * 100]  # bfloat16 resolves 2^-7 at 1; a running sum in it would lose nearly all of them
    tokens = tokens_of(*rows, num_prefix=0, dtype=torch.bfloat16)
    merged = tokens.merge(Matching(index(0), index(*range(1, 101)), index(*[0] * 100)))
    assert merged.x.dtype == torch.bfloat16
    assert merged.size.dtype == torch.float32
    assert merged.size.item() == 101
    assert merged.x.item() == 1 + 2**-7


def test_double_precision_tokens_are_averaged_in_double_precision():
    merged = tokens_of(0.0, 1.0, 1.0, 2.0, num_prefix=0, dtype=torch.float64).merge(
        Matching(index(0, 3), index(1, 2), index(0, 0))
    )
    assert merged.x[0, 0, 0].item() == pytest.approx(2 / 3, abs=1e-15)


def test_sizes_beyond_what_half_precision_can_count_stay_exact():
    tokens = Tokens(torch.ones(1, 2, 1, dtype=torch.bfloat16), 0, 2049, torch.tensor([[2048.0, 1.0]]))
    merged = tokens.merge(Matching(index(0), index(1), index(0)))
    assert merged.size.item() == 2049
    assert tokens.log_size.dtype == torch.bfloat16


def test_features_given_to_expand_are_restored_instead_of_the_tokens_own():
    merged = tokens_of(0.0, 1.0, 3.0).merge(Matching(index(0, 2), index(1), index(1)))
    assert merged.expand(torch.tensor([[[5.0], [6.0]]]))[0, :, 0].tolist() == [5, 6, 6]


def test_gradients_flow_through_averages_by_share():
    x = torch.tensor([[[0.0], [1.0], [3.0]]], requires_grad=True)
    merged = Tokens.start(x, 1).merge(Matching(index(0, 2), index(1), index(1)))
    merged.x[0, 1, 0].backward()
    assert x.grad[0, :, 0].tolist() == [0, 0.5, 0.5]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(0, 5), st.integers(2, 24), st.lists(st.integers(0, 9), min_size=1, max_size=4)
)
def test_any_chain_of_merges_conserves_the_tokens_and_stays_in_their_hull(seed, prefix, patches, chain):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, prefix + patches, 5, generator=generator)
    tokens = Tokens.start(x, prefix)
    for r in chain:
        tokens = tokens.merge(bipartite_soft_matching(tokens.x, r, protected=prefix))
    assert torch.equal(tokens.x[:, :prefix], x[:, :prefix])
    assert (tokens.sizes.sum(1) == prefix + patches).all()
    for sample, owner in enumerate(tokens.owner):
        assert torch.equal(torch.bincount(owner, minlength=tokens.count).float(), tokens.sizes[sample])
        for place in range(tokens.count):
            group = x[sample, owner == place]
            torch.testing.assert_close(tokens.x[sample, place], group.mean(0), **BLOCK32)
            assert (tokens.x[sample, place] >= group.amin(0) - 1e-5).all()
            assert (tokens.x[sample, place] <= group.amax(0) + 1e-5).all()


def test_a_matching_said_in_rows_of_the_batch_has_the_positions_of_each_sample():
    kept, source, into = torch.tensor([[0, 3], [4, 6]]), torch.tensor([[1], [5]]), torch.tensor([[0], [0]])
    matching = Matching.of_rows(kept, source, into, 4, first_target=1)
    assert (matching.kept.tolist(), matching.source.tolist()) == ([[0, 3], [0, 2]], [[1], [1]])
    assert matching.target.tolist() == [[1], [1]]
    said_in_positions = Matching(matching.kept, matching.source, matching.target)
    x = torch.randn(2, 4, 3)
    assert torch.equal(Tokens.start(x, 1).merge(matching).x, Tokens.start(x, 1).merge(said_in_positions).x)
    with pytest.raises(ValueError, match="of 4 tokens, not 5"):
        Tokens.start(torch.randn(2, 5, 3), 1).merge(matching)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equal_averages_in_half_precision_are_those_in_single(dtype):
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(3)).to(dtype)
    matching = Matching(*(torch.tensor([row] * 2) for row in ([0, 1, 2], [3, 4, 5], [1, 1, 2])))
    half, single = (
        Tokens.start(x, 1).merge(matching, plain=True),
        Tokens.start(x.float(), 1).merge(matching, plain=True),
    )
    torch.testing.assert_close(half.x.float(), single.x, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    assert torch.equal(half.x[:, 0], x[:, 0])
    assert torch.equal(half.size, single.size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_best_come_first_and_ties_keep_their_order_in_every_precision(dtype):
    score = torch.rand(3, 500, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    score[:, 100:150] = score[:, 50:100]
    expected = score.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(best_first(score), expected)
    assert torch.equal(best_first(-score), (-score).argsort(dim=1, descending=True, stable=True))
    if dtype != torch.bfloat16:
        rows = ranked_rows(torch.cat([score.new_ones(3, 1), score], dim=1), 1)
        assert torch.equal(rows, expected + 1 + 501 * torch.arange(3)[:, None])


def test_tiny_attention_is_ranked_exactly():
    score = torch.tensor([[1.0, 1e-30, 0.0, 1e-12, 1e-30, 2e-38, 1e-12 * (1 + 2**-23)]])
    assert ranked_rows(score, 1).tolist() == [[6, 3, 1, 4, 5, 2]]
