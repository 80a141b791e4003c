"""What several files here share: a small stored run, and a copy of it to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from run_folder import write_run


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> Path:
    """Three methods at four rates, with made-up outcomes. Read by many tests and changed by none."""
    return write_run(tmp_path_factory.mktemp("stored") / "one", {"tome": 4.0, "evit": 7.0, "random": 24.0})


@pytest.fixture
def run(stored, tmp_path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "one"))
