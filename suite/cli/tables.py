"""The verb `tables`: published tables, measured again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reports.tables.console import fields_of
from suite.cli.console import print_fitted, print_table
from suite.cli.ending import ExitCode
from suite.cli.values import parse_files
from suite.errors import RequestError, unknown

if TYPE_CHECKING:
    from suite.papers.measured_table import Found

Name = Annotated[str | None, typer.Argument(help="Which table; without a name, all are listed.")]


def tables_command(
    name: Name = None,
    flops_only: Annotated[
        bool, typer.Option("--flops-only", help="Costs alone: takes no weights and no data.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Folder, zip or tar of the table's data set.")] = None,
    limit: Annotated[int | None, typer.Option(help="Samples, evenly spaced over the data. [all]")] = None,
    checkpoint: Annotated[list[str] | None, typer.Option(help="MODEL=FILE, repeatable. [pretrained]")] = None,
    reducer_weights: Annotated[list[str] | None, typer.Option(help="NAME=FILE: what a method learned.")] = None,
    plans: Annotated[str | None, typer.Option(help="DiffRate's compression_rate.json.")] = None,
    from_run: Annotated[
        list[str] | None, typer.Option("--from", help="Folder of a run that is stored, repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs, one a model. [results/tables/NAME]")] = None,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure im/s as well.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Images in a batch. [64]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto. [auto]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16. [fp32]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images.")] = None,
    format: Annotated[str | None, typer.Option(help="md, latex, csv or html. [a table for the terminal]")] = None,
    claims: Annotated[
        str | None, typer.Option(help="METHOD: what it claims, what others measured, what --from holds.")
    ] = None,
) -> None:
    """A paper's table, published figures beside measured ones: what is stored is used, what is missing is run.

    Without --data nothing is run: what --out and --from hold is shown beside costs, which are counted from shapes.
    """
    from reports.tables.papers import FORMATS

    if format is not None and format not in FORMATS:
        raise RequestError(f"--format {format!r} is not known; use {', '.join(FORMATS)}")
    if claims is not None:
        if name is not None or format not in (None, "md"):
            raise RequestError("--claims is of all tables, in the terminal or as --format md; leave the rest out")
        show_claims(claims, from_run or (), markdown=format == "md")
        return
    if name is None:
        list_tables()
        return
    given = {"data": data, "limit": limit, "batch_size": batch_size, "device": device, "precision": precision}
    values = {
        **given,
        "workers": workers,
        "speed": speed,
        "reducer_weights": parse_files(reducer_weights, "--reducer-weights"),
    }
    refused_with_flops_only(flops_only, {**values, "checkpoint": checkpoint, "from": from_run, "out": out})
    frame, refused = measured_table(
        name, values, flops_only, parse_files(checkpoint, "--checkpoint"), plans, from_run or (), out
    )
    show(frame, format)
    raise typer.Exit(ExitCode.FAILED if refused else ExitCode.DONE)


def refused_with_flops_only(flops_only: bool, given: dict[str, Any]) -> None:
    odd = [f"--{name.replace('_', '-')}" for name, value in given.items() if flops_only and value]
    if odd:
        raise RequestError(
            f"--flops-only runs nothing and reads no run, so {', '.join(odd)} has no meaning; leave one out"
        )


def measured_table(
    name: str,
    values: dict[str, Any],
    flops_only: bool,
    checkpoints: dict[str, str],
    plans: str | None,
    stored: Sequence[str],
    out: Path | None,
) -> tuple[Any, dict[str, str]]:
    """The table's frame, and the models that could not be run with why."""
    from suite.papers import paper_table
    from suite.papers.measured_table import count_lines, lines_of, read_plans, table_frame
    from suite.papers.runs import find, measure, read_run, stored_in
    from suite.sweep.progress import Progress

    table, progress = paper_table(name), Progress()
    lines = lines_of(table, read_plans(plans) if plans else None)
    ways = [line.way for line in lines if line.way]
    check_names("model of this table", checkpoints, {way.model for way in ways})
    check_names("method of this table", values["reducer_weights"], {way.reducer for way in ways})
    cells: list[Found] = []
    refused: dict[str, str] = {}
    if not flops_only:
        folder = out or Path("results") / "tables" / table.name
        cells = [cell for run in stored for cell in read_run(run)]
        missing = [line for line in lines if find(line, cells, table.task) is None]
        if values["data"]:
            ran, refused = measure(missing, {**values, "task": table.task}, folder, checkpoints, progress)
            cells += ran
        else:
            cells += stored_in(folder)
        if not cells and not refused:
            raise RequestError(
                f"nothing is stored of {table.name} in {folder}; give --data to measure it, --from RUN, or --flops-only"
            )
    found = [find(line, cells, table.task) for line in lines]
    frame = table_frame(table, lines, count_lines(lines, table.convention, progress), found, refused)
    frame.attrs["flops_only"] = flops_only
    return frame, refused


def check_names(kind: str, given: Iterable[str], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise unknown(kind, name, known)


def show(frame: Any, format: str | None) -> None:
    from reports.tables.papers import console_tables, render

    if format is None:
        print_fitted(*console_tables(frame))
    else:
        sys.stdout.write(render(frame, format))


def list_tables() -> None:
    from suite.papers import paper_tables

    lines = []
    for table in paper_tables().values():
        if table.absent:
            rows = ways = len(table.unprinted)
            figures = "cannot be read"
        else:
            printed = table.rows()
            rows, ways = len(printed), sum(not isinstance(table.way(row), str) for row in printed)
            figures = "published" if all(row.primary for row in printed) else "read elsewhere"
        lines.append([table.name, table.title, str(rows), str(ways), figures])
    print_table(fields_of(("Name", "Table", "Rows", "Measurable", "Figures"), lines))


def show_claims(reducer: str, stored: Sequence[str], markdown: bool) -> None:

    from reports.text.markup import markdown_row, markdown_rule
    from suite.papers.claims import claims_of
    from suite.papers.claims_table import HEADERS, NOTE, claim_rows
    from suite.papers.runs import read_run

    rows = claim_rows(claims_of(reducer, [cell for run in stored for cell in read_run(run)]))
    title = f"{reducer}: claimed, measured by others, measured here (top-1, %)"
    if not markdown:
        print_table(fields_of(HEADERS, rows, 2), title=title, notes=(NOTE,))
        return
    rule = markdown_rule([place > 1 for place in range(len(HEADERS))])
    sys.stdout.write(
        "\n".join([f"### {title}", "", markdown_row(HEADERS), rule, *map(markdown_row, rows), "", NOTE, ""])
    )
