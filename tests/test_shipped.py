"""What a wheel holds beside code is known: origin and licence stand in the bill of materials that comes with it."""

import json
import subprocess
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import pytest

from tests.test_imports import ROOT

BILL = json.loads((ROOT / "suite/alias/shipped.cdx.json").read_text())
COMPONENTS = {component["name"]: component for component in BILL["components"]}
NOT_SHIPPED = ("suite/alias/*", "reports/examples/*", "*.md", "*.py")  # as pyproject.toml has it


def shipped():
    """Files beside code that are in the history, by their paths; the rest of a folder is nobody's."""
    listed = subprocess.run(["git", "ls-files", "suite", "tasks", "reports"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("the files are not those of a git clone")
    files = [file for file in listed.stdout.split() if (ROOT / file).is_file()]
    return [file for file in files if not any(fnmatchcase(file, pattern) for pattern in NOT_SHIPPED)]


def test_every_file_beside_code_is_of_one_component_and_every_component_has_files():
    owners = {file: [name for name in COMPONENTS if PurePosixPath(file).match(name)] for file in shipped()}
    assert {file: names for file, names in owners.items() if len(names) != 1} == {}
    assert {name for names in owners.values() for name in names} == {*COMPONENTS}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_says_what_it_is_and_has_a_licence_that_a_company_can_use(name):
    component = COMPONENTS[name]
    assert component["type"]
    assert component["description"].endswith(".")
    assert [each["license"]["id"] for each in component["licenses"]] == ["Apache-2.0"]


def test_no_script_of_somebody_else_is_among_the_pages_assets():
    """Minified libraries have lines that nobody writes."""
    for file in (ROOT / "reports/page/assets").iterdir():
        text = file.read_text()
        assert "@license" not in text
        assert max(map(len, text.splitlines())) < 400, file.name
