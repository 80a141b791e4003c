"""What every method costs: counted three ways that agree, its own work apart, and a target that is met."""

from itertools import product

import pytest
import torch
from tiny_models import PAIRS, REDUCERS, make_model, on_pairs, rates

from suite import attach, count_flops, solve_rate
from suite.reducers import reducer_class

COUNTED = ["class token", "registers", "explicit attention", "gated attention", "attention pool", "GIT", "NaFlex"]
RATED = [name for name in REDUCERS if reducer_class(name).rates]


@on_pairs([pair for pair in PAIRS if pair[1] in COUNTED], quick=4)
def test_counters_and_closed_form_agree_and_nothing_is_left_uncounted(name, kind):
    model = make_model(kind)
    with attach(model, name, rates(name)[0]) as handle:
        report = count_flops(model)
    assert not report.disputed, report.why
    assert report.total - report.reducer == report.formula
    assert report.total == report.torch
    assert report.reducer >= 0
    assert sum(report.by_part.values()) == report.total
    assert not [op for op in report.uncounted if "all pairs" not in op], report.uncounted
    assert handle.token_counts[-1] < handle.layout.tokens


@on_pairs(product(RATED, ["class token"]), quick=3)
def test_a_target_is_met_from_the_true_cost_or_its_neighbours_are_named(name, kind):
    model = make_model(kind, depth=6)
    solved = solve_rate(model, name, flops="-30%")
    with attach(model, name, solved.rate), torch.no_grad():
        total = count_flops(model).total
    assert total == solved.macs
    assert total / solved.baseline_macs - 1 == pytest.approx(solved.reduction)
    if not solved.neighbours:
        assert abs(solved.reduction + 0.3) <= 0.01
    else:
        (_, less), (_, more) = solved.neighbours
        assert less > -0.3 > more
