"""`--help`: every verb has its group, three examples that are understood, and fits a screen of 80 columns."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from suite.cli.app import app, main, without_own_flags
from suite.cli.examples import EXAMPLES
from suite.cli.help import RARE, VERBS
from tests.docs.pages import ROOT, parse

SCREEN = 40  # lines


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*path, name))


ALL = dict(commands(get_command(app)))


def printed(capsys: Any, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", ALL)
def test_help_fits_a_screen_and_shows_three_examples(verb, capsys):
    text = printed(capsys, *verb.split(), "--help")
    assert len(text.splitlines()) <= SCREEN, text
    assert max(map(len, text.splitlines())) <= 80, text
    assert all(f" {example}\n" in text for example in EXAMPLES[verb] if example)


@pytest.mark.parametrize("verb", ALL)
def test_examples_are_of_their_verb_and_understood(verb):
    assert len({*EXAMPLES[verb]}) == 3
    for example in EXAMPLES[verb]:
        assert not verb or example.startswith(verb)
        if "--help" not in example:
            parse(without_own_flags(shlex.split(example))[1])


def test_every_example_is_of_a_verb_that_there_is():
    assert EXAMPLES.keys() == ALL.keys()


def test_every_verb_stands_in_its_group(capsys):
    text = printed(capsys, "--help")
    places = [text.index(f"  {group} ") for group in VERBS]
    assert places == sorted(places)
    for name, command in get_command(app).commands.items():
        assert command.rich_help_panel in VERBS, name
        assert f" {name} " in text


def test_rare_flags_are_named_in_help_and_described_by_help_all(capsys):
    short, whole = printed(capsys, "run", "--help"), printed(capsys, "run", "--help-all")
    assert "--cache-size" in short
    assert "Gigabytes that it may come to" not in short
    assert f"{RARE}:" in whole
    assert "Gigabytes that it may come to" in whole
    for one in ALL["run"].params:
        assert not one.opts[0].startswith("--") or one.opts[0] in short.replace("-\n  ", "-"), one.opts


@pytest.mark.parametrize(("asked", "meant"), [
    (["chekc"], "check"), (["list", "reducrs"], "reducers"), (["train", "dtme"], "dtem"),
    (["list", "recipes", "dtme"], "dtem"), (["plan", "--reducers", "tomme"], "tome"),
    (["plan", "--task", "scenes-captoin"], "scenes-caption"), (["plan", "--model", "scenes_vti"], "scenes_vit"),
    (["tables", "dtem-"], "dtem-5"), (["predict", "--gpu", "h10"], "h100"), (["run", "--rate", "r=3"], "--rates"),
    (["check", "tomme", "--against", "evit"], "tome"), (["plan", "--runtime", "eagre"], "eager"),
])  # fmt: skip
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(asked, meant, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(asked)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert meant in said.partition("mean")[2] or meant in said.partition("Possible options")[2], said


def test_the_shell_completes_verbs_of_the_installed_program():
    code = "import sys; sys.argv[0] = 'reducerbench'; from suite.cli.app import main; main(['--help'])"
    asked = {"_REDUCERBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "reducerbench br", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.split() == ["break-even"], done.stderr
