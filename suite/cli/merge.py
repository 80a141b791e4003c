"""The verb `merge`: runs and measurements of several machines or people become one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.cli.console import say
from suite.cli.values import parse_names
from suite.errors import RequestError

if TYPE_CHECKING:
    from suite.store.merging.runs import Further, Merged


def merge_command(
    parts: Annotated[list[Path], typer.Argument(help="Folders of runs, and files that `gpu` has written.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    allow_different: Annotated[str, typer.Option(help="What may differ: device,tf32,torch,timm,task_options.")] = "",
    prefer: Annotated[Path | None, typer.Option(help="The run whose cell is taken where two differ.")] = None,
) -> None:
    """Make one run of several: of one model on the same samples, wherever its cells were made. Or one study of several.

    A cell of several runs has to have the same outcomes in all; batches complete each other. Speeds on different
    devices stay apart. Files of `gpu` add theirs to the cells of runs; without a run, those of one GPU become one file.
    """
    from suite.store.merging.folders import merge_folders

    if len({part.resolve() for part in parts}) < max(len(parts), 2):
        raise RequestError("give two or more folders or files, each once, such as: merge A B --out C")
    files, runs = ([part for part in parts if part.is_file() == wanted] for wanted in (True, False))
    allowed = parse_names(allow_different)
    if not runs:
        merge_files(files, out, allowed, prefer)
        return
    for run, merged in merge_folders(runs, out, allowed, prefer, read_speeds(files)).items():
        say(f"{run}: {len(merged.cells)} cells")
        for line in describe(merged):
            say(line)
    say(f"draw what there is with: report {out}")


def merge_files(files: list[Path], out: Path, allowed: list[str], prefer: Path | None) -> None:
    from suite.analyse.gpu.merge import merge_sessions
    from suite.store.merging.runs import new_folder

    if prefer is not None:
        raise RequestError(f"--prefer {str(prefer)!r} is of runs, and there is none; leave it out")
    with new_folder(out) as made:
        joined = merge_sessions(files, made, allowed)
    for name, sessions in joined:
        say(f"{sessions} of the files are one now; show it with: gpu --show {out / name}")


def read_speeds(files: list[Path]) -> list[Further]:
    if not files:  # what reads them imports torch
        return []
    from suite.analyse.gpu.merge import speeds_from
    from suite.analyse.gpu.session import read_session

    return [speeds_from(read_session(file)) for file in files]


def describe(merged: Merged) -> list[str]:
    """What the user must know."""
    lines = []
    if merged.joined:
        lines.append(f"outcomes of several runs complete each other in: {', '.join(merged.joined)}")
    if merged.unscored:
        lines.append(f"complete now, and scored when the run is continued: {', '.join(merged.unscored)}")
    if merged.apart:
        lines.append(
            f"tables show speeds on {merged.device}; those on {', '.join(merged.apart)} are in speed.md, apart"
        )
    return lines
