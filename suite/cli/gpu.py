"""The verb `gpu`: every method on the GPU that is here, beside what is predicted for it, in ten minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reports.tables.console import fields_of
from suite.cli.console import err_console, print_table, say
from suite.cli.ending import ExitCode
from suite.errors import RequestError
from suite.measure.prediction.gpus import GPUS


def gpu_command(
    out: Annotated[Path, typer.Option(help="Folder of the file to send back.")] = Path("results") / "gpu",
    minutes: Annotated[float, typer.Option(help="Timing ends then; what was left out is said.")] = 10.0,
    device: Annotated[str, typer.Option(help="cuda or cuda:1.")] = "cuda",
    gpu: Annotated[
        str | None, typer.Option(help=f"Data sheet to predict from: {', '.join(GPUS)}. [the device's own]")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only see whether there is a GPU.")] = False,
    show: Annotated[Path | None, typer.Option(help="Only print the table of a file that was sent.")] = None,
) -> None:
    """Time every method at -35 % and -50 % FLOPs on DeiT-S and DeiT-B, bf16, batch 256, eager, as graphs and compiled.

    A table of what was measured beside what is predicted, and a file to send back. Needs an NVIDIA GPU; downloads
    nothing, for weights are random. `make gpu` tests the program on the GPU before.
    """
    from suite.analyse.gpu.session import find_cuda, measure_trial, read_session
    from suite.analyse.gpu.stages import Trial
    from suite.sweep.progress import Progress

    if show is not None:
        print_session(read_session(show))
        return
    if not 0 < minutes < float("inf"):
        raise RequestError(f"--minutes {minutes:g} is no time to measure in; give a number such as 10")
    found = find_cuda(device)
    if check:
        return
    file, content = measure_trial(Trial(), found, gpu, 60 * minutes, out, Progress(err_console))
    print_session(content)
    say(f"to send back, with its name as it is: {file}")
    raise typer.Exit(ExitCode.FAILED if any(cell["reason"] for cell in content["cells"]) else ExitCode.DONE)


def print_session(content: dict[str, Any]) -> None:
    from suite.analyse.gpu.table import HEADERS, NAMES, lines_of, notes_of

    lines = lines_of(content)
    stages = [line[:2] for line in lines]
    sections = {i: "" for i in range(1, len(lines)) if stages[i] != stages[i - 1]}
    fields = fields_of(HEADERS, lines, len(NAMES), words=len(NAMES))
    print_table(fields, title=f"Measured on {content['device']}", notes=notes_of(content), sections=sections)
