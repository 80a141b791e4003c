"""The verbs of run_bench.py: parse, call, print."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from suite.cli_analyse import analysing
from suite.cli_list import listing
from suite.cli_train import EXTRA, train_command
from suite.errors import RequestError
from suite.heap import keep_freed_memory

# the base class of usage errors; recent releases of typer carry their own click
UsageError = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
DONE, FAILED_CELLS, BAD_REQUEST, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130

app = typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(listing, name="list")
viewing = typer.Typer(help="Pictures of what a model makes of its tokens.", no_args_is_help=True)
app.add_typer(viewing, name="view")
out_console, err_console = Console(), Console(stderr=True)

Config = Annotated[Path | None, typer.Argument(help="YAML file with the same keys as the flags; flags override it.")]
FLAGS: dict[str, Any] = {
    "task": Annotated[str | None, typer.Option(help="Task: see `list tasks`. [scenes]")],
    "data": Annotated[str | None, typer.Option(help="Folder, zip or tar of the task's data.")],
    "model": Annotated[str | None, typer.Option(help="See `list models`. [the task's own]")],
    "checkpoint": Annotated[str | None, typer.Option(help="pretrained, none (random weights), or a local file.")],
    "reducers": Annotated[str | None, typer.Option(help="Names, NAME@FILE, wildcards, training-free. [eight of them]")],
    "rates": Annotated[str | None, typer.Option(help="r=13, r=16:-1, r=[16,8], keep=0.7, keep=0.7@3,6,9.")],
    "flops": Annotated[str | None, typer.Option(help="Changes of total FLOPs: --flops=-35%,-50%.")],
    "reducer_file": Annotated[list[str] | None, typer.Option(help="path/to/file.py:Name, beside --reducers.")],
    "reducer_weights": Annotated[list[str] | None, typer.Option(help="FILE or NAME=FILE: what a reducer learned.")],
    "reducer_option": Annotated[list[str] | None, typer.Option(help="NAME.OPTION=VALUE, repeatable.")],
    "task_option": Annotated[list[str] | None, typer.Option(help="OPTION=VALUE, repeatable.")],
    "limit": Annotated[int | None, typer.Option(help="Samples, evenly spaced over the data. [all]")],
    "batch_size": Annotated[int | None, typer.Option(help="Images in a batch. [64]")],
    "image_size": Annotated[int | None, typer.Option(help="Side in pixels. [the model's own]")],
    "device": Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto. [auto]")],
    "precision": Annotated[str | None, typer.Option(help="fp32, fp16 or bf16. [fp32]")],
    "workers": Annotated[int | None, typer.Option(help="Processes that decode images.")],
    "allow_missing": Annotated[int | None, typer.Option(help="Unreadable images to tolerate. [0]")],
    "speed": Annotated[bool | None, typer.Option("--speed/--no-speed", help="Measure im/s and memory. [speed]")],
    "speed_rounds": Annotated[int | None, typer.Option(help="Rounds that interleave all cells. [5]")],
    "compile": Annotated[bool | None, typer.Option("--compile/--eager", help="Time torch.compile'd models. [eager]")],
    "out": Annotated[str | None, typer.Option(help="Folder of the results. [results/TASK-MODEL]")],
}


def asked(config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Keys and values of a request: the YAML file's, overridden by the flags that were given."""
    from suite.spec import DEFAULT_REDUCERS, read_yaml, split_list

    values = {key.replace("-", "_"): value for key, value in (read_yaml(str(config)) if config else {}).items()}
    if isinstance(values.get("reducer_weights"), str):
        values["reducer_weights"] = {"": values["reducer_weights"]}
    for key in ("reducer_options", "task_options", "reducer_weights"):
        if not isinstance(values.get(key) or {}, dict):
            raise RequestError(f"{key}: {values[key]!r} in the configuration holds no keys; write NAME: VALUE below it")
    given = {key: value for key, value in flags.items() if value is not None}
    for flag, key, depth in (("reducer_option", "reducer_options", 2), ("task_option", "task_options", 1)):
        for text in given.pop(flag, None) or []:
            values[key] = values.get(key) or {}
            put_option(values[key], text, depth, flag)
    for text in given.pop("reducer_weights", None) or []:
        name, _, file = text.rpartition("=")
        values["reducer_weights"] = {**(values.get("reducer_weights") or {}), name: file}
    if files := given.pop("reducer_file", None):
        listed = given.get("reducers") or values.get("reducers") or DEFAULT_REDUCERS
        given["reducers"] = [*(split_list(listed) if isinstance(listed, str) else listed), *files]
    return {**values, **given}


def put_option(into: dict[str, Any], text: str, depth: int, flag: str) -> None:
    """'evit.fuse=false' into {'evit': {'fuse': False}}; with depth 1, 'key=value' into {'key': value}."""
    name, equals, value = text.partition("=")
    *path, last = name.rsplit(".", 1) if depth == 2 else [name]
    if not equals or not last or len(path) != depth - 1:
        wanted = "NAME.OPTION=VALUE" if depth == 2 else "OPTION=VALUE"
        raise RequestError(f"--{flag.replace('_', '-')} {text!r} cannot be read; write {wanted}")
    for part in path:
        into[part] = into.get(part) or {}
        into = into[part]
    try:
        into[last] = yaml.safe_load(value)
    except (yaml.YAMLError, TypeError) as error:
        raise RequestError(f"--{flag.replace('_', '-')} {text!r}: the value cannot be read") from error


def with_flags(**own: Any) -> Any:
    """Gives a command the flags of a run, and its own, so that commands cannot drift apart."""
    import inspect

    parameters = [inspect.Parameter("config", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Config)]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (FLAGS | own).items()
    ]

    def decorate(command: Any) -> Any:
        command.__signature__ = inspect.Signature(parameters)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Benchmark of token reduction in Vision Transformers: accuracy, FLOPs and speed of every reducer at every rate.

    Without a verb: the embedded default, a cross-section of methods on embedded pictures. --debug shows tracebacks.
    """
    if context.invoked_subcommand is None:
        execute({})


@app.command("run")
@with_flags()
def run_command(config: Path | None = None, **flags: Any) -> None:
    """Run a sweep, or continue it: what is stored already is not run again."""
    execute(asked(config, flags))


def execute(values: dict[str, Any]) -> None:
    from suite.sweep import run

    results = run(values)
    show(results.out)
    failed = results.failed
    for reason in failed:
        err_console.print(f"failed: {reason}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(FAILED_CELLS if failed else DONE)


def show(out: Path) -> None:
    """Print the table of a run and say where its files are."""
    from reports.frame import load_frame
    from reports.tables import console_table

    out_console.print(console_table(load_frame(out)))
    out_console.print(f"tables and plots: {out / 'report'}", highlight=False, markup=False, soft_wrap=True)


@app.command("plan")
@with_flags()
def plan_command(config: Path | None = None, **flags: Any) -> None:
    """Show the cells of a sweep, what is stored of them, and what the rest will take; runs nothing."""
    from suite.estimate import estimate
    from suite.plan import make_plan
    from suite.spec import make_spec

    plan = make_plan(make_spec(asked(config, flags)))
    rows, seconds = estimate(plan)
    table = Table("reducer", "rate", "state", "images to do", title=f"{plan.spec.task} / {plan.spec.model}")
    for row in rows:
        table.add_row(row.reducer, row.rate or "-", row.state, str(row.images))
    out_console.print(table)
    for line in plan.skipped:
        out_console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
    out_console.print(
        f"{len(rows)} cells into {plan.spec.out}, about {seconds:.0f} s of evaluation on this machine",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


@viewing.command("masks")
@with_flags(
    out=Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf. [masks.png]")],
    samples=Annotated[str | None, typer.Option(help="Ids, separated by commas. [the first two]")],
)
def view_masks_command(
    config: Path | None = None, out: Path | None = None, samples: str | None = None, **flags: Any
) -> None:
    """Image, truth, predictions without and with reduction, and token groups, side by side for chosen samples.

    Flags as for `run`; without rates, merge=0.5, and without reducers, tome.
    """
    from suite.mask_pictures import write_mask_pictures

    file = out or Path("masks.png")
    for line in write_mask_pictures(asked(config, flags), tuple(filter(None, (samples or "").split(","))), file):
        err_console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
    out_console.print(f"picture: {file}", highlight=False, markup=False, soft_wrap=True)


@app.command("report")
def report_command(out: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Write tables and plots of a run again, from its store alone."""
    from reports.write import write_report

    _, notes = write_report(out)
    show(out)
    for note in notes:
        err_console.print(note, highlight=False, markup=False, soft_wrap=True)


@app.command("doctor")
def doctor_command() -> None:
    """Say what works here: device, packages, weights, Java, and what to install where something is missing."""
    from suite.doctor import diagnose

    table, findings = Table("item", "state", "detail"), list(diagnose())
    for found in findings:
        table.add_row(found.item, found.state, found.detail)
    out_console.print(table)
    for found in findings:
        if found.command:  # a table would break it into pieces
            out_console.print(f"for {found.item}:\n{found.command}", highlight=False, markup=False, soft_wrap=True)


app.command("train", context_settings=EXTRA)(train_command)
app.add_typer(analysing, name="analyse")


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 finished with failed cells, 2 bad request, 70 a defect of the program,
    130 interrupted and resumable.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    keep_freed_memory()
    try:
        code = app(args=arguments, prog_name="run_bench.py", standalone_mode=False)
    except (RequestError, UsageError) as error:
        if debug:
            traceback.print_exc()
        text = error.format_message() if isinstance(error, UsageError) else str(error)
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        code = BAD_REQUEST
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"defect: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)", file=sys.stderr)
        code = DEFECT
    if code == INTERRUPTED:  # recent releases of typer return it
        print("interrupted; the same command continues where this one stopped", file=sys.stderr)
    sys.exit(code or DONE)
