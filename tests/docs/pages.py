"""The pages that users read, and the commands in them.

A command stands in a block of ```sh, or in a line of ```yaml. A block that is not to be run has a line before it,
`<!-- not run: why -->`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from suite.cli.app import app, without_own_flags

ROOT = Path(__file__).parents[2]
PROGRAM = "run_bench.py"
BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Command:
    """line: as it stands on the page, in one line and without its comment. why: it is not run; "" if it is."""

    page: str
    line: str
    why: str

    @property
    def arguments(self) -> str:
        """What the program is given."""
        return self.line.partition(PROGRAM)[2].strip()

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


@dataclass(frozen=True)
class Page:
    file: Path

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")

    def blocks(self, kind: str) -> list[str]:
        return [found["text"] for found in BLOCK.finditer(self.text) if found["kind"] == kind]

    def commands(self) -> list[Command]:
        """In their order, those of configurations of CI among them, which nobody runs here."""
        found = []
        for block in BLOCK.finditer(self.text):
            if block["kind"] == "sh":
                lines = block["text"].replace("\\\n", " ").splitlines()
                told = [" ".join(shlex.quote(part) for part in shlex.split(line, comments=True)) for line in lines]
                found += [Command(self.name, line, block["why"] or "") for line in told if line]
            elif block["kind"] == "yaml":
                told = [line.partition("- run: ")[2] or line.strip(" -") for line in block["text"].splitlines()]
                found += [Command(self.name, line, "a step of CI") for line in told if PROGRAM in line]
        return found


def parse(arguments: list[str]) -> Any:
    """The context of the verb that the arguments end in. click's usage errors pass through."""
    command, context = get_command(app), None
    _, arguments = without_own_flags(arguments)
    while True:
        context = command.make_context(command.name, list(arguments), parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not hasattr(command, "resolve_command") or not rest:
            return context
        _, command, arguments = command.resolve_command(context, rest)


README = Page(ROOT / "README.md")
PAGES = [README, *(Page(file) for file in sorted((ROOT / "docs").glob("*.md")))]
SAID = [command for page in PAGES for command in page.commands()]
COMMANDS = [command for command in SAID if PROGRAM in command.line]
