"""Rates of methods that keep a grid, and thresholds: what they mean block by block."""

from math import prod

import pytest

from suite import RequestError
from suite.rates.grid_lines import least_grid, nearest_grid, thinner_grids
from suite.rates.rate import parse_rate
from suite.rates.schedule import resolve
from suite.reducers.base import Reducer


class Lines(Reducer):
    name = "lines"
    rates = ("keep", "lines", "r")
    keeps_grid = True

    def active_blocks(self, kind, depth):
        return (1, 2)


class Alike(Reducer):
    name = "alike"
    rates = ("tau",)
    input_dependent = True


def schedule(rate, reducer=Lines, tokens=197, depth=4, **how):
    return resolve(parse_rate(rate), reducer(), depth=depth, tokens=tokens, num_prefix=1, **how)


def test_lines_go_by_turns_so_that_the_shape_stays_until_every_second_one_is_gone():
    assert list(thinner_grids((4, 4))) == [(4, 4), (4, 3), (3, 3), (3, 2), (2, 2)]
    assert list(thinner_grids((2, 5))) == [(2, 5), (2, 4), (1, 4), (1, 3)]
    for grid in ((14, 14), (7, 3), (1, 1), (1, 6)):
        *_, last = thinner_grids(grid)
        assert last == least_grid(grid)


def test_a_kept_fraction_is_the_nearest_grid_that_can_be_had_of_two_the_smaller():
    assert nearest_grid((14, 14), 137) == (12, 11)
    assert nearest_grid((14, 14), 189) == (14, 13)
    assert nearest_grid((14, 14), 190) == (14, 14)
    found = schedule("keep=0.7@1")
    assert found.grids == (((14, 14),) * 2, ((14, 14), (12, 11)), ((12, 11),) * 2, ((12, 11),) * 2)
    assert found.counts == (197, 133, 133, 133)
    assert found.amounts == (0, 64, 0, 0)
    assert schedule("keep=0.99").amounts == (0,) * 4


def test_rows_and_columns_are_taken_out_of_every_block_that_the_rate_acts_in():
    found = schedule("lines=[4,3]")
    assert [left for _, left in found.grids] == [(14, 14), (10, 11), (6, 8), (6, 8)]
    assert found.counts == (197, 111, 49, 49)
    restored = schedule("lines=[4,3]", restored_per_block=True)
    assert [left for _, left in restored.grids] == [(14, 14), (10, 11), (10, 11), (14, 14)]
    assert restored.counts == (197, 111, 111, 197)


def test_a_number_of_tokens_is_the_nearest_grid_without_them():
    assert schedule("r=27@0").grids[0] == ((14, 14), (13, 13))
    assert prod(schedule("keep=[0.5,0.25]").grids[2][1]) == 49


def test_the_grid_of_an_image_that_is_not_square_is_given():
    assert schedule("lines=1@0", tokens=13, grid=(2, 6)).counts[0] == 1 + 5
    with pytest.raises(RequestError, match="12 patches are no grid of 3 x 3"):
        schedule("lines=1@0", tokens=13)
    with pytest.raises(RequestError, match="12 patches are no grid of 4 x 4"):
        schedule("lines=1@0", tokens=13, grid=(4, 4))


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        ("lines=8", r"asks block 1 to take out 8 rows and 8 columns, but 'lines' can .* at most 7 and 7 of 14 x 14"),
        ("lines=[5,5]", r"asks block 2 to take out 5 rows and 5 columns, but .* at most 4 and 4 of 9 x 9"),
        ("keep=0.2", "asks block 1 to leave 39 of 196 patches, but 'lines' leaves at least 49"),
    ],
)
def test_more_than_every_second_line_is_refused_with_what_is_left(rate, said):
    with pytest.raises(RequestError, match=said):
        schedule(rate)


def test_a_threshold_is_told_to_the_blocks_it_acts_in_and_counts_are_bounds():
    found = schedule("tau=[0.9,1,0.8]@0,1,3", Alike)
    assert found.thresholds == (0.9, 1.0, 1.0, 0.8)
    assert found.amounts == (1, 0, 0, 1)
    assert found.counts == (197,) * 4
    assert schedule("tau=0.9", Alike).thresholds == (0.9,) * 4
    assert schedule("tau=1", Alike).amounts == (0,) * 4
    with pytest.raises(RequestError, match="lists 2 numbers for 4 active blocks"):
        schedule("tau=[0.9,0.8]", Alike)
