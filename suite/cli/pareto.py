"""The verbs `pareto` and `break-even`: what methods cost and bring, drawn, compared, and timed by batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.console import err_console, print_fitted, say, warn
from suite.cli.flags import asked
from suite.cli.values import parse_names, parse_numbers
from suite.errors import unknown


def pareto_command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, of one task.")],
    x: Annotated[list[str] | None, typer.Option("--x", help="flops, speed, memory, repeatable. [all]")] = None,
    published: Annotated[
        list[str] | None, typer.Option(help="Hollow markers of a paper: dtem-1 (its Table 1), tome, …, repeatable.")
    ] = None,
    reducers: Annotated[list[str] | None, typer.Option(help="Names and wildcards of the methods to see. [all]")] = None,
    against: Annotated[str | None, typer.Option(help="Method that others are compared with. [tome]")] = None,
    runtime: Annotated[str | None, typer.Option(help="The runtime whose times to see. [the runs' first]")] = None,
    width: Annotated[str, typer.Option(help="column (3.3 inches) or full (6.9).")] = "full",
    out: Annotated[Path | None, typer.Option(help="Folder. [RUN/report/pareto of the first run]")] = None,
) -> None:
    """Curves of one or several runs in one figure, and what they come to: hypervolume, mean differences, ranks."""
    from reports.pareto.figures import AXES, draw_files, plots_on, save
    from reports.pareto.layers import layers_of, layers_under
    from reports.pareto.plots import COLUMN_WIDTH, FULL_WIDTH
    from reports.tables.console import terminal_width
    from reports.tables.curves import curve_table, write_curve_table

    widths = {"column": COLUMN_WIDTH, "full": FULL_WIDTH}
    if width not in widths:
        raise unknown("--width", width, widths)
    for axis in parse_names(x):
        if axis not in AXES:
            raise unknown("--x", axis, AXES)
    layers, folder = layers_of(runs, parse_names(reducers)), out or runs[0] / "report" / "pareto"
    layers = layers_under(layers, runtime) if runtime else layers
    table = curve_table(layers, against)
    plots = plots_on(layers[0], parse_names(x) or AXES)
    drawn, notes = draw_files(layers, plots, widths[width], parse_names(published))
    files = [*save(drawn, folder), *write_curve_table(table, folder)]
    print_fitted(table.console(terminal_width()))
    for note in notes:
        warn(note)
    say(f"written: {', '.join(str(file) for file in files)}")


def break_even_command(
    model: Annotated[str | None, typer.Option(help="See `list models`. [the task's own]")] = None,
    reducers: Annotated[str | None, typer.Option(help="As for `run`. [tome,evit]")] = None,
    rates: Annotated[str | None, typer.Option(help="As for `run`. [flops=-35%]")] = None,
    flops: Annotated[str | None, typer.Option(help="Changes of total FLOPs: --flops=-35%,-50%.")] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes.")] = "1,2,4,8,16,32,64",
    task: Annotated[str | None, typer.Option(help="Task, for its images: see `list tasks`. [scenes]")] = None,
    data: Annotated[str | None, typer.Option(help="Folder, zip or tar of the task's data.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="pretrained, none (random weights), FILE, or FILE::MODEL_IN_IT.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels. [the model's own]")] = None,
    reducer_weights: Annotated[list[str] | None, typer.Option(help="FILE or NAME=FILE: what a method learned.")] = None,
    reducer_option: Annotated[list[str] | None, typer.Option(help="NAME.OPTION=VALUE, repeatable.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto. [auto]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16. [fp32]")] = None,
    speed_rounds: Annotated[int | None, typer.Option(help="Rounds that interleave all methods. [5]")] = None,
    runtime: Annotated[
        str | None, typer.Option(help="How models are timed: eager, compiled or graphs. [eager]")
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile/--eager", help="Like --runtime compiled, eager.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. [results/break-even/TASK-MODEL]")] = None,
) -> None:
    """From which batch size on a method is faster than the unreduced model on this device; goes on where it stopped."""
    from suite.analyse.break_even import find_break_even
    from suite.cli.analyse import show
    from suite.sweep.progress import Progress
    from suite.sweep.spec import make_spec

    flags: dict[str, Any] = {
        "model": model, "reducers": reducers or "tome,evit", "rates": rates, "flops": flops, "task": task,
        "data": data, "checkpoint": checkpoint, "image_size": image_size, "reducer_weights": reducer_weights,
        "reducer_option": reducer_option, "device": device, "precision": precision, "speed_rounds": speed_rounds,
        "runtime": runtime, "compile": compile,
    }  # fmt: skip
    if rates is None and flops is None:
        flags["flops"] = "-35%"
    spec = make_spec(asked(None, flags))
    folder = out or Path("results") / "break-even" / f"{spec.task}-{spec.model}"
    show(
        find_break_even(spec, parse_numbers(batches, "--batches", example="1,8,64"), folder, Progress(err_console)),
        folder,
    )
