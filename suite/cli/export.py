"""The verb `export`: a reduced model as a file for ONNX Runtime, OpenVINO, TensorRT or plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.console import say, warn
from suite.cli.ending import ExitCode
from suite.cli.flags import asked
from suite.errors import RequestError


def export_command(
    model: Annotated[str | None, typer.Option(help="A classifier: see `list models`. [the task's own]")] = None,
    reducer: Annotated[str, typer.Option(help="A name, NAME@FILE, or none.")] = "none",
    rate: Annotated[str | None, typer.Option(help="r=13, keep=0.7, flops=-35%.")] = None,
    format: Annotated[str, typer.Option("--format", help="onnx, openvino or torch-export.")] = "onnx",
    batch: Annotated[str, typer.Option(help="Images in a batch, or dynamic: any number.")] = "1",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    checkpoint: Annotated[
        str | None, typer.Option(help="pretrained, none (random weights), FILE, or FILE::MODEL_IN_IT.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Whose pictures it is checked with. [scenes]")] = None,
    data: Annotated[str | None, typer.Option(help="Folder, zip, tar or shards of the task's data.")] = None,
    task_option: Annotated[list[str] | None, typer.Option(help="OPTION=VALUE, repeatable.")] = None,
    reducer_option: Annotated[list[str] | None, typer.Option(help="NAME.OPTION=VALUE, repeatable.")] = None,
    reducer_weights: Annotated[list[str] | None, typer.Option(help="FILE: what the reducer learned.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels. [the model's own]")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Pictures that the file is checked with.")] = 64,
    calibration: Annotated[int, typer.Option(min=1, help="Pictures that int8 takes its ranges of.")] = 128,
    bound: Annotated[
        float | None, typer.Option(help="On |logits apart| / largest logit. [0.01; fp16 0.1; int8 0.5]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the file and its card.")] = Path("exported"),
) -> None:
    """Export a reduced model: a file of fixed shapes, a JSON card, and a check that both say the same.

    Exit code 1: the file says something else than the model; it is kept under a name with failed-check in it.
    """
    from suite.deploy.export import Shape, export
    from suite.deploy.subject import make_subject

    values: dict[str, Any] = {
        "model": model, "checkpoint": checkpoint, "task": task, "data": data, "task_option": task_option,
        "reducer_option": reducer_option, "reducer_weights": reducer_weights, "image_size": image_size,
    }  # fmt: skip
    shape = Shape(parse_batch(batch), precision, samples, calibration, bound)
    subject = make_subject(asked(None, values), reducer, rate)
    exported = export(subject, format, shape, out)
    said = [f"written: {exported.file}", f"card: {exported.card}", f"check: {exported.agreement}"]
    if exported.accuracy:
        file, whole = (exported.accuracy[name]["top1"] for name in ("file", "model"))
        said.append(f"top-1 on these samples: {file:.1%}, of the model {whole:.1%}")
    for line in said:
        say(line)
    if not exported.agreement.passed:
        warn("failed: the file says something else than the model", style="red")
        raise typer.Exit(ExitCode.FAILED)


def parse_batch(text: str) -> int | None:
    """Images in a batch; None for 'dynamic'."""
    from suite.formats.program import DYNAMIC

    if text == DYNAMIC:
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise RequestError(f"--batch {text!r} cannot be read; write a number of images, or {DYNAMIC}")
    return int(text)
