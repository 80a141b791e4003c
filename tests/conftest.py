"""What several test files share: tiny real data, and a run that takes seconds."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.measure.heap import keep_freed_memory
from suite.reducers.base import REGISTERED
from tasks.caption_scoring.scorer import availability
from tasks.reading.user_cache import CACHE
from tests.photos import write_photos

THREADS = int(os.environ.get("OMP_NUM_THREADS", 1))
STATM = Path("/proc/self/statm")
AFTER_TRIM = [0]  # bytes of this process
GROWTH = 2**30
CRASHED: list[str] = []


def pytest_report_header() -> str:
    """What the numbers of this run are computed with."""
    return f"CPU capability {torch.backends.cpu.get_cpu_capability()}, {THREADS} threads"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """How a process of pytest-xdist ended while it ran tests: a signal says whether memory ran out, which a test that
    "crashed" does not."""
    if error:
        CRASHED.append(f"{node.gateway.id} ended with {node.gateway._io.popen.wait(10)}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in CRASHED:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def threads():
    """As many as OMP_NUM_THREADS says, else one: test processes run side by side, and more would get in each other's
    way."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()


@pytest.fixture(autouse=True)
def freed_memory() -> Iterator[None]:
    """What tests have freed goes back to the system whenever their process has grown by a gigabyte: several run side by
    side."""
    yield
    if STATM.exists() and resident() > AFTER_TRIM[-1] + GROWTH:
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
        AFTER_TRIM.append(resident())


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True, scope="module")
def own_methods() -> Iterator[None]:
    """The methods that a file's tests bring are no methods of the next file's."""
    yield
    for name, method in list(REGISTERED.items()):
        if not method.__module__.startswith("suite.reducers."):
            del REGISTERED[name]


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory) -> Iterator[str | None]:
    """Nothing that was fetched is found, for SPICE takes ten seconds a cell; see `spice`."""
    before = os.environ.get(CACHE)
    os.environ[CACHE] = str(tmp_path_factory.mktemp("cache"))
    yield before
    os.environ.pop(CACHE) if before is None else os.environ.update({CACHE: before})


@pytest.fixture
def spice(own_cache, monkeypatch) -> None:
    """With what `fetch spice` has brought; the test is skipped where that is not there."""
    monkeypatch.delenv(CACHE) if own_cache is None else monkeypatch.setenv(CACHE, own_cache)
    if reason := availability()["spice"]:
        pytest.skip(f"SPICE {reason}")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve small JPEGs in the class folders of four ImageNet synsets."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def tiny_run(tmp_path, photos) -> dict:
    """A spec that runs in about a second: timm's smallest ViT with random weights on 64-pixel images (17 tokens)."""
    return {
        "task": "imagenet",
        "data": str(photos),
        "task_options": {"classes": "all"},  # of the model: the photos are of four
        "model": "test_vit",
        "checkpoint": "none",
        "image_size": 64,
        "batch_size": 5,
        "device": "cpu",
        "workers": 0,
        "reducers": ["tome", "evit"],
        "rates": ["r=1"],
        "speed": False,
        "out": str(tmp_path / "run"),
    }
