"""The verb `score`: captions that are there already, by the scorers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.tables.console import fields_of
from suite.cli.console import print_table, say, warn
from suite.cli.ending import ExitCode
from suite.cli.values import parse_options
from suite.errors import RequestError


def score_command(
    captions: Annotated[Path, typer.Option(help='JSON: [{"image_id": 42, "caption": "…"}] or {"42": "…"}.')],
    data: Annotated[str | None, typer.Option(help="Annotation file, or folder, zip or tar that holds it.")] = None,
    task_option: Annotated[list[str] | None, typer.Option(help="annotations=FILE, split=NAME: as for `run`.")] = None,
) -> None:
    """Score captions that are there already against the references of a captioning data set; no image is needed."""
    from suite.contract.metric import Metric
    from suite.contract.task import Score
    from suite.errors import CellError
    from tasks.coco.results import References, score_results

    options = parse_options(task_option or [], "--task-option")
    unknown = options.keys() - {"annotations", "split"}
    if unknown:
        raise RequestError(f"--task-option {min(unknown)!r} decides nothing about scores; leave it out")

    found = score_results(captions, data, options.get("annotations"), options.get("split"))
    if isinstance(found, CellError):
        warn(f"failed: {captions}: {found}", style="red")
        raise typer.Exit(ExitCode.FAILED)

    def row(metric: Metric, score: Score) -> list[str]:
        def shown(value: float | None) -> str:
            return "n/a" if value is None else f"{value * metric.scale:.{metric.decimals}f}"

        interval = "" if score.low is None else f"[{shown(score.low)}, {shown(score.high)}]"
        return [metric.label, shown(score.value), interval or score.reason]

    metrics = [metric for metric in References.shown.metrics if metric.name in found.scores]
    rows = [row(metric, found.scores[metric.name]) for metric in metrics]
    print_table(fields_of(("Metric", "Score", "95 % interval"), rows), title=str(captions))
    for note in found.notes:
        say(note)
