"""The verbs of run_bench.py: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reports.tables.console import fields_of
from suite.cli.analyse import analysing
from suite.cli.console import print_fitted, print_table, say, warn
from suite.cli.ending import ExitCode, outcome_of
from suite.cli.export import export_command
from suite.cli.fetch import fetch_command
from suite.cli.flags import FLOOR_MODELS, MODELS, asked, with_flags
from suite.cli.gate import baselines, check_command, compare_command
from suite.cli.gpu import gpu_command
from suite.cli.latency import latency_command
from suite.cli.listing import listing
from suite.cli.merge import merge_command
from suite.cli.pareto import break_even_command, pareto_command
from suite.cli.predict import predict_command
from suite.cli.quantised import int8_command
from suite.cli.score import score_command
from suite.cli.tables import tables_command
from suite.cli.train import EXTRA, train_command
from suite.cli.view import viewing
from suite.contract.plugins import LEFT_OUT
from suite.contract.printable import printable
from suite.errors import RequestError
from suite.measure.heap import keep_freed_memory

if TYPE_CHECKING:
    from click import ClickException

# the base class of usage errors; recent releases of typer carry their own click
UsageError: type[ClickException] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
app = typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(listing, name="list")
app.add_typer(viewing, name="view")


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Benchmark of token reduction in Vision Transformers: accuracy, FLOPs and speed of every reducer at every rate.

    Without a verb: the embedded default, a cross-section of methods on embedded pictures. --debug shows tracebacks.
    """
    if context.invoked_subcommand is None:
        execute({})


@app.command("run")
@with_flags(
    models=MODELS,
    floor_models=FLOOR_MODELS,
    track=Annotated[str | None, typer.Option(help="Copies to: tensorboard, mlflow, wandb; a,b for several.")],
)
def run_command(config: Path | None = None, track: str | None = None, **flags: Any) -> None:
    """Run a sweep, or continue it: what is stored already is not run again.

    Several models: --models; each is a run in a folder of its own below --out, with one report of all in OUT/report.
    """
    execute(asked(config, flags), track or ())


def execute(values: dict[str, Any], track: str | tuple[str, ...] = ()) -> None:
    from suite.api import run
    from suite.sweep.launch import launched

    results = run(values, track=track)
    if launched().rank:  # the first process of torchrun's speaks for all
        raise typer.Exit(ExitCode.DONE)
    show(results.out)
    failed = results.failed
    for reason in failed:
        warn(f"failed: {reason}", style="red")
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.DONE)


def show(out: Path) -> list[str]:
    """Print the table of a run, or of several, and say where its files are; returns what of it is damaged."""
    from reports.dominance import mark_dominated
    from reports.frame import load_frame
    from reports.groups import by_task
    from reports.tables.results import console_table
    from reports.tables.speeds import speeds_table

    frame = mark_dominated(load_frame(out))
    for part in by_task(frame):
        print_fitted(console_table(part))
        if (speeds := speeds_table(part)) is not None:
            print_fitted(speeds)
    page = out / "report" / "index.html"
    written = f"page, tables and plots: {page}" if page.is_file() else f"tables: {page.parent}"
    say(written)
    return frame.attrs["damaged"]


@app.command("plan")
@with_flags(models=MODELS, floor_models=FLOOR_MODELS)
def plan_command(config: Path | None = None, **flags: Any) -> None:
    """Show the cells of a sweep, what is stored of them, and what the rest will take; runs nothing."""
    from suite.sweep.executors import open_executor
    from suite.sweep.forecast import list_left, seconds_of
    from suite.sweep.progress import Progress
    from suite.sweep.study import make_plans, make_study

    study = make_study(asked(config, flags))
    with open_executor(study.spec, Progress()) as executor:
        plans = make_plans(study, executor.kind)
        left = {name: list_left(plan) for name, plan in plans.by_name.items()}
        todo = [name for name, rows in left.items() if any(row.images for row in rows)]
        paces = {name: executor.paces(plans.by_name[name]) for name in todo}
    spent = 0.0
    for name, plan in plans.by_name.items():
        rows, seconds = left[name], seconds_of(left[name], paces.get(name, ()))
        lines = [[row.reducer, row.rate or "–", row.state, str(row.images)] for row in rows]
        headers = ("Reducer", "Rate", "State", "Images to do")
        print_table(fields_of(headers, lines, names=2), title=f"{plan.spec.task} / {plan.spec.model}")
        spent += seconds
        if study.several:
            say(f"{len(rows)} cells into {plan.spec.out}, about {seconds:.0f} s of evaluation")
    for line in (*plans.notes, *(f"left out: {line}" for line in plans.skipped)):
        say(line)
    for name, why in plans.failed.items():
        warn(f"failed: {name}: {why}", style="red")
    where = "this machine"
    if executor.kind and paces:
        workers = max(map(len, paces.values()))
        unit = "GPU hours" if executor.kind == "cuda" else "hours of a worker"
        where = f"{workers} workers, {spent * workers / 3600:.2f} {unit}"
    say(f"{len(plans.cells)} cells into {study.out}, about {spent:.0f} s of evaluation on {where}")
    raise typer.Exit(ExitCode.FAILED if plans.failed else ExitCode.DONE)


@app.command("report")
def report_command(out: Annotated[Path, typer.Argument(help="Folder of a run, or of several.")]) -> None:
    """Write page, tables and plots of a run again; thumbnails and token groups need the run's data and model."""
    from reports.write import write_report
    from suite.pictures.exhibits import make_exhibits
    from suite.store.study import failures_in, runs_in

    for run in runs_in(out):
        make_exhibits(run)  # what it cannot make, the page names
        if run != out:
            write_report(run)
    _, notes = write_report(out)
    damaged = show(out)
    for name, why in failures_in(out).items():
        warn(f"failed: {name}: {why}", style="red")
    for note in [*notes, *damaged]:
        warn(note)
    raise typer.Exit(ExitCode.BAD_REQUEST if damaged else ExitCode.DONE)


@app.command("doctor")
def doctor_command() -> None:
    """Say what works here: device, packages, weights, Java, and what to install where something is missing."""
    from suite.cli.doctor import diagnose

    findings = list(diagnose())
    print_table(fields_of(("Item", "State", "Detail"), [[found.item, found.state, found.detail] for found in findings]))
    for found in findings:
        if found.command:  # a table would break it into pieces
            say(f"for {found.item}:\n{found.command}")


app.command("train", context_settings=EXTRA)(train_command)
app.add_typer(analysing, name="analyse")
app.command("tables")(tables_command)
app.command("pareto")(pareto_command)
app.command("break-even")(break_even_command)
app.command("predict")(predict_command)
app.command("gpu")(gpu_command)
app.command("score")(score_command)
app.command("export")(export_command)
app.command("latency")(latency_command)
app.command("int8")(int8_command)
app.command("merge")(merge_command)
app.command("fetch")(fetch_command)
app.command("compare")(compare_command)
app.command("check")(check_command)
app.add_typer(baselines, name="baseline")


def main(arguments: list[str] | None = None) -> None:
    """Run a verb and exit; see `suite.cli.program`, which calls it."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    keep_freed_memory()
    code, said = outcome_of(lambda: _run([argument for argument in arguments if argument != "--debug"]), debug)
    if said:
        print(printable(said), file=sys.stderr)
    for _, _, fault in LEFT_OUT:
        if fault not in said:
            print(printable(f"warning: {fault}"), file=sys.stderr)
    sys.exit(code)


def _run(arguments: list[str]) -> int | None:
    """What a verb comes to. RequestError and KeyboardInterrupt for what typer has words of its own for."""
    try:
        code: int | None = app(args=arguments, prog_name="run_bench.py", standalone_mode=False)
    except UsageError as error:
        raise RequestError(error.format_message()) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    if code == ExitCode.INTERRUPTED:  # as recent releases of typer return it
        raise KeyboardInterrupt
    return code
