"""How `--help` looks: verbs and flags in groups, rare flags by name alone, three examples; it fits a screen.

`--help-all` describes the rare ones, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperCommand, TyperGroup

from suite.cli.examples import EXAMPLES

MEASURE, LOOK, JUDGE, TRAIN, KNOW = "Measure", "Look", "Judge", "Train", "Know"
VERBS = (MEASURE, LOOK, JUDGE, TRAIN, KNOW)
"""Groups of verbs, as they stand in --help."""
RARE = "Rare"


class Shown:
    """all: rare flags are described, which `--help-all` asks for."""

    all = False


class Verb(TyperCommand):  # its context and formatter are click's, or of the click that typer carries
    """A command whose flags stand in groups (`rich_help_panel`)."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_flags(self, ctx, formatter)
        write_examples(ctx, formatter)


class Verbs(TyperGroup):
    """A command of commands, in groups if they say which."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_flags(self, ctx, formatter)
        names = [name for name in self.list_commands(ctx) if not self.commands[name].hidden]
        groups = {name: str(getattr(self.commands[name], "rich_help_panel", None) or "") for name in names}
        order = [*VERBS, *(group for group in groups.values() if group not in VERBS)]
        names.sort(key=lambda name: order.index(groups[name]))
        first = {groups[name]: name for name in reversed(names)}
        room = formatter.width - max(map(len, names), default=0) - max(map(len, first), default=0) - 8
        formatter.write_paragraph()
        with headed(formatter, "Verbs"):
            for name in names:
                group = groups[name] if first[groups[name]] == name else ""
                lead = f"{group:{max(map(len, first))}}  " if any(first) else ""
                about = self.commands[name].get_short_help_str(room)
                formatter.write(f"  {lead}{name:{max(map(len, names))}}  {about}\n")
        write_examples(ctx, formatter)


def write_flags(command: Any, ctx: Any, formatter: Any) -> None:
    """Arguments and flags by their group; those of shell completion are told by `write_examples`."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for one in command.params:
        record = one.get_help_record(ctx)
        if record is None or "completion" in (one.name or ""):
            continue
        group = str(getattr(one, "rich_help_panel", None) or "Flags")
        groups.setdefault(group, []).append((without_type(record[0]), record[1]))
    rare = groups.pop(RARE, [])
    if groups:
        formatter.write_paragraph()
    for group, rows in groups.items():
        with headed(formatter, group):
            formatter.write_dl(rows)
    if rare and Shown.all:
        with headed(formatter, RARE):
            formatter.write_dl(rare)
    elif rare:
        with headed(formatter, f"{RARE} (described by --help-all)"):
            formatter.write_text(" ".join(re.split(r",| / ", name)[0] for name, _ in rare))


@contextmanager
def headed(formatter: Any, heading: str) -> Iterator[None]:
    """A section without an empty line before it."""
    formatter.write_heading(heading)
    formatter.indent()
    yield
    formatter.dedent()


def without_type(names: str) -> str:
    """'--limit <int>' or '--limit INTEGER' -> '--limit': descriptions say what a flag takes."""
    return re.sub(r"( <[^>]+>| \[?[A-Z][A-Z|]+\]?)(?=$|,| /)", "", names)


def write_examples(ctx: Any, formatter: Any) -> None:
    """And, in the first command's help, what is true of all."""
    program, *verbs = ctx.command_path.split()
    formatter.write_paragraph()
    with headed(formatter, "Examples"):
        for line in EXAMPLES.get(" ".join(verbs), ()):
            formatter.write(f"  {program} {line}".rstrip() + "\n")
    if verbs:
        formatter.write(f"\nAlso: --json, --debug, --help-all; see {program} --help\n")
        return
    with headed(formatter, "With every verb"):
        formatter.write_dl([
            ("--json", "Print for programs."),
            ("--debug", "Show tracebacks."),
            ("--help-all", "Describe rare flags, too."),
            ("NO_COLOR=1", "No colours; none go into files and pipes either."),
        ])  # fmt: skip
    formatter.write("Your shell completes verbs and flags after: reducerbench --install-completion\n")
