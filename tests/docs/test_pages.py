"""What README.md and the pages of docs/ tell people to type is understood, and what they point to is there."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from operator import attrgetter
from typing import Any

import pytest
from typer.main import get_command

from suite.cli.app import app
from suite.cli.flags import FLAGS, asked
from suite.cli.values import parse_settings
from suite.train.recipe import list_recipes, make_recipe
from tests.docs.methods_page import PAGE, entry_of, make_page, methods
from tests.docs.pages import COMMANDS, PAGES, README, ROOT, parse

OF_ALL = {"--debug", "--json", "--help", "--help-all", "--install-completion"}
ELSEWHERE = OF_ALL | {"--nproc-per-node", "--only"}  # of torchrun, and of the tests that inject faults
NO_VERBS = {"pip", "apt", "make", "python", "kill", "ray", "git"}


def options_of(command: Any) -> set[str]:
    """Every flag of a command and of those below it."""
    below = (options_of(one) for one in getattr(command, "commands", {}).values())
    return {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}.union(*below)


def recipe_flags() -> set[str]:
    fields = {name for method in list_recipes() for name in type(make_recipe(method)).model_fields}
    return {f"--{name.replace('_', '-')}" for name in fields}


@pytest.mark.parametrize("command", [pytest.param(one, id=str(one)) for one in COMMANDS])
def test_a_command_of_a_page_is_understood(command):
    context = parse(shlex.split(command.arguments))
    if context.args:  # the numbers of a recipe, which are flags as well
        made = make_recipe(context.params.get("method", "dtem"))
        assert {name for name, _ in parse_settings(context.args)} <= {*type(made).model_fields}


@pytest.mark.parametrize("page", PAGES, ids=attrgetter("name"))
def test_a_flag_that_a_page_names_exists(page):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.text))
    assert named - options_of(get_command(app)) - recipe_flags() <= ELSEWHERE


@pytest.mark.parametrize("page", PAGES, ids=attrgetter("name"))
def test_a_page_names_no_verb_that_there_is_not(page):
    spans = re.findall(r"`run_bench\.py ([a-z][a-z-]*)[^`]*`", page.text)
    assert set(spans) <= {*get_command(app).commands}


def test_the_readme_names_verbs_that_there_are():
    verbs = get_command(app).commands
    spans = set(re.findall(r"`([a-z][a-z-]*) [^`]*`", re.sub(r"```.*?```", "", README.text, flags=re.S)))
    assert len(spans & {*verbs}) >= 5
    assert spans - {*verbs} <= NO_VERBS


def test_names_that_pages_import_exist():
    found = [node for page in PAGES for text in page.blocks("python") for node in ast.walk(ast.parse(text))]
    imports = [node for node in found if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "suite"]
    assert len(imports) > 5
    for node in imports:
        assert [alias.name for alias in node.names if not hasattr(import_module(node.module), alias.name)] == []


def test_the_readme_is_short():
    assert len(README.text.encode()) <= 12 * 1024


@pytest.mark.parametrize("page", PAGES, ids=attrgetter("name"))
def test_what_a_page_links_to_is_there(page):
    links = re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```", "", page.text, flags=re.S))
    here = [link for link in links if "://" not in link]
    assert [link for link in here if not (page.file.parent / link).exists()] == []


def test_every_page_is_in_the_sites_navigation():
    told = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f" {page.name}\n" not in told] == []


def test_the_page_of_methods_says_what_their_sources_say():
    assert PAGE.read_text(encoding="utf-8") == make_page(), "write it again: python -m tests.docs.methods_page"


def test_every_method_says_where_it_is_from_and_when_to_use_it():
    entries = {name: entry_of(name) for name in methods()}
    floors = {"random", "uniform", "resize"}
    assert {name for name, entry in entries.items() if not entry.source} == floors
    assert not [name for name, entry in entries.items() if not entry.when or not entry.rates]


def test_every_flag_of_check_means_something():
    """What `check --help` lists is either its own, or reaches what is run as `run` would have it."""
    check = get_command(app).commands["check"]
    names = {one.name for one in check.params}
    assert not names & {"reducers", "reducer_file"}  # NEW and --against say what is run
    shared = names & set(FLAGS)
    assert len(shared) > 15
    values = dict.fromkeys(shared) | {"limit": 3, "reducer_option": ["tome.proportional_attention=false"]}
    assert asked(None, values) == {"limit": 3, "reducer_options": {"tome": {"proportional_attention": False}}}
