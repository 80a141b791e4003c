"""What `tests/numerics.sh` asks for is what the tests really run on."""

import os

import pytest
import torch


def test_threads_are_as_many_as_were_asked_for():
    assert torch.get_num_threads() == int(os.environ.get("OMP_NUM_THREADS", 1))


@pytest.mark.skipif("ATEN_CPU_CAPABILITY" not in os.environ, reason="no CPU capability was asked for")
def test_the_cpu_capability_is_the_one_that_was_asked_for():
    # torch falls back in silence from what the processor, or this build, does not have
    assert torch.backends.cpu.get_cpu_capability().lower() == os.environ["ATEN_CPU_CAPABILITY"]
