"""Freed memory is used again, instead of being fetched from the system anew."""

import subprocess
import sys

import pytest

from suite.measure.heap import keep_freed_memory

COUNT = """
import resource, sys, torch
from suite.measure.heap import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(16_000_000).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(40)  # until the heap has found its size
print(faults(5))
"""


@pytest.mark.slow
@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_a_large_tensor_costs_no_new_pages_where_another_one_was_freed():
    counted = [
        int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("usual", "keep")
    ]
    assert counted[1] < counted[0] / 10, counted
