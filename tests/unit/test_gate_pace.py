"""How much faster a method is than another: in the same rounds, in those of two runs, and on other devices."""

from __future__ import annotations

import numpy as np
import pytest

from suite.gate.speed_ratio import compare_speed
from tests.unit.gate_runs import entry


def timed(pairs: list[tuple[float, float]], **changes) -> dict:
    rounds = [{"im_s": own, "baseline_im_s": beside} for own, beside in pairs]
    return {"rounds": rounds, "device": "CPU", "batch_size": 64, "precision": "fp32", "runtime": "eager"} | changes


def test_cells_of_the_same_rounds_are_compared_round_by_round():
    beside = [100.0, 90.0, 110.0, 100.0, 95.0]
    new = entry("new", 1.0, speed=timed([(2.2 * b, b) for b in beside]))
    base = entry("base", 1.0, speed=timed([(2.0 * b, b) for b in beside], noisy=True))
    found = compare_speed(new, base)
    assert (found.ratio, found.low, found.high) == pytest.approx((1.1, 1.1, 1.1))
    assert found.noisy


def test_cells_of_two_runs_are_compared_by_their_speedups_with_an_interval_that_holds_the_truth():
    draw, held = np.random.default_rng(0), 0
    for _ in range(300):
        sides = []
        for speedup in (2.2, 2.0):  # the second machine hour was half as fast
            beside = draw.lognormal(np.log(100 / len(sides or [0])), 0.02, 5)
            sides.append(entry("m", 1.0, speed=timed([(speedup * b * draw.lognormal(0, 0.02), b) for b in beside])))
        found = compare_speed(*sides)
        held += found.low <= 1.1 <= found.high
    assert held / 300 == pytest.approx(0.95, abs=0.04)


def test_speeds_of_other_devices_are_not_compared():
    beside = [(200.0, 100.0)] * 3
    found = compare_speed(entry("a", 1.0, speed=timed(beside)), entry("b", 1.0, speed=timed(beside, device="H100")))
    assert found.ratio is None
    assert found.note == "timed with device CPU and H100"
    assert compare_speed(entry("a", 1.0), entry("b", 1.0)).note == "not timed"
