"""The verbs of run_bench.py: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reports.tables.console import fields_of
from suite.cli.analyse import analysing
from suite.cli.console import Document, Kept, print_fitted, print_table, say, warn
from suite.cli.ending import ExitCode, outcome_of
from suite.cli.export import export_command
from suite.cli.fetch import fetch_command
from suite.cli.flags import FLOOR_MODELS, FLOOR_SIDES, MODELS, asked, option, with_flags
from suite.cli.gate import baselines, check_command, compare_command
from suite.cli.gpu import gpu_command
from suite.cli.help import JUDGE, KNOW, LOOK, MEASURE, RARE, TRAIN, Shown, Verb, Verbs
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
from suite.cli.watch import watch_command
from suite.contract.plugins import LEFT_OUT
from suite.contract.printable import printable
from suite.contract.program import PROGRAM
from suite.errors import RequestError
from suite.measure.heap import keep_freed_memory

if TYPE_CHECKING:
    from click import ClickException

# the base class of usage errors; recent releases of typer carry their own click
UsageError: type[ClickException] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
CALLED = "reducerbench" if Path(sys.argv[0]).stem == "reducerbench" else PROGRAM.split()[-1]
app = typer.Typer(cls=Verbs, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", hidden=True)] = False,
) -> None:
    """Benchmark of token reduction in Vision Transformers: scores, FLOPs, speed.
    Without a verb: the embedded default; with --quick, at half of its costs.
    """
    if context.invoked_subcommand is None:
        execute(quick_values() if quick else {})
    elif quick:
        raise RequestError(f"--quick is of the embedded default; leave it out, or {context.invoked_subcommand!r}")


def quick_values() -> dict[str, Any]:
    """What `--quick` asks for; says what it leaves out."""
    from suite.sweep.spec import DEFAULT_FLOPS, QUICK_FLOPS

    left_out = ", ".join(target.amount for target in DEFAULT_FLOPS if target not in QUICK_FLOPS)
    say(
        f"--quick: all methods on all samples, without FLOPs {left_out}, and without launches and bytes, which "
        f"'{PROGRAM}' adds to the same run"
    )
    return {"flops": [target.amount for target in QUICK_FLOPS], "kernels": False}


@with_flags(
    models=MODELS,
    floor_models=FLOOR_MODELS,
    floor_sides=FLOOR_SIDES,
    track=Annotated[str | None, option(RARE, "Copies to: tensorboard, mlflow, wandb; a,b for several.")],
)
def run_command(config: Path | None = None, track: str | None = None, **flags: Any) -> None:
    """Run a sweep, or continue it: what is stored already is not run again.

    Several models: --models; each is a run in a folder of its own below --out, with one report of all in OUT/report.
    """
    execute(asked(config, flags), track or ())


def execute(values: dict[str, Any], track: str | tuple[str, ...] = ()) -> None:
    from suite.api import run
    from suite.sweep.launch import launched

    results = run(values, track=track, preview=show_scores)
    if launched().rank:  # the first process of torchrun's speaks for all
        raise typer.Exit(ExitCode.DONE)
    show(results.out)
    failed, unfinished = results.failed, results.unfinished
    for reason in failed:
        warn(f"failed: {reason}", style="red")
    for reason in unfinished:
        warn(f"not complete, somebody removed what was stored: {reason}; the same command completes it", style="red")
    raise typer.Exit(ExitCode.FAILED if failed or unfinished else ExitCode.DONE)


def show_scores(out: Path) -> None:
    """Print the table of a run whose times are still to come; programs wait for the whole."""
    if Kept.document is None:
        say("scores and costs; times follow:")
        show_table(out)


def show(out: Path) -> list[str]:
    """Print the table of a run, or of several, and say where its files are; returns what of it is damaged."""
    damaged, folder = show_table(out), out / "report"
    if not (folder / "table.md").is_file():
        warn(f"tables cannot be found, somebody removed {folder}; '{PROGRAM} report {out}' writes them again")
    elif (page := folder / "index.html").is_file():
        say(f"page, tables and plots: {page}")
    else:
        say(f"tables: {folder}")
    return damaged


def show_table(out: Path) -> list[str]:
    """Print it; returns what of it is damaged."""
    from reports.frame import load_frame
    from reports.groups import by_task
    from reports.marks.marked import marked
    from reports.tables.results import console_table
    from reports.tables.speeds import speeds_table

    frame = marked(load_frame(out))
    for part in by_task(frame):
        print_fitted(console_table(part))
        if (speeds := speeds_table(part)) is not None:
            print_fitted(speeds)
    return frame.attrs["damaged"]


@with_flags(models=MODELS, floor_models=FLOOR_MODELS, floor_sides=FLOOR_SIDES)
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


def doctor_command() -> None:
    """Say what works here: device, packages, weights, Java, and what to install where something is missing."""
    from suite.cli.doctor import diagnose

    findings = list(diagnose())
    print_table(fields_of(("Item", "State", "Detail"), [[found.item, found.state, found.detail] for found in findings]))
    for found in findings:
        if found.command:  # a table would break it into pieces
            say(f"for {found.item}:\n{found.command}")


for name, group, command, about in (
    ("run", MEASURE, run_command, "A sweep of methods and rates; goes on where it stopped."),
    ("plan", MEASURE, plan_command, "What a sweep will do and take; runs nothing."),
    ("merge", MEASURE, merge_command, "One run of several, of other machines or people."),
    ("score", MEASURE, score_command, "Captions that are there already."),
    ("predict", MEASURE, predict_command, "What pays on a GPU that is not here."),
    ("gpu", MEASURE, gpu_command, "Every method on the GPU that is here, in ten minutes."),
    ("break-even", MEASURE, break_even_command, "From which batch size on a method is faster."),
    ("latency", MEASURE, latency_command, "What a caller of a service waits for."),
    ("int8", MEASURE, int8_command, "Whether methods survive 8-bit integers."),
    ("export", MEASURE, export_command, "A reduced model as a file, checked."),
    ("report", LOOK, report_command, "Page, tables and plots of a run again."),
    ("watch", LOOK, watch_command, "A run that goes on, seen from another terminal."),
    ("pareto", LOOK, pareto_command, "Curves of one or several runs, drawn and compared."),
    ("tables", LOOK, tables_command, "A paper's table beside measured figures."),
    ("check", JUDGE, check_command, "Is it as good? Exit code 0, 3 regressed, 4 cannot tell."),
    ("compare", JUDGE, compare_command, "Two runs or cells, sample by sample."),
    ("doctor", KNOW, doctor_command, "What works here, and what to install."),
    ("fetch", KNOW, fetch_command, "What a score needs and is too large to come along."),
):
    app.command(name, cls=Verb, rich_help_panel=group, short_help=about)(command)
app.command("train", cls=Verb, rich_help_panel=TRAIN, short_help="What a method learns.", context_settings=EXTRA)(
    train_command
)
for name, group, verbs in (
    ("view", LOOK, viewing),
    ("baseline", JUDGE, baselines),
    ("analyse", TRAIN, analysing),
    ("list", KNOW, listing),
):
    app.add_typer(verbs, name=name, cls=Verbs, rich_help_panel=group)


def without_own_flags(arguments: list[str]) -> tuple[set[str], list[str]]:
    """The flags that every verb has, and the arguments without them, in which `--help-all` is `--help`."""
    own = {"--debug", "--help-all", "--json"}
    rest = [argument for argument in arguments if argument not in own]
    return own.intersection(arguments), [*rest, "--help"] if "--help-all" in arguments else rest


def main(arguments: list[str] | None = None) -> None:
    """Run a verb and exit; see `suite.cli.program`, which calls it."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    own, arguments = without_own_flags(arguments)
    debug, Shown.all = "--debug" in own, "--help-all" in own
    Kept.document = Document() if "--json" in own else None
    keep_freed_memory()
    code, said = outcome_of(lambda: _run(arguments), debug)
    if Kept.document is not None and code != ExitCode.BAD_REQUEST:
        print(Kept.document.text)
    if said:
        print(printable(said), file=sys.stderr)
    for _, _, fault in LEFT_OUT:
        if fault not in said:
            print(printable(f"warning: {fault}"), file=sys.stderr)
    sys.exit(code)


def _run(arguments: list[str]) -> int | None:
    """What a verb comes to. RequestError and KeyboardInterrupt for what typer has words of its own for."""
    try:
        code: int | None = app(args=arguments, prog_name=CALLED, standalone_mode=False)
    except UsageError as error:
        raise RequestError(error.format_message()) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    if code == ExitCode.INTERRUPTED:  # as recent releases of typer return it
        raise KeyboardInterrupt
    return code
