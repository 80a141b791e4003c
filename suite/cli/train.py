"""The verb `train`: flags of a request, and every number of a recipe as a flag of its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from suite.cli.console import err_console, say
from suite.cli.values import parse_options, parse_settings
from suite.contract.program import PROGRAM

EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


def train_command(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="Reducer to train: see `list recipes`.")],
    task: Annotated[str, typer.Option(help="Task: see `list tasks`.")] = "scenes",
    data: Annotated[str | None, typer.Option(help="Folder, zip or tar of training data.")] = None,
    model: Annotated[str, typer.Option(help="See `list models`. [the task's own]")] = "",
    checkpoint: Annotated[
        str, typer.Option(help="pretrained, none (random weights), FILE, or FILE::MODEL_IN_IT.")
    ] = "",
    task_option: Annotated[list[str] | None, typer.Option(help="OPTION=VALUE, repeatable.")] = None,
    reducer_option: Annotated[list[str] | None, typer.Option(help="OPTION=VALUE, repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples, evenly spaced over the data. [all]")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read images.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Updates between checkpoints.")] = 100,
    out: Annotated[str, typer.Option(help="Folder. [results/train/TASK-MODEL-METHOD]")] = "",
) -> None:
    """Train a method, or go on after an interruption.

    Every number of its recipe is a flag: `list recipes METHOD` shows them with their defaults. Several GPUs:
    torchrun --nproc-per-node=8 run_bench.py train METHOD ...
    """
    from suite.sweep.progress import Progress
    from suite.train.run import Request, train_method

    settings: dict[str, Any] = dict(parse_settings(context.args))
    if reducer_option:
        settings["reducer_options"] = parse_options(reducer_option, "--reducer-option")
    options = parse_options(task_option, "--task-option") if task_option else None
    request = Request(method, task, data, model, checkpoint, options, limit, device, workers, every, out)
    trained = train_method(request, settings, Progress(err_console))
    say(f"learned: {trained.weights}")
    same = "".join(f" --{name} {value}" for name, value in (("model", model), ("checkpoint", checkpoint)) if value)
    where = f" --task {task}" + (" --data ..." if data else "")
    say(f"measure it: {PROGRAM} run{where}{same} --reducers {method}@{trained.weights}")
    if trained.model:
        say(f"the whole model: --checkpoint {trained.model}")
