"""Parts of a batch, and processes, add up to the whole: for every recipe on every kind of task, in float64.

Layers draw nothing here, for what they draw is a part's own.
"""

import csv
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from small_fit import BATCH, CASES, terms, update

FOLDER = Path(__file__).parent
CLOSE = 1e-10
"""Share of the gradient's norm. An entry is a chain of sums of at most 10^5 terms (4 images of 65 tokens, 32 to 128
channels), so off by 10^5 eps = 2e-11 at worst; DTEM's through captions, the largest found, is off by 1e-12. A mean that
is taken over a part instead of the whole is off by 2e-3 (MCTF's images) to 2e-1 (words)."""

whole = cache(update)


def distance(one, other):
    assert one.keys() == other.keys()
    one, other = (torch.cat([values[name].flatten() for name in one]) for values in (one, other))
    return ((one - other).norm() / one.norm()).item()


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_parts_of_any_sizes_add_up_to_the_whole_batch(method, kind):
    expected = whole(method, kind)
    for accumulate in (3, BATCH):
        parts = update(method, kind, accumulate=accumulate)
        assert parts.noted == pytest.approx(expected.noted, rel=CLOSE, abs=1e-14)  # a divergence of 0 is one eps
        assert distance(expected.gradients, parts.gradients) < CLOSE


@pytest.mark.parametrize(("method", "kind"), [
    ("tome", "captioning"), ("tome", "segmentation"), ("mctf", "classification")
])  # fmt: skip
def test_a_mean_over_each_part_would_not_do_here(method, kind):
    assert len(set(terms(method, kind))) > 1


def test_two_processes_with_half_the_batch_each_add_up_to_one(tmp_path):
    # torchrun, as anybody starts several processes; all cases in one start, which is what takes time
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(FOLDER / "small_fit.py"), str(tmp_path / "gradients.pt"), str(tmp_path / "training")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parents[1])}
    subprocess.run([*command, *arguments], env=environment, check=True, capture_output=True)
    for case, gradients in torch.load(tmp_path / "gradients.pt").items():
        assert distance(whole(*case).gradients, gradients) < CLOSE, case
    with (tmp_path / "training" / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1  # one of them wrote
