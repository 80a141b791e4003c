"""No method launches more, moves more or waits longer than it did: `kernel_bounds` are kept.

A line that is not kept says what the method comes to.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import timm
import torch
from kernel_bounds import BOUNDS, Bound
from tiny_models import PAIRS, REDUCERS, make_model, on_pairs, rates

from suite import attach
from suite.contract.baseline import BASELINE
from suite.measure.kernels import Trace
from suite.measure.trace import trace_forward, trace_images
from suite.reducers import list_reducers, reducer_class

ROUNDING = 0.005  # bounds are written with two decimals
ON_IMAGES = 2
TRACED = ["class token", "registers", "explicit attention", "average pool", "GIT"]


@cache
def model():
    torch.manual_seed(0)
    return timm.create_model("deit_small_patch16_224").eval()


@cache
def images():
    return torch.rand(ON_IMAGES, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@cache
def unreduced(batch_size: int) -> Trace:
    return trace_forward(model(), batch_size)


def figures(name: str, rate: str) -> Bound:
    """What a method comes to; where it depends on the images, on a few of them, arithmetic included."""
    batch_size = ON_IMAGES if reducer_class(name).input_dependent else 256
    with attach(model(), name, rate) as handle:
        trace = trace_forward(model(), 256) if batch_size == 256 else trace_images(model(), images())
        blocks = sum(amount > 0 for amount in handle.schedule(handle.layout.tokens).amounts)
    before = unreduced(batch_size)
    moved = trace.moved / before.moved * before.macs / trace.macs
    blocks = blocks or 1
    return Bound((trace.launches - before.launches) / blocks, moved, trace.host_reads // blocks)


def line(name: str, rate: str, found: Bound) -> str:
    reads = f", host_reads={found.host_reads}" if found.host_reads else ""
    return f'("{name}", "{rate}"): Bound({found.launches:.2f}, {found.moved:.2f}{reads}),'


def lines() -> list[Any]:
    """Those of the methods that are proved, the second line of a method a slow one."""
    seen: set[str] = set()
    cases = []
    for name, rate in BOUNDS:
        if name in REDUCERS:
            cases.append(pytest.param(name, rate, marks=[pytest.mark.slow] if name in seen else []))
            seen.add(name)
    return cases


@pytest.mark.parametrize(("name", "rate"), lines())
def test_a_method_launches_moves_and_waits_no_more_than_its_bound(name, rate):
    bound, found = BOUNDS[name, rate], figures(name, rate)
    assert found.launches <= bound.launches + ROUNDING, line(name, rate, found)
    assert found.moved <= bound.moved + ROUNDING, line(name, rate, found)
    assert found.host_reads == bound.host_reads, line(name, rate, found)


@pytest.mark.parametrize("name", sorted({*REDUCERS} & {*list_reducers()} - {BASELINE}))
def test_a_method_has_a_bound(name):
    assert name in {bounded for bounded, _ in BOUNDS}, (
        f"reducer {name!r} has no line in tests/contract/kernel_bounds.py: write Bound(0, 0) at its usual rate, and "
        "the test says what it comes to; see whether a method like it launches less"
    )


@on_pairs([pair for pair in PAIRS if pair[1] in TRACED], quick=4)
def test_no_method_of_a_fixed_schedule_makes_the_cpu_wait(name, kind):
    model = make_model(kind)
    with attach(model, name, rates(name)[0]) as handle:
        if handle.planned_counts is None:
            blocks = sum(amount > 0 for amount in handle.schedule(handle.layout.tokens).amounts)
            assert trace_images(model, torch.rand(2, 3, 32, 32)).host_reads <= blocks
        else:
            assert trace_forward(model, 2).host_reads == 0
