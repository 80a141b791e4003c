"""Everything here needs an NVIDIA GPU; where there is none, every test is skipped for the same reason."""

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    marks = [pytest.mark.gpu]
    if not torch.cuda.is_available():
        marks.append(pytest.mark.skip(reason="no CUDA device"))
    for item in items:
        if item.path.is_relative_to(HERE):
            for mark in marks:
                item.add_marker(mark)
