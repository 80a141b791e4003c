"""Training on several processes, as torchrun starts them."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
SETTINGS = ["--limit", "8", "--steps", "2", "--workers", "0", "--amp", "false", "--lr", "1e-3"]


def train(out, batch_size, *launcher):
    command = [*launcher, str(ROOT / "run_bench.py"), "train", "dtem", *SETTINGS, "--batch-size", str(batch_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", str(out)], env=environment, check=True, capture_output=True)
    with (out / "metrics.csv").open() as file:
        return load_file(out / "weights.safetensors"), list(csv.DictReader(file))


@pytest.mark.slow
def test_two_processes_with_half_the_batch_each_learn_what_one_learns(tmp_path):
    one, _ = train(tmp_path / "one", 4, sys.executable)
    two, rows = train(
        tmp_path / "two", 2, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    )
    assert len(rows) == 1  # one of them wrote
    # Examples are mirrored by numbers within the training, which both ways count alike; rounding differs, and Adam's
    # first steps take the sign of gradients about zero.
    for name, value in one.items():
        assert torch.isclose(value, two[name], atol=1e-4).float().mean() > 0.99
