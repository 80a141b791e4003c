"""The verbs `compare`, `check` and `baseline`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reports.tables.console import fields_of
from suite.cli.console import err_console, print_lines, print_table, say, warn
from suite.cli.flags import FLAGS, asked, option, rarely
from suite.cli.help import RARE, Verb
from suite.cli.values import parse_names

if TYPE_CHECKING:
    from suite.gate.report import Report

FREQUENT = ("task", "data", "model", "limit", "flops", "device", "out")
"""Flags of `run` that `check --help` describes."""
NEW = Annotated[str, typer.Argument(help="NAME, FILE.py:Name, RUN, RUN:METHOD or BASELINE.")]
AGAINST = Annotated[str, typer.Option(help="The same; a method is run.")]
MARGIN = Annotated[float | None, typer.Option(help="Points it may lose. [0.5 of top-1, else 1 %]")]
ALPHA = Annotated[float, option(RARE, "Probability of a wrong verdict.")]
MOST = Annotated[int | None, typer.Option("--max-samples", help="Samples at the last look. [16,000, or all data]")]
TOLERANCE = Annotated[float, option(RARE, "Percent by which compared costs may differ.")]
ALLOW = Annotated[
    str, option(RARE, "What may differ: data, model, weights, precision, image-size, protocol, by commas.")
]
CONTRACT = Annotated[bool, typer.Option("--contract/--no-contract", help="Prove NEW by the contract tests first.")]
MARKDOWN = Annotated[Path | None, typer.Option(help="Add a summary: $GITHUB_STEP_SUMMARY.")]
JUNIT = Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")]
BASELINES = Annotated[Path, option(RARE, "Folder of the baselines.")]

baselines = typer.Typer(help="Small files of a run's outcomes to check against.", no_args_is_help=True)


def compare_command(
    a: Annotated[str, typer.Argument(metavar="A", help="RUN, RUN:METHOD, 'RUN:METHOD RATE', RUN#KEY or BASELINE.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    alpha: ALPHA = 0.05,
    allow_different: ALLOW = "",
    markdown: MARKDOWN = None,
    folder: BASELINES = Path("baselines"),
) -> None:
    """Compare two runs or cells on the same samples: A − B in every metric, with p-values and what could be seen.

    It describes, and `check` judges. Exit codes: 0 however much they differ, 4 where nothing could be compared.
    """
    from suite.gate.compare import compare
    from suite.gate.verdict import CANNOT_TELL, EXIT

    report = compare(a, b, parse_names(allow_different), alpha, folder)
    show(report)
    write(report, markdown, None)
    if not report.samples:
        raise typer.Exit(EXIT[CANNOT_TELL])


def check_command(
    new: str,
    *,
    against: str,
    margin: float | None = None,
    alpha: float = 0.05,
    tolerance: float = 2.0,
    max_samples: int | None = None,
    allow_different: str = "",
    contract: bool = True,
    markdown: Path | None = None,
    junit: Path | None = None,
    folder: Path = Path("baselines"),
    **flags: Any,
) -> None:
    """Is NEW as good as BASE at the same FLOPs? Exit codes: 0 pass, 3 regressed, 4 cannot tell, 5 disputed cost.

    Methods are run on more and more samples until it can be told.
    """
    from suite.gate.check import check
    from suite.gate.render import headline, reasons
    from suite.gate.verdict import EXIT, REGRESSED
    from suite.sweep.progress import Progress

    report = check(
        new, against, asked(None, flags), margin=margin, alpha=alpha, tolerance=tolerance / 100,
        allowed=parse_names(allow_different), contract=contract, most=max_samples, folder=folder,
        progress=Progress(err_console),
    )  # fmt: skip
    show(report)
    for line in reasons(report):
        say(line)
    say(headline(report), style="red" if report.verdict == REGRESSED else "bold")
    write(report, markdown, junit)
    raise typer.Exit(EXIT[report.verdict])


OWN = {
    "margin": MARGIN, "alpha": ALPHA, "tolerance": TOLERANCE, "max_samples": MOST, "allow_different": ALLOW,
    "contract": CONTRACT,
    "markdown": MARKDOWN, "junit": JUNIT, "folder": BASELINES,
}  # fmt: skip


SAID = ("reducers", "reducer_file")  # by NEW and --against


def with_own_flags(command: Any) -> Any:
    """Gives `check_command` the flags of a run behind its own."""
    own = inspect.signature(command).parameters
    required = [own["new"].replace(annotation=NEW), own["against"].replace(annotation=AGAINST)]
    mine = [own[name].replace(annotation=annotation) for name, annotation in OWN.items()]
    theirs = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=annotation if name in FREQUENT else rarely(annotation),
        )
        for name, annotation in FLAGS.items()
        if name not in SAID
    ]
    command.__signature__ = inspect.Signature([*required, *mine, *theirs])
    command.__annotations__ = {name: p.annotation for name, p in command.__signature__.parameters.items()}
    return command


check_command = with_own_flags(check_command)


@baselines.command("save", cls=Verb)
def save_command(
    name: Annotated[str, typer.Argument(help="NAME, for baselines/NAME.parquet, or a file.")],
    source: Annotated[str, typer.Argument(metavar="RUN", help="RUN, RUN:METHOD or 'RUN:METHOD RATE'.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an older one.")] = False,
    folder: BASELINES = Path("baselines"),
) -> None:
    """Save a run's finished cells as a small file that can be committed."""
    from suite.gate.baseline import baseline_path, save_baseline
    from suite.gate.select import load_side

    path = baseline_path(name, folder)
    written, left_out = save_baseline(load_side(source, folder), path, force)
    for entry in left_out:
        warn(f"left out: {entry.label} is {entry.status}: {entry.reason or 'not finished'}")
    say(f"baseline: {path}, {len(written)} cells, {path.stat().st_size / 1024:.0f} KiB")


@baselines.command("list", cls=Verb)
def list_command(folder: BASELINES = Path("baselines")) -> None:
    """Baselines, one a line."""
    from suite.errors import RequestError
    from suite.gate.baseline import list_baselines, read_baseline

    rows = []
    for path in list_baselines(folder):
        try:
            side = read_baseline(path, path.stem)
            about = f"{side.identity['task']}, {side.identity['model']}, {', '.join(side.methods)}"
        except RequestError as error:
            about = str(error)
        rows.append((path.stem, about))
    print_lines(("baseline", "about"), rows, lambda name, about: f"{name}: {about}")


@baselines.command("show", cls=Verb)
def show_command(
    name: Annotated[str, typer.Argument(help="Name or file.")], folder: BASELINES = Path("baselines")
) -> None:
    """What a baseline holds, and what a run has to share with it."""
    from reports.text.wording import gflops, percent
    from suite.gate.baseline import baseline_path, read_baseline

    side = read_baseline(baseline_path(name, folder), name)
    lines = [
        [entry.method, entry.rate or "–", entry.resolved_rate or "–", gflops(entry.gmacs),
         percent(entry.reduction, signed=True)]
        for entry in side.entries
    ]  # fmt: skip
    print_table(fields_of(("Method", "Rate", "Came to", "GFLOPs", "FLOPs (%)"), lines, names=2, words=3))
    for key, value in side.identity.items():
        say(f"{key}: {value}")


def show(report: Report) -> None:
    """Print a comparison and how to read it."""
    from reports.tables.console import spare
    from suite.gate.records import records_of
    from suite.gate.render import SPARE, notes, table, title

    if report.rows:
        headers, *lines = table(report)
        more = "; a wider terminal or --markdown FILE shows all"
        print_table(
            fields_of(headers, lines, names=2, words=2, whole=True),
            spare(SPARE),
            title=title(report),
            elsewhere=more,
            numbers=records_of(report),
        )
    for note in notes(report):
        say(note)


def write(report: Report, markdown: Path | None, junit: Path | None) -> None:
    from suite.errors import RequestError
    from suite.gate import junit as xml
    from suite.gate import render

    try:
        if markdown:
            with markdown.open("a", encoding="utf-8") as file:
                file.write(render.markdown(report))
        if junit:
            junit.write_text(xml.junit(report), encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be written: {error.strerror}") from error
