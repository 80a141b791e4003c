"""Processes that read images may die or fall silent; the run does not wait for them for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from suite.errors import MachineError
from suite.sweep import ahead
from suite.sweep.ahead import read_ahead

NUMBERS = [[place, place + 1] for place in range(0, 12, 2)]


class Numbers(Dataset):
    """Reads a number, and at `fatal` does something to its process, as often as `folder` has no file of that."""

    def __init__(self, folder: Path, do, fatal: int = 5, times: int = 1) -> None:
        self.folder, self.do, self.fatal, self.times = folder, do, fatal, times

    def __len__(self) -> int:
        return 12

    def __getitem__(self, place: int) -> torch.Tensor:
        done = len(list(self.folder.iterdir()))
        if place == self.fatal and done < self.times:
            (self.folder / str(done)).touch()
            self.do()
        return torch.tensor(place)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_memory() -> None:
    raise MemoryError


def fall_silent() -> None:
    time.sleep(1.5)


class BreaksOff:
    """What is half sent when its sender dies; that has not ended when the other side notices."""

    def __reduce__(self):
        threading.Timer(0.5, die).start()
        return fail_to_receive, ()


def fail_to_receive() -> None:
    raise ConnectionResetError


def read(data: Numbers, workers: int = 2) -> tuple[list[list[int]], list[str]]:
    noted: list[str] = []

    def make(batches, workers):
        return DataLoader(data, batch_sampler=batches, num_workers=workers)

    found = [batch.tolist() for batch in read_ahead(make, iter(NUMBERS), workers, noted.append)]
    return found, noted


def test_a_worker_that_is_gone_before_it_is_seen_is_noticed_by_what_torch_says(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead.multiprocessing, "active_children", list)
    found, (noted,) = read(Numbers(tmp_path, die))
    assert found == NUMBERS
    assert noted == "a process that reads images ended at once; tried again with 1 of 2 workers"


@pytest.mark.parametrize(("do", "said"), [(die, "was killed by SIGKILL"), (no_memory, "reading runs out of memory")])
def test_what_a_worker_did_not_read_is_read_by_fewer(do, said, tmp_path):
    found, (noted,) = read(Numbers(tmp_path, do))
    assert found == NUMBERS
    assert said in noted
    assert noted.endswith("tried again with 1 of 2 workers")


def test_workers_that_die_again_are_given_up_with_the_reason(tmp_path):
    with pytest.raises(MachineError, match="a process that reads images was killed by SIGKILL"):
        read(Numbers(tmp_path, die, times=2))


def test_a_connection_that_breaks_off_is_the_death_of_who_sent(tmp_path):
    def make(batches, workers):
        data = Numbers(tmp_path, die, times=0)
        return DataLoader(data, batch_sampler=batches, num_workers=workers, collate_fn=lambda batch: BreaksOff())

    with pytest.raises(MachineError, match="a process that reads images was killed by SIGKILL"):
        list(read_ahead(make, iter(NUMBERS[:1]), 1))


def test_a_death_raises_nothing_elsewhere_also_after_a_loader_of_torchs(tmp_path):
    list(DataLoader(Numbers(tmp_path, die, times=0), num_workers=1))  # whose handler stays
    read(Numbers(tmp_path, die))
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


@pytest.mark.parametrize("workers", [0, 2])
def test_silence_is_told(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "LOOK", 0.1)
    monkeypatch.setattr(ahead, "SILENCE", 0.5)
    found, noted = read(Numbers(tmp_path, fall_silent), workers)
    assert found == NUMBERS
    assert noted
    assert all("no image has come for" in line for line in noted)


def test_errors_of_data_are_raised_as_they_are(tmp_path):
    def broken() -> None:
        raise KeyError("no such file")

    with pytest.raises(KeyError, match="no such file"):
        read(Numbers(tmp_path, broken))
