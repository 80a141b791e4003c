"""What README.md tells people to type is understood, and `--help` lists nothing that is refused."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from suite.cli.app import app
from suite.cli.flags import FLAGS, asked
from suite.cli.values import parse_settings
from suite.train.recipe import list_recipes, make_recipe

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M | re.S)
ELSEWHERE = {"--debug", "--help", "--nproc-per-node"}  # main's own, everybody's, torchrun's


def commands() -> list[str]:
    """Every command of a code block, from behind run_bench.py to its comment."""
    lines = [line for kind, text in BLOCKS if kind in ("sh", "yaml") for line in text.replace("\\\n", " ").splitlines()]
    return [line.partition("run_bench.py")[2].strip() for line in lines if "run_bench.py" in line]


def parse(arguments: list[str]) -> Any:
    """The context of the verb that the arguments end in. click's usage errors pass through."""
    command, context = get_command(app), None
    while True:
        context = command.make_context(command.name, list(arguments), parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not hasattr(command, "resolve_command") or not rest:
            return context
        _, command, arguments = command.resolve_command(context, rest)


def options_of(command: Any) -> set[str]:
    """Every flag of a command and of those below it."""
    below = (options_of(one) for one in getattr(command, "commands", {}).values())
    return {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}.union(*below)


def recipe_flags() -> set[str]:
    fields = {name for method in list_recipes() for name in type(make_recipe(method)).model_fields}
    return {f"--{name.replace('_', '-')}" for name in fields}


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_is_understood(command):
    context = parse(shlex.split(command, comments=True))
    if context.args:  # the numbers of a recipe, which are flags as well
        made = make_recipe(context.params.get("method", "dtem"))
        assert {name for name, _ in parse_settings(context.args)} <= {*type(made).model_fields}


def test_a_flag_that_the_readme_names_exists():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    assert len(named) > 30
    assert named - options_of(get_command(app)) - recipe_flags() <= ELSEWHERE


def test_a_verb_that_the_readme_names_in_its_text_exists():
    verbs = get_command(app).commands
    spans = re.findall(r"`([a-z][a-z-]*) [^`]*`", re.sub(r"```.*?```", "", README, flags=re.S))
    assert len(set(spans) & {*verbs}) >= 8
    assert set(spans) - {*verbs} <= {"pip", "apt", "make", "python", "kill", "ray"}


def test_names_that_the_readme_imports_exist():
    found = [node for kind, text in BLOCKS if kind == "python" for node in ast.walk(ast.parse(text))]
    imports = [node for node in found if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        assert [alias.name for alias in node.names if not hasattr(import_module(node.module), alias.name)] == []


def test_every_flag_of_check_means_something():
    """What `check --help` lists is either its own, or reaches what is run as `run` would have it."""
    check = get_command(app).commands["check"]
    names = {one.name for one in check.params}
    assert not names & {"reducers", "reducer_file"}  # NEW and --against say what is run
    shared = names & set(FLAGS)
    assert len(shared) > 15
    values = dict.fromkeys(shared) | {"limit": 3, "reducer_option": ["tome.proportional_attention=false"]}
    assert asked(None, values) == {"limit": 3, "reducer_options": {"tome": {"proportional_attention": False}}}
