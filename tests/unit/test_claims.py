"""What a method claims stands beside what others measured of it, at the same cost of the same model."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from suite.errors import RequestError
from suite.papers.claims import claims_of
from suite.papers.claims_table import HEADERS, claim_rows
from suite.papers.measured_table import Found

DEIT_S = "deit_small_patch16_224"


@pytest.fixture(scope="module")
def tome():
    return claims_of("tome")


def at(claims, model, trained, gmacs):
    [found] = [
        claim
        for claim in claims
        if (claim.model, claim.trained) == (model, trained) and claim.gmacs[0] <= gmacs <= claim.gmacs[1]
    ]
    return found


def test_a_figure_of_the_methods_own_paper_is_a_claim_and_what_others_print_is_not(tome):
    claim = at(tome, DEIT_S, True, 2.7)
    assert 79.4 in {figure.score for figure in claim.claimed}
    assert {figure.where for figure in claim.others} >= {"mctf-1", "tofu-4"}
    assert not {"mctf-1", "tofu-4"} & {figure.where for figure in claim.claimed}


def test_frozen_weights_and_trained_ones_are_apart_and_the_spread_is_of_one_model_and_cost(tome):
    frozen = at(tome, DEIT_S, False, 2.31)
    assert not frozen.claimed
    assert sorted({figure.score for figure in frozen.others}) == [77.99, 78.01]
    assert frozen.spread == pytest.approx(0.02)
    for claim in tome:
        low, high = claim.gmacs
        assert high - low <= 0.03 * high
        for figure in (*claim.claimed, *claim.others):
            assert (figure.model, figure.trained) == (claim.model, claim.trained)


def test_two_flops_a_multiply_accumulate_are_halved(tome):
    assert any(figure.where == "dora-1" for figure in at(tome, "deit_base_patch16_224", False, 12.05).others)


def test_a_cost_that_is_not_printed_is_counted(tome):
    readme = [figure for claim in tome for figure in claim.claimed if figure.where == "tome-readme"]
    assert readme
    assert all(figure.gmacs > 0 for figure in readme)


def test_a_measured_cell_stands_where_its_cost_is(tome):
    row = SimpleNamespace(
        task="imagenet", reducer="tome", options="", model=DEIT_S, gmacs=2.3, status="done", weights_kind="trained",
        top1=0.7795, top1_low=0.77, top1_high=0.79, samples=50000, training="",
    )  # fmt: skip
    found = claims_of("tome", [Found(row, {})])
    assert at(found, DEIT_S, False, 2.31).here == (pytest.approx(77.95),)
    assert sum(bool(claim.here) for claim in found) == 1


def test_rows_say_where_each_figure_stands(tome):
    rows = claim_rows(tome)
    assert all(len(row) == len(HEADERS) for row in rows)
    [row] = [row for row in rows if row[0] == DEIT_S and row[1] == "as they are" and row[2].startswith("2.30")]
    assert row[3] == "n/a"
    assert "77.99–78.01" in row[4]
    assert all((row[5] == "n/a") == math.isnan(claim.spread) for row, claim in zip(rows, tome, strict=True))


def test_a_method_of_which_nothing_is_published_is_refused_with_the_nearest_names():
    with pytest.raises(RequestError, match="tome"):
        claims_of("tom")
