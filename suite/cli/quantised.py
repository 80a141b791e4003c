"""The verb `int8`: whether methods survive 8-bit integers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.analyse import show
from suite.cli.flags import asked
from suite.cli.values import parse_names


def int8_command(
    model: Annotated[str | None, typer.Option(help="A trained classifier: see `list models`. [the task's own]")] = None,
    reducers: Annotated[str, typer.Option(help="Names: a,b.")] = "tome,evit",
    rate: Annotated[str, typer.Option(help="r=13, keep=0.7, flops=-35%.")] = "flops=-35%",
    checkpoint: Annotated[str | None, typer.Option(help="pretrained, FILE, or FILE::MODEL_IN_IT.")] = None,
    task: Annotated[str | None, typer.Option(help="Task: see `list tasks`. [scenes]")] = None,
    data: Annotated[str | None, typer.Option(help="Folder, zip, tar or shards of the task's data.")] = None,
    task_option: Annotated[list[str] | None, typer.Option(help="OPTION=VALUE, repeatable.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Pictures that both are scored on.")] = 1000,
    calibration: Annotated[int, typer.Option(min=1, help="Pictures that ranges are taken of.")] = 128,
    out: Annotated[Path | None, typer.Option(help="Folder. [results/int8/TASK-MODEL]")] = None,
) -> None:
    """Accuracy, size and time in int8 beside fp32, method by method, in ONNX Runtime and OpenVINO."""
    from suite.deploy.int8 import Size, measure_int8

    values: dict[str, Any] = asked(
        None,
        {"model": model, "checkpoint": checkpoint, "task": task, "data": data, "task_option": task_option},
    )
    sheet = measure_int8(values, parse_names(reducers), rate, Size(samples, calibration))
    show(sheet, out or Path("results") / "int8" / f"{task or 'scenes'}-{sheet.about['model']}")
