"""Every package that is imported is declared, with its lowest release; `doctor` says which of them do not fit."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from suite.cli import dependencies
from suite.cli.dependencies import list_dependencies
from suite.cli.doctor import packages
from tests.test_imports import IMPORTS, ROOT, module_names, ours

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED, EXTRAS = PROJECT["dependencies"], PROJECT["optional-dependencies"]
# Calls that look for a module by its name.
LOOKS_UP = {"import_module", "find_spec", "files", "importorskip"}
OTHERWISE_NAMED = {"sklearn": ["scikit-learn"], "open_clip": ["open-clip-torch"]}  # of extras, where they are not here
DISTRIBUTIONS = OTHERWISE_NAMED | packages_distributions()


def names(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def looked_up(source):
    """Names of the modules that a source asks for in so many words, without an import statement."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in LOOKS_UP and isinstance(node.args[0].value, str):
                yield node.args[0].value


def undeclared(modules, declared):
    """The modules of `modules` that no package of `declared` brings."""
    tops = {name.partition(".")[0] for name in modules if name} - sys.stdlib_module_names
    brought = {top: {canonicalize_name(name) for name in DISTRIBUTIONS.get(top, [top])} for top in tops}
    return sorted(top for top, packages in brought.items() if not packages & declared)


def test_every_package_that_the_program_imports_is_declared():
    imported = {target for targets in IMPORTS.values() for target in targets - ours(targets)}
    asked = {name for file in module_names().values() for name in looked_up(file.read_text())}
    assert {"torch", "PIL", "plotly"} <= {name.partition(".")[0] for name in imported | asked}
    extras = (
        "trackers",
        "ray",
        "deploy",
        "tensorrt",
        "open_clip",
        "generation",
    )  # what is asked for is named where it is missing
    brought = [line for extra in extras for line in EXTRAS[extra]]
    optional = names([*EXTRAS["trackers"], *EXTRAS["dev"]])  # `run --track` and `check` name what is missing
    assert undeclared(imported, names(NEEDED) | names(brought) | {PROJECT["name"]}) == []
    assert undeclared(asked - ours(asked), names(NEEDED) | optional) == []


def test_every_package_that_the_tests_import_is_declared():
    files = list((ROOT / "tests").rglob("*.py"))
    own = {"suite", "tasks", "reports", "tests", "run_bench"} | {file.stem for file in files}
    imported = set()
    for file in files:
        tree = ast.parse(file.read_text())
        imported |= set(looked_up(file.read_text()))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module)
    others = {name for name in imported if name.partition(".")[0] not in own}
    assert undeclared(others, names(NEEDED) | names(line for extra in EXTRAS.values() for line in extra)) == []


def test_the_extras_that_messages_name_for_captions_and_masks_are_parts_of_what_is_always_installed():
    assert {*EXTRAS["caption"], *EXTRAS["segmentation"]} < {*NEEDED}


def test_an_import_that_nothing_declares_is_found():
    assert undeclared({"PIL.Image", "yaml", "torch.nn", "json"}, names(NEEDED)) == []
    assert undeclared({"pluggy", "no_such_module.inner"}, names(NEEDED)) == ["no_such_module", "pluggy"]
    source = 'from importlib.util import find_spec\nfind_spec("plotly"), importlib.import_module("duckdb"), find("x")'
    assert set(looked_up(source)) == {"plotly", "duckdb"}


@pytest.mark.parametrize("line", [*NEEDED, *(line for extra in EXTRAS.values() for line in extra)])
def test_every_dependency_has_a_lowest_release(line):
    operators = [specifier.operator for specifier in Requirement(line).specifier]
    assert {">=", "==", "~="} & set(operators), line
    assert len(operators) == len(set(operators)), line


def test_what_is_installed_fits_the_bounds():
    assert {found.item: found.detail for found in packages() if found.state not in ("ok", "n/a")} == {}
    assert names(NEEDED) - {"mmcv-lite"} <= {canonicalize_name(each.name) for each in list_dependencies()}


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """A package as an installer leaves it, with dependencies of its own, in the place of ours."""

    def written(*lines):
        folder = tmp_path / f"{dependencies.DISTRIBUTION}-9.dist-info"
        folder.mkdir()
        head = f"Metadata-Version: 2.1\nName: {dependencies.DISTRIBUTION}\nVersion: 9\nProvides-Extra: dev\n"
        (folder / "METADATA").write_text(head + "".join(f"Requires-Dist: {line}\n" for line in lines))
        monkeypatch.syspath_prepend(tmp_path)

    return written


def test_doctor_marks_what_is_out_of_bounds_with_the_command_that_repairs_it(declare):
    declare("torch<999,>=998", "numpy>=1", "no-such>=3", "pytest<2; extra == 'dev'", "no-such-tool>=1; extra == 'dev'")
    torch, numpy, absent, pytest_, tool = packages()
    assert (torch.item, torch.state, torch.command) == ("torch", "out of bounds", "pip install 'torch>=998,<999'")
    assert re.fullmatch(r"\d+\.\d+\S*, not >=998,<999", torch.detail)
    assert (numpy.state, numpy.command) == ("ok", "")
    assert (absent.state, absent.detail, absent.command) == ("missing", "needs >=3", "pip install 'no-such>=3'")
    assert (pytest_.item, pytest_.state, pytest_.command) == ("pytest (dev)", "out of bounds", "pip install 'pytest<2'")
    assert (tool.item, tool.state, tool.detail) == ("no-such-tool (dev)", "n/a", "not installed (>=1)")


def test_a_bound_of_another_python_is_left_out_and_bounds_of_one_package_are_one(declare):
    declare("numpy>=1", "numpy<999; python_version >= '3'", "torch>=998; python_version < '3'")
    (numpy,) = packages()
    assert (numpy.item, numpy.state) == ("numpy", "ok")
    assert numpy.detail.endswith("(>=1,<999)")


def test_a_nightly_build_lies_within_its_bounds(declare, tmp_path):
    declare("some-package>=2")
    nightly = tmp_path / "some_package-3.0.dist-info"
    nightly.mkdir()
    (nightly / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 3.0.dev20260101+cu130\n")
    assert [found.state for found in packages()] == ["ok"]


def test_mmcv_takes_the_place_of_its_lite_build(declare, tmp_path, monkeypatch):
    monkeypatch.setitem(dependencies.TAKES_PLACE_OF, "no-such-lite", "numpy")
    declare("no-such-lite>=2", "numpy>=1")
    assert [(found.item, found.state) for found in packages()] == [("numpy", "ok")]


def test_sources_that_were_never_installed_are_said_to_know_no_bounds(monkeypatch):
    monkeypatch.setattr(dependencies, "DISTRIBUTION", "no-such-package")
    (found,) = packages()
    assert (found.item, found.state) == ("no-such-package", "n/a")
    assert found.detail.endswith("pip install -e .")
