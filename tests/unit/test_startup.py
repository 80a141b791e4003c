"""What there is is listed without running it: nobody waits for a library that the verb does not use."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import tasks
from suite.cli.listing import declared_reducers
from suite.contract import declarations
from suite.contract.declarations import DeclarationError, declared
from suite.contract.task import Task
from suite.reducers import list_all_reducers, reducer_class

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "timm", "transformers", "scipy", "matplotlib", "pandas")
VERBS = (
    *("run", "plan", "report", "doctor", "train", "tables"),
    *("pareto", "break-even", "predict", "gpu", "score", "compare", "check", "analyse", "watch"),
)
LIGHT = (["--help"], ["list"], ["list", "tasks"], ["list", "reducers"], *([verb, "--help"] for verb in VERBS))
VERB_BY_VERB = f"""
import sys
from suite.cli.app import main
for arguments in {LIGHT}:
    try:
        main(arguments)
    except SystemExit as ended:
        print("imports:", *arguments, *sorted({set(HEAVY)} & set(sys.modules)), ended.code, file=sys.stderr)
"""


def run_code(code: str) -> str:
    """What a process of its own prints to its error stream."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_help_and_the_lists_of_tasks_and_reducers_import_no_heavy_library():
    printed = [line for line in run_code(VERB_BY_VERB).splitlines() if line.startswith("imports:")]
    assert printed == [f"imports: {' '.join(arguments)} 0" for arguments in LIGHT]


def test_what_is_known_of_a_model_is_known_without_a_heavy_library():
    code = (
        "import sys; from suite.models.registry import find_entry; assert find_entry('scenes_git').shape; "
        f"print(*{{*{HEAVY}}} & set(sys.modules), file=sys.stderr)"
    )
    assert run_code(code).split() == []


def test_asking_for_a_task_imports_no_other_task():
    names = run_code("import sys, tasks; tasks.task_class('scenes'); print(*sys.modules, sep='\\n', file=sys.stderr)")
    imported = set(names.splitlines())
    assert "tasks.scenes.classes" in imported
    assert not imported & {"tasks.coco.task", "tasks.ade20k.task", "tasks.imagenet.task", "tasks.scenes.captions"}


def test_every_task_is_found_by_its_class_statement():
    classes = set()
    for module in walk_packages(tasks.__path__, "tasks."):
        classes |= {value for value in vars(import_module(module.name)).values() if isinstance(value, type)}
    named = {cls.name: cls for cls in classes if issubclass(cls, Task) and "name" in vars(cls)}
    assert {name: tasks.task_class(name) for name in tasks.list_tasks()} == named


def test_every_reducer_says_in_its_file_what_it_says_when_it_is_run():
    found = declared_reducers()
    ours = [name for name in list_all_reducers() if reducer_class(name).__module__.startswith("suite.reducers.")]
    assert list(found) == ours  # other tests of this process may have registered some of their own
    for name, outline in found.items():
        cls = reducer_class(name)
        assert (outline.__module__, outline.__name__) == (cls.__module__, cls.__name__)
        assert (outline.rates, outline.learned) == (cls.rates, cls.learned)
        assert inspect.cleandoc(outline.__doc__) == inspect.cleandoc(cls.__doc__)
        defaults = {key: one.default for key, one in inspect.signature(outline).parameters.items()}
        assert defaults == {key: one.default for key, one in inspect.signature(cls).parameters.items()}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes a package of two files, and says what of it is declared."""

    def write(source: str) -> dict[str, type]:
        name = f"package_{abs(hash(source))}"
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "base.py").write_text("FEW = 3\nclass Base:\n    rates = ('r',)\n")
        (tmp_path / name / "below" / "mine.py").write_text(f"from {name}.base import FEW, Base as Above\n{source}")
        monkeypatch.setattr(declarations, "ROOT", tmp_path)
        return declared(name, f"{name}.base:Base")

    return write


def test_a_declaration_may_name_what_it_imports_and_inherit_what_it_does_not_say(written):
    found = written(
        "import elsewhere\n\n@register('mine')\nclass Mine(elsewhere.Odd, Above):\n    'About.'\n"
        "    def __init__(self, few: int = FEW, *, many=(FEW, 4)): elsewhere.run()\n"
        "class Other:\n    name = 'other'\nclass Nameless(Mine): pass\n"
    )
    assert list(found) == ["mine"]
    mine = found["mine"]
    assert (mine.__doc__, mine.rates) == ("About.", ("r",))
    assert str(inspect.signature(mine)) == "(few=3, *, many=(3, 4))"


@pytest.mark.parametrize(("source", "said"), [
    ("class Mine(Above):\n    name = make()\n", r"below/mine.py .*NameError: 'make' is not written out"),
    ("class Mine(Above:\n", r"below/mine.py .*SyntaxError"),
])  # fmt: skip
def test_what_only_running_a_file_could_tell_is_said_with_its_name(source, said, written):
    with pytest.raises(DeclarationError, match=said):
        written(source)
