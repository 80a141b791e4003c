"""What several files here share: a small stored run, and a copy of it to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from browser import BROWSER
from run_folder import write_run


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> Path:
    """Three methods at four rates, with made-up outcomes. Read by many tests and changed by none."""
    return write_run(tmp_path_factory.mktemp("stored") / "one", {"tome": 4.0, "evit": 7.0, "random": 24.0})


@pytest.fixture
def run(stored, tmp_path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "one"))


@pytest.fixture(scope="session")
def chromium():
    """A browser for `browser.open_page`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if BROWSER is None:
        pytest.skip("neither Chromium nor Chrome is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()
