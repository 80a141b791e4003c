"""What several test files share: tiny real data, and a run that takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from suite.heap import keep_freed_memory
from tests.photos import write_photos


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Test processes run side by side; more threads would only get in each other's way."""
    torch.set_num_threads(1)
    keep_freed_memory()


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve small JPEGs in the class folders of four ImageNet synsets."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def tiny_run(tmp_path, photos) -> dict:
    """A spec that runs in about a second: DeiT-Tiny with random weights on 64-pixel images (17 tokens)."""
    return {
        "task": "imagenet",
        "data": str(photos),
        "model": "deit_tiny_patch16_224",
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
