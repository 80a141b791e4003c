"""Training on several processes, as torchrun starts them."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_fit import distance, update

from suite.errors import RequestError
from suite.train.run import processes
from tests.tolerances import GRADIENT64

FOLDER = Path(__file__).parent


@pytest.mark.slow
def test_two_processes_with_half_the_batch_each_learn_what_one_learns(tmp_path):
    # all recipes in one start, which is what takes time
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(FOLDER / "small_fit.py"), str(tmp_path / "gradients.pt"), str(tmp_path / "training")]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    subprocess.run([*command, *arguments], env=environment, check=True, capture_output=True)
    for case, gradients in torch.load(tmp_path / "gradients.pt").items():
        assert distance(update(*case).gradients, gradients) < GRADIENT64, case
    with (tmp_path / "training" / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1  # one of them wrote


def test_processes_that_have_no_place_to_meet_are_refused(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(RequestError, match=r"WORLD_SIZE is 2, .*MASTER_ADDR.*start them with torchrun, or unset"):
        processes("cpu")
