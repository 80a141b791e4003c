"""A device has one who times, or several who evaluate; whoever waits says so, again where it takes long."""

from __future__ import annotations

import multiprocessing
import threading

import pytest
import torch

from suite.measure import exclusive
from suite.measure.exclusive import alone, sharing

CPU = torch.device("cpu")


def hold(place, holding, end) -> None:
    exclusive.tempfile.tempdir = place
    with alone(CPU):
        holding.set()
        end.wait(20)


@pytest.mark.parametrize("way", [alone, sharing])
def test_who_waits_for_a_timing_says_so_again_and_no_more_once_it_is_over(way, tmp_path, monkeypatch):
    monkeypatch.setattr(exclusive.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(exclusive, "AGAIN", 0.05)
    fork = multiprocessing.get_context("fork")
    holding, end, said, thrice = fork.Event(), fork.Event(), [], threading.Event()

    def wait() -> None:
        said.append(len(said))
        if len(said) == 3:
            thrice.set()
            end.set()

    other = fork.Process(target=hold, args=(str(tmp_path), holding, end))
    other.start()
    assert holding.wait(20)
    with way(CPU, wait):
        assert thrice.is_set()
        count = len(said)
        assert not threading.Event().wait(0.3)
        assert len(said) == count
    other.join()


def test_those_who_evaluate_do_not_wait_for_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(exclusive.tempfile, "tempdir", str(tmp_path))
    said = []
    with sharing(CPU, lambda: said.append(1)), sharing(CPU, lambda: said.append(2)):
        assert not said
