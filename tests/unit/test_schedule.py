"""Rates: what can be written, what it means block by block, and one clear line for everything else."""

import pytest

from suite import RequestError
from suite.rates.rate import parse_rate
from suite.rates.schedule import r_per_block, resolve
from suite.reducers import list_reducers, make_reducer
from suite.reducers.base import Reducer


def counts(reducer, rate, *, depth=12, tokens=197, num_prefix=1, **options):
    made = make_reducer(reducer, **options)
    return list(resolve(parse_rate(rate), made, depth=depth, tokens=tokens, num_prefix=num_prefix).counts)


def stages(first, *later):
    """Counts of 12 blocks: `first` in blocks 0 to 2, then three blocks each."""
    return [count for count in (first, *later) for _ in range(3)]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("r=8", list(range(189, 100, -8))),
        ("r=11", list(range(186, 64, -11))),
        ("r=13", list(range(184, 40, -13))),
        ("r=16", [*range(181, 20, -16), 11]),  # 21 tokens: 10 of 20 patches can be merged
        ("r=8:-1", [181, 167, 154, 143, 133, 125, 118, 113, 109, 107, 106, 106]),
    ],
)
def test_merging_leaves_the_published_numbers_of_tokens(rate, expected):
    assert counts("tome", rate) == expected


@pytest.mark.parametrize(
    ("rate", "fuse", "expected"),
    [
        ("keep=0.7", True, stages(197, 140, 100, 72)),
        ("keep=0.7", False, stages(197, 139, 98, 69)),
        ("keep=0.5", True, stages(197, 100, 52, 28)),
        ("keep=0.5", False, stages(197, 99, 50, 26)),
        ("keep=0.9", True, stages(197, 179, 163, 148)),
        ("keep=0.7@3,6,9", True, stages(197, 140, 100, 72)),
        ("keep=1", True, [197] * 12),
    ],
)
def test_token_reorganisation_leaves_the_published_numbers_of_tokens(rate, fuse, expected):
    assert counts("evit", rate, fuse=fuse) == expected


@pytest.mark.parametrize("reducer", ["topk", "random", "uniform"])
@pytest.mark.parametrize(("rate", "expected"), [("keep=0.7", (138, 97, 68)), ("keep=0.5", (99, 50, 25))])
def test_pruners_keep_a_share_of_the_original_patches_rounded_down(reducer, rate, expected):
    assert counts(reducer, rate) == stages(197, *expected)


@pytest.mark.parametrize(
    ("rate", "depth", "expected"),
    [
        ("r=8:-1", 12, [16, 14, 13, 11, 10, 8, 7, 5, 4, 2, 1, 0]),
        ("r=13:-1", 12, [26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0]),
        ("r=16:-1", 12, [32, 29, 26, 23, 20, 17, 14, 11, 8, 5, 2, 0]),
        ("r=8:1", 12, [0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16]),
        ("r=8:0", 12, [8] * 12),
        ("r=10:0.5", 5, [5, 7, 10, 12, 15]),
        ("r=6:-0.3", 5, [7, 6, 6, 5, 5]),
        ("r=8:-1", 1, [16]),
        ("r=8", 3, [8, 8, 8]),
        ("r=[16,16,8]", 5, [16, 16, 8, 0, 0]),
        ("r=[7,]", 2, [7, 0]),
    ],
)
def test_r_is_spread_over_the_blocks_as_the_authors_do(rate, depth, expected):
    assert r_per_block(parse_rate(rate), depth) == expected


def test_the_decreasing_schedule_of_24_blocks_removes_181():
    assert sum(r_per_block(parse_rate("r=8:-1"), 24)) == 181


def test_a_distilled_model_protects_two_tokens():
    assert counts("tome", "r=16", tokens=198, num_prefix=2)[-2:] == [22, 12]


def test_a_pruner_leaves_at_least_one_patch_and_a_fusing_one_two():
    assert counts("topk", "r=20", depth=4, tokens=50)[-2:] == [2, 2]
    assert counts("evit", "r=20", depth=4, tokens=50) == [30, 10, 3, 3]
    assert counts("evit", "r=1", depth=3, tokens=10) == [9, 8, 7]


@pytest.mark.parametrize(("depth", "blocks"), [(12, [3, 6, 9]), (24, [6, 12, 18]), (4, [1, 2, 3]), (6, [1, 3, 4])])
def test_stages_stand_at_the_quarters_of_the_depth(depth, blocks):
    amounts = resolve(parse_rate("keep=0.7"), make_reducer("topk"), depth=depth, tokens=197, num_prefix=1).amounts
    assert [block for block, amount in enumerate(amounts) if amount] == blocks


def test_blocks_after_the_at_sign_are_the_only_ones_that_act_in_any_order():
    assert counts("tome", "r=10@3,1", depth=5, tokens=65) == [65, 55, 55, 45, 45]
    assert counts("topk", "keep=0.5@2,0", depth=4, tokens=65) == [33, 33, 17, 17]


def test_no_rate_reduces_nothing():
    schedule = resolve(None, make_reducer("tome"), depth=3, tokens=50, num_prefix=1)
    assert schedule.amounts == (0, 0, 0)
    assert schedule.counts == (50, 50, 50)


@pytest.mark.parametrize("reducer", ["tome", "evit", "topk", "random", "uniform"])
@pytest.mark.parametrize("rate", ["r=0", "r=[0,0]", "r=0:-1", "r=0@1"])
def test_zero_takes_nothing_out(reducer, rate):
    assert counts(reducer, rate, depth=4, tokens=50) == [50] * 4


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (" r = 13 ", "r=13"),
        ("r=[16, 16, 8]", "r=[16,16,8]"),
        ("keep=.7 @ 3, 6", "keep=.7@3,6"),
        ("r=16 : -1", "r=16:-1"),
    ],
)
def test_spaces_around_signs_do_not_matter(text, same):
    assert parse_rate(text) == parse_rate(same)


@pytest.mark.parametrize(("text", "value"), [("flops=-35%", -0.35), ("flops=-0.35", -0.35), ("flops=0%", 0.0)])
def test_a_target_is_a_change_of_total_cost(text, value):
    assert parse_rate(text).change == value


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("r=-1", "asks for -1 tokens"),
        ("r=[4,-2]", "asks for -2 tokens"),
        ("r=8:2", r"inflection must lie in \[-1, 1\], not 2"),
        ("r=16:2", r"inflection must lie in \[-1, 1\], not 2"),
        ("r=16:nan", "inflection"),
        ("keep=0", r"must lie in \(0, 1\], not 0"),
        ("keep=1.2", r"must lie in \(0, 1\], not 1.2"),
        ("keep=-0.5", r"must lie in \(0, 1\], not -0.5"),
        ("flops=+10%", "between 0 and -100 %"),
        ("flops=35%", "between 0 and -100 %"),
        ("flops=-35", "between 0 and -100 %"),
        ("flops=-100%", "between 0 and -100 %"),
        ("flops=nan", "between 0 and -100 %"),
        ("r=[4,5]@1,2", "'@blocks' goes with one number"),
        ("r=8:-1@1,2", "'@blocks' goes with one number"),
        *((text, "cannot be read; write for example r=13") for text in (
            "", "r", "r=", "r=abc", "r=1.5", "r=[]", "r=[1,,2]", "r=[4", "r=1 3", "r=[16 16 8]", "r=13@", "r=13@a",
            "r=4@1,", "keep=", "keep=70%", "keep=nan", "keep=0.7@", "flops", "flops=", "flops=-35%@3", "flops=-35%@",
            "13", "rate=3", "=3", "R=3",
        )),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_that_names_it(text, named):
    with pytest.raises(RequestError, match=named) as caught:
        parse_rate(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reducer", "rate", "named"),
    [
        ("tome", "r=500", "block 0 to take out 500 tokens, but 'tome' can take out at most 98 of 197; use r<=98"),
        ("tome", "r=[3,120]", "block 1 to take out 120 tokens, but 'tome' can take out at most 98 of 197"),
        ("tome", "r=60:-1", "block 0 to take out 120 tokens, but 'tome' can take out at most 98 of 197"),
        ("topk", "r=196", "at most 195 of 197; use r<=195"),
        ("evit", "r=195", "at most 194 of 197; use r<=194"),
        ("topk", "keep=0.01", "leaves no patch token in block 6; keep more"),
        ("tome", "r=[1,1,1,1,1,1,1,1,1,1,1,1,1]", "lists 13 blocks, but the model has 12"),
        ("tome", "r=3@12", "names block 12; the model has blocks 0 to 11"),
        ("tome", "r=3@-1", "names block -1; the model has blocks 0 to 11"),
        ("evit", "keep=0.7@3,3", "names a block twice"),
        ("tome", "keep=0.7", "'tome' is not defined for rate keep=0.7; it takes r=... or flops=..."),
        ("none", "r=3", "'none' takes no rate, but r=3 was asked"),
    ],
)
def test_what_the_model_cannot_do_is_one_line_with_the_numbers(reducer, rate, named):
    with pytest.raises(RequestError) as caught:
        counts(reducer, rate)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.99, 0.001])
def test_a_fusing_pruner_never_runs_out_of_patches(keep):
    found = counts("evit", f"keep={keep}")
    assert min(found) >= 3
    assert found == sorted(found, reverse=True)


def test_a_share_whose_product_is_not_exact_is_rounded_up_as_the_authors_do():
    # 0.55 * 100 is 55.00000000000001 in floating point
    assert counts("evit", "keep=0.55@0", depth=1, tokens=101) == [1 + 56 + 1]


def test_a_method_may_change_what_leaves_a_block():
    class Doubling(Reducer):
        name = "doubling"

        def leaving(self, count, amount):
            return count - 2 * amount

    assert resolve(parse_rate("r=3"), Doubling(), depth=2, tokens=20, num_prefix=1).counts == (14, 8)


@pytest.mark.parametrize("rate", ["r=0", "r=[0,0]", "r=0:-1", "keep=1", "keep=1@0,1", "flops=0%"])
@pytest.mark.parametrize("name", list_reducers())
def test_every_method_accepts_every_way_to_ask_for_no_reduction(name, rate):
    schedule = resolve(parse_rate(rate), make_reducer(name), depth=4, tokens=17, num_prefix=1)
    assert schedule.amounts == (0, 0, 0, 0)
    assert schedule.counts == (17, 17, 17, 17)


def amounts(rate, name="tome", tokens=197, depth=12, **how):
    return resolve(parse_rate(rate), make_reducer(name), depth=depth, tokens=tokens, num_prefix=1, **how).amounts


def test_a_portion_is_taken_out_in_total_and_evenly():
    assert amounts("merge=0.3", tokens=1025) == (26,) * 7 + (25,) * 5  # round(0.3 * 1024) = 307
    assert sum(amounts("merge=0.8")) == round(0.8 * 196)
    assert amounts("merge=0.5@3,6,9") == (0, 0, 0, 33, 0, 0, 33, 0, 0, 32, 0, 0)
    assert amounts("merge=0") == (0,) * 12


def test_a_portion_is_the_same_for_a_method_that_fuses_what_it_drops_and_one_that_leaves_the_first_block_out():
    assert made_counts("evit", "merge=0.5") == 197 - 98
    assert made_counts("mctf", "merge=0.5") == 197 - 98


def made_counts(name, rate):
    return resolve(parse_rate(rate), make_reducer(name), depth=12, tokens=197, num_prefix=1).counts[-1]


def test_where_every_block_has_its_tokens_restored_the_portion_is_each_block_s():
    found = amounts("merge=0.3", tokens=1025, restored_per_block=True)
    assert found == (308,) * 2 + (307,) * 10  # round(12 * 0.3 * 1024) = 3686
    assert amounts("r=5", restored_per_block=True) == (5,) * 12
    made = make_reducer("tome")
    schedule = resolve(parse_rate("r=5"), made, depth=3, tokens=20, num_prefix=1, restored_per_block=True)
    assert schedule.counts == (15, 15, 15)


@pytest.mark.parametrize(
    ("rate", "match"),
    [
        ("merge=1", r"must lie in \[0, 1\), not 1"),
        ("merge=-0.1", r"must lie in \[0, 1\)"),
        ("merge=half", "cannot be read"),
        ("merge=[0.3,0.2]", "cannot be read"),
    ],
)
def test_what_is_no_portion_is_refused_by_name(rate, match):
    with pytest.raises(RequestError, match=match):
        parse_rate(rate)


def test_a_portion_that_a_later_block_cannot_give_is_refused_instead_of_missed():
    with pytest.raises(RequestError, match=r"merge=0.95 asks block 11 to take out 15 tokens, .* at most 12 of 26"):
        amounts("merge=0.95")


@pytest.mark.parametrize("name", ["topk", "dpcknn", "evit", "pitome"])
def test_where_every_block_has_its_tokens_restored_the_same_share_is_kept_in_each(name):
    shape = {"depth": 12, "tokens": 197, "num_prefix": 1, "restored_per_block": True}
    schedule = resolve(parse_rate("keep=0.7"), make_reducer(name), **shape)
    acting = {count for count, amount in zip(schedule.counts, schedule.amounts, strict=True) if amount}
    assert len(acting) == 1
    listed = resolve(parse_rate("keep=[0.9,0.5]@3,6"), make_reducer("topk"), **shape)
    assert (listed.counts[3], listed.counts[6]) == (177, 99)
