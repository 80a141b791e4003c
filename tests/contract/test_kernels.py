"""No method launches more, moves more or waits longer than it did: bounds on what its forward would ask of a GPU.

Counted on DeiT-S in bf16 at batch 256, the second forward of its shape (`suite.measure.trace`). A bound is what is
reached: whoever reaches less writes it here, and whoever needs more says in the commit what for. A line that is not
kept says what the method comes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import timm
import torch
from tiny_models import PAIRS, REDUCERS, make_model, on_pairs, rates

from suite import attach
from suite.contract.baseline import BASELINE
from suite.measure.kernels import Trace
from suite.measure.trace import trace_forward, trace_images
from suite.reducers import list_reducers, reducer_class

ROUNDING = 0.005  # bounds are written with two decimals
ON_IMAGES = 2
TRACED = ["class token", "registers", "explicit attention", "average pool", "GIT"]


@dataclass(frozen=True)
class Bound:
    """launches: of a reducing block beyond the unreduced one's, which are 10; where no block reduces, of the image and
    its embedding. moved: bytes, over the unreduced model's
    times the ratio of multiply-accumulates. host_reads: of a reducing block."""

    launches: float
    moved: float
    host_reads: int = 0


BOUNDS = {
    ("atc", "keep=0.7"): Bound(694.00, 1.47),
    ("adamerge", "r=13"): Bound(93.00, 2.42, host_reads=1),
    ("ats", "keep=0.7"): Bound(54.00, 1.26, host_reads=1),
    ("cubist_merge", "keep=0.7"): Bound(120.00, 1.13),
    ("cubist_merge", "lines=2"): Bound(120.00, 1.12),
    ("dct", "r=13"): Bound(6.00, 1.28),
    ("diffrate", "r=13"): Bound(35.83, 1.25),
    ("dpcknn", "keep=0.7"): Bound(57.67, 1.27),
    ("dpcknn", "r=13"): Bound(57.92, 1.86),
    ("dtem", "r=13"): Bound(26.92, 1.15),
    ("dtps", "keep=0.7"): Bound(38.00, 1.13),
    ("dynamicvit", "keep=0.7"): Bound(19.00, 1.08),
    ("etps", "keep=0.7"): Bound(31.00, 1.11),
    ("evit", "keep=0.7"): Bound(17.00, 1.07),
    ("evit", "r=13"): Bound(17.00, 1.19),
    ("g2tm", "tau=0.9"): Bound(162.00, 1.07, host_reads=1),
    ("gtp", "r=13"): Bound(33.17, 1.97),
    ("heuristic", "keep=0.7"): Bound(4.00, 1.03),
    ("hynap", "r=13"): Bound(47.92, 1.88),
    ("kmedoids", "keep=0.7"): Bound(76.00, 1.49),
    ("kmedoids", "r=13"): Bound(167.42, 2.79),
    ("mat", "r=13"): Bound(32.92, 1.25),
    ("mctf", "r=16"): Bound(66.55, 1.86),
    ("mctf", "r=0.35@3,6,9"): Bound(67.33, 1.30),
    ("nap", "keep=0.7"): Bound(28.67, 1.22),
    ("nap", "r=13"): Bound(28.17, 1.72),
    ("patchmerger", "keep=0.7"): Bound(14.67, 1.13),
    ("pitome", "r=13"): Bound(32.42, 1.25),
    ("pomt", "r=56"): Bound(22.00, 1.09),
    ("ppt", "r=13"): Bound(51.33, 1.07),
    ("ppt", "r=50@3,6,9"): Bound(50.67, 1.11),
    ("prune_and_merge", "keep=0.6"): Bound(9.00, 1.14),
    ("random", "r=13"): Bound(9.58, 1.08),
    ("random", "keep=0.7"): Bound(11.33, 1.03),
    ("representation_shift", "keep=0.7"): Bound(10.00, 1.08),
    ("resize", "side=160"): Bound(3.00, 1.11),
    ("saint", "tau=0.75"): Bound(50.50, 2.53, host_reads=1),
    ("sinkhorn", "keep=0.7"): Bound(26.67, 1.22),
    ("sit", "keep=0.7"): Bound(18.67, 1.14),
    ("tofu", "r=13"): Bound(26.00, 1.18),
    ("tome", "r=13"): Bound(27.83, 1.19),
    ("tome_kth", "r=13"): Bound(31.83, 1.18),
    ("tome_random", "r=13"): Bound(32.42, 1.22),
    ("topk", "keep=0.7"): Bound(12.00, 1.05),
    ("topk", "r=13"): Bound(12.00, 1.17),
    ("uniform", "keep=0.7"): Bound(2.00, 1.03),
    ("uniform", "r=13"): Bound(2.00, 1.08),
    ("zero_tprune", "keep=0.7"): Bound(98.67, 2.60),
}


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
        f"reducer {name!r} has no line in BOUNDS of {__file__}: write Bound(0, 0) at its usual rate, and the test says "
        "what it comes to; see whether a method like it launches less"
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
