"""The verb `latency`: what a caller of a service waits for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.analyse import show
from suite.cli.console import err_console
from suite.cli.flags import asked
from suite.cli.values import parse_numbers


def latency_command(
    model: Annotated[str | None, typer.Option(help="See `list models`. [the task's own]")] = None,
    reducers: Annotated[str, typer.Option(help="As for `run`.")] = "tome,evit",
    rates: Annotated[str | None, typer.Option(help="As for `run`. [flops=-35%]")] = None,
    flops: Annotated[str | None, typer.Option(help="Changes of total FLOPs: --flops=-35%,-50%.")] = None,
    runtime: Annotated[str, typer.Option(help="eager,compiled,onnxruntime,openvino.")] = "eager",
    batches: Annotated[str, typer.Option(help="Batch sizes.")] = "1,2,4,8",
    calls: Annotated[int, typer.Option(min=2, help="Timed calls of each; p99 needs 100.")] = 100,
    warm_up: Annotated[int, typer.Option(min=0, help="Untimed calls before, behind the first.")] = 5,
    callers: Annotated[int, typer.Option(min=0, help="Callers at once, closed loop, as well. [none]")] = 0,
    checkpoint: Annotated[
        str | None, typer.Option(help="pretrained, none (random weights), FILE, or FILE::MODEL_IN_IT.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Task, for its images: see `list tasks`. [scenes]")] = None,
    data: Annotated[str | None, typer.Option(help="Folder, zip or tar of the task's data.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto. [auto]")] = None,
    reducer_weights: Annotated[list[str] | None, typer.Option(help="FILE or NAME=FILE: what a method learned.")] = None,
    reducer_option: Annotated[list[str] | None, typer.Option(help="NAME.OPTION=VALUE, repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. [results/latency/TASK-MODEL]")] = None,
) -> None:
    """How long a caller waits: first call, p50, p90, p99 at small batches, alone and with several callers at once."""
    from suite.deploy.latency import Load, measure_latency
    from suite.sweep.progress import Progress
    from suite.sweep.spec import make_spec

    flags: dict[str, Any] = {
        "model": model, "reducers": reducers, "rates": rates,
        "flops": "-35%" if rates is None and flops is None else flops,
        "runtime": runtime, "checkpoint": checkpoint, "task": task, "data": data, "device": device,
        "reducer_weights": reducer_weights, "reducer_option": reducer_option,
    }  # fmt: skip
    spec = make_spec(asked(None, flags))
    sizes = parse_numbers(batches, "--batches", example="1,2,4")
    sheet = measure_latency(spec, sizes, Load(calls, warm_up, callers), Progress(err_console))
    show(sheet, out or Path("results") / "latency" / f"{spec.task}-{spec.model}")
