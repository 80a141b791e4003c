"""Imports run one way, down the list of wings; reports -> the store.

Imports inside functions count like those at the top of a file. Those under `if TYPE_CHECKING` do not: nothing runs.
"""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("run_bench", "suite", "tasks", "reports")

# The wings, highest first: a module imports from its own wing or from lower ones. A name stands for its submodules too,
# "suite" for the public API in suite/__init__.py alone.
WINGS = (
    "run_bench",
    "suite.alias",
    "suite.cli",
    "suite",
    "suite.api",
    "suite.deploy",
    "suite.analyse",
    "suite.gate",
    "suite.train",
    "suite.papers",
    "suite.pictures",
    "suite.sweep",
    "reports",
    "suite.measure",
    "suite.formats",
    "suite.attachment",
    "suite.models",
    "suite.backbones",
    "suite.rates",
    "suite.reducers",
    "suite.tokens",
    "tasks",
    "suite.store",
    "suite.contract",
    "suite.stats",
    "suite.errors",
)

# What these may import of ours, whatever their wing.
FENCES = {
    "a method": (
        lambda name: (
            name.startswith("suite.reducers.") and name not in ("suite.reducers.base", "suite.reducers.plugins")
        ),
        (
            "suite.tokens",
            *("suite.reducers.score_predictor", "suite.reducers.squeeze", "suite.reducers.learned_counts"),
            *("suite.reducers.prune_and_fuse", "suite.reducers.neighbours", "suite.reducers.kept_counts"),
            "suite.reducers.base",
            *("suite.reducers.signals", "suite.reducers.branch_signals"),
            "suite.contract.baseline",
        ),
    ),
    "the contract of methods": (
        lambda name: name in ("suite.reducers.base", "suite.reducers.signals", "suite.reducers.branch_signals"),
        ("suite.tokens", "suite.reducers.signals", "suite.reducers.branch_signals"),
    ),
    "a task": (lambda name: within(name, "tasks"), ("tasks", "suite.contract", "suite.errors", "suite.stats")),
    "a report": (
        lambda name: within(name, "reports"),
        # a stored rate is read by what reads every rate, so that rows stand in the order of what they take out, and a
        # stored trace by what reads every trace; neither needs torch
        (
            *("reports", "suite.store", "suite.rates.rate", "suite.contract.metric", "suite.contract.baseline"),
            "suite.contract.program",
            *("suite.measure.kernels", "suite.measure.roofline", "suite.stats", "suite.errors"),
            "suite.contract.printable",
        ),
    ),
    "a measurement": (
        lambda name: within(name, "suite.measure"),
        (
            "suite.measure",
            "suite.formats",
            "suite.attachment",
            "suite.models",
            "suite.backbones",
            "suite.reducers",
            "suite.rates",
            "suite.tokens.layout",
            "suite.contract.baseline",
            "suite.errors",
            "suite.stats",
        ),
    ),
}

# Edges that run backwards on purpose, and why.
EXCEPTIONS = {}


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def module_names():
    """Module name -> file, of everything of ours."""
    files = [ROOT / "run_bench.py", *(file for top in TOPS[1:] for file in (ROOT / top).rglob("*.py"))]
    names = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def is_type_checking(node):
    return isinstance(node, ast.If) and getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING"


def running_nodes(tree):
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            for other in node.orelse:
                yield other
                yield from running_nodes(other)
            continue
        yield node
        yield from running_nodes(node)


def imported(source, module, is_package, known):
    """Full names of the modules that `source` imports, ours and others."""
    found = set()
    for node in running_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known else base)
    return found


def graph():
    """Module -> everything that it imports."""
    known = module_names()
    return {
        name: imported(file.read_text(), name, file.name == "__init__.py", known) - {name}
        for name, file in known.items()
    }


def ours(names):
    return {name for name in names if name.partition(".")[0] in TOPS}


def wing_of(name):
    for height, wing in enumerate(WINGS):
        if name == wing if wing == "suite" else within(name, wing):
            return height
    pytest.fail(f"{name} stands in no wing; give it its place in {Path(__file__).name}")


IMPORTS = graph()
EDGES = sorted((importer, target) for importer, targets in IMPORTS.items() for target in ours(targets))


def test_no_import_runs_backwards():
    backwards = [
        f"{importer} imports {target}"
        for importer, target in EDGES
        if wing_of(importer) > wing_of(target) and (importer, target) not in EXCEPTIONS
    ]
    assert not backwards, "\n".join(backwards)


def test_no_import_runs_in_a_circle():
    sorter = TopologicalSorter()
    for importer, target in EDGES:
        if (importer, target) not in EXCEPTIONS:
            sorter.add(importer, target)
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("who", FENCES)
def test_what_is_fenced_imports_nothing_else_of_ours(who):
    inside, allowed = FENCES[who]
    members = [name for name in IMPORTS if inside(name)]
    assert members
    strays = [
        f"{importer} imports {target}"
        for importer, target in EDGES
        if inside(importer) and not any(within(target, entry) for entry in allowed)
    ]
    assert not strays, "\n".join(strays)


def test_a_method_needs_nothing_but_torch():
    inside, _ = FENCES["a method"]
    for name in filter(inside, IMPORTS):
        others = {target.partition(".")[0] for target in IMPORTS[name] - ours(IMPORTS[name])}
        assert others - sys.stdlib_module_names <= {"torch"}, name


def test_every_module_that_is_imported_exists():
    missing = [f"{importer} imports {target}" for importer, target in EDGES if target not in IMPORTS]
    assert not missing, "\n".join(missing)


def test_every_exception_is_still_needed():
    assert set(EXCEPTIONS) <= set(EDGES)


def test_an_import_is_seen_wherever_it_stands():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from suite.sweep.engine import execute
else:
    import suite.sweep.spec
def later():
    from suite import list_reducers
    from suite.attachment import handle
    from . import tome
    from ..rates.schedule import resolve
"""
    known = {"suite.attachment.handle", "suite.reducers.tome"}
    assert ours(imported(source, "suite.reducers.mine", False, known)) == {
        "suite.sweep.spec", "suite.attachment.handle", "suite", "suite.reducers.tome", "suite.rates.schedule",
    }  # fmt: skip


@pytest.mark.parametrize("top", TOPS[1:])
def test_a_package_shows_few_modules_and_the_rest_in_wings(top):
    assert len(list((ROOT / top).glob("*.py"))) <= 9


def test_no_module_is_long():
    lengths = {name: len(file.read_text().splitlines()) for name, file in module_names().items()}
    assert {name: length for name, length in lengths.items() if length > 330} == {}
