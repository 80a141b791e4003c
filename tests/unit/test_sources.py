"""What decides a result is found by following imports, in our code and in a user's."""

import sys

import pytest

from suite.errors import RequestError
from suite.reducers import module_from_file
from suite.store import sources
from suite.store.sources import digest_sources, reach
from suite.sweep.plan import make_plan
from suite.sweep.spec import make_spec

MINE = """
from helper import KEPT
from suite.reducers.base import Reducer
from suite.tokens.state import Tokens

class Mine(Reducer):
    rates = ("r",)
    def before_block(self, tokens, ctx, amount):
        return tokens.keep(list(range(KEPT)))
"""


@pytest.fixture
def digest_anew(tmp_path, monkeypatch):
    """Digests modules of `tmp_path` as another process would, which has read none of them."""
    monkeypatch.syspath_prepend(tmp_path)

    def digest(*roots):
        monkeypatch.setattr(sources, "READ", {})
        return digest_sources(roots)

    return digest


@pytest.mark.parametrize(
    "imports",
    [
        "import helper",
        "from helper import KEPT",
        "def later():\n    import helper",
        "import package.inner",
        "from package import inner",
        "from package.inner import *",
        "try:\n    import no_such_module\nexcept ImportError:\n    import helper",
    ],
)
def test_a_change_in_what_a_file_imports_is_a_change_of_the_file(tmp_path, digest_anew, imports):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner.py").write_text("from . import helper2\n")
    for name in ("helper.py", "package/helper2.py"):
        (tmp_path / name).write_text("KEPT = 5\n")
    (tmp_path / "mine.py").write_text(imports)
    before = digest_anew("mine")
    assert digest_anew("mine") == before
    for name in ("helper.py", "package/helper2.py"):
        (tmp_path / name).write_text("KEPT = 6\n")
    assert digest_anew("mine") != before


def test_what_a_file_imports_in_ways_that_its_text_hides_counts_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hidden_helper.py").write_text("def kept(): return 5\n")
    (tmp_path / "hiding.py").write_text("kept = getattr(__import__('hidden_' + 'helper'), 'kept')\n")
    module = module_from_file(tmp_path / "hiding.py")
    assert "hidden_helper" in reach([module.__name__])


def test_installed_packages_that_a_file_imports_count_by_their_versions(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "uses_yaml.py").write_text("import yaml\n")
    before = digest_sources(["uses_yaml"])
    monkeypatch.setattr(sources, "version", lambda name: "0")
    assert digest_sources(["uses_yaml"]) != before


def test_where_the_project_is_installed_and_how_often_says_nothing_about_a_method(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_too.py").write_text("from suite.reducers.random import Random\n")
    module = module_from_file(tmp_path / "mine_too.py")

    def digested(distributions):
        monkeypatch.setattr(sources, "_distributions", lambda: distributions)
        return digest_sources([module.__name__])

    assert digested({"suite": ["reducerbench", "reducerbench"]}) == digested({})


def test_what_a_type_checker_alone_imports_does_not_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "typed.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import suite.cli.app\nelse:\n    import suite.errors\n"
    )
    reached = reach(["typed"])
    assert "suite.errors" in reached
    assert "suite.cli.app" not in reached


def test_a_file_that_changes_under_a_running_process_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "edited.py").write_text("KEPT = 5\n")
    digest_sources(["edited"])
    (tmp_path / "edited.py").write_text("KEPT = 6\n")
    with pytest.raises(RequestError, match=r"edited\.py.*has changed since this process read it; start Python anew"):
        digest_sources(["edited"])


def test_a_module_without_a_file_is_refused_by_name():
    with pytest.raises(RequestError, match="module 'builtins' has no source file"):
        digest_sources(["builtins"])


@pytest.mark.parametrize(
    ("task", "decides", "does_not"),
    [
        (
            "scenes",
            {
                "tasks.scenes.classes",
                "tasks.reading.images",
                "tasks.classification",
                "suite.sweep.evaluate",
                "suite.models.load",
            },
            {"suite.models.captioner", "tasks.reading.masks", "suite.cli.app", "reports", "suite.reducers.mctf"},
        ),
        (
            "scenes-caption",
            {
                "tasks.captioning",
                "tasks.caption_scoring.worker",
                "suite.models.captioner",
                "suite.models.captioner_files",
            },
            {"suite.backbones.mmseg_vit", "tasks.reading.masks", "suite.cli.app", "reports"},
        ),
        (
            "scenes-seg",
            {
                "tasks.segmentation",
                "tasks.segmentation_scoring",
                "suite.backbones.segmenter",
                "suite.models.segmenter_files",
            },
            {"suite.models.captioner", "tasks.captioning", "suite.cli.app", "reports"},
        ),
    ],
)
def test_what_a_run_reaches_decides_its_cells_and_nothing_else_does(monkeypatch, task, decides, does_not):
    roots = []
    monkeypatch.setattr("suite.sweep.plan.digest_sources", lambda names: roots.extend(names) or "")
    make_plan(make_spec({"task": task, "limit": 2, "reducers": "tome", "flops": "-35%"}))
    reached = set(reach(roots))
    assert decides <= reached
    assert "suite.reducers.tome" in reached
    assert not does_not & reached


def test_a_changed_helper_of_a_users_method_makes_new_cells_of_that_method_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)

    def keys(kept):
        (tmp_path / "helper.py").write_text(f"KEPT = {kept}\n")
        monkeypatch.setattr(sources, "READ", {})
        for name in [name for name in sys.modules if name == "helper" or name.startswith("reducer_file_mine")]:
            del sys.modules[name]
        module_from_file.cache_clear()
        spec = make_spec({"limit": 2, "reducers": f"tome,{tmp_path}/mine.py:Mine", "rates": "r=2"})
        return {method.reducer.rpartition(":")[2]: key for key, method in make_plan(spec).methods.items()}

    before, after = keys(5), keys(6)
    assert {name for name in before if before[name] != after[name]} == {"Mine"}
    assert keys(5) == before
