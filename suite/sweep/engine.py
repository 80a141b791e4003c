"""Executes a plan: the only place that knows the order of things.

Every cell is counted, evaluated, scored and timed from its folder's state: what is stored is not done again. Images are
decoded once for all cells, and one copy of the backbone serves them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

from suite.errors import CellError, describe_error
from suite.measure.flops import count_flops, count_module
from suite.measure.machine import describe_machine
from suite.rates.rate import rate_text, stored_rate
from suite.store.folder import RunFolder
from suite.sweep.changes import forget_changed
from suite.sweep.executors.base import Executor
from suite.sweep.images import sample_images
from suite.sweep.lane import Lane, StoredCell, drop_failed
from suite.sweep.outcomes import Outcomes, Unreduced, digest_outcomes
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress
from suite.sweep.timing import files_of, find_untimed
from suite.sweep.tracing import trace_cells

SOLVED_ON, COUNTED_ON = 16, 32  # images, for methods whose cost depends on the image


def execute(
    plans: Plan | Sequence[Plan],
    progress: Progress,
    executor: Executor,
    preview: Callable[[Path], None] | None = None,
) -> None:
    """Run the cells of one or more plans to the end. Cells that fail are recorded and do not stop others.

    preview: shown the folder of a run whose cells are scored, before those that lack it are timed.
    """
    lanes = [begin(plan, progress) for plan in ([plans] if isinstance(plans, Plan) else plans)]

    def count(progress: Progress) -> None:
        for lane in lanes:
            lane.cells = count_cost(lane.plan, lane.cells, progress)

    with preparing_scores(lanes if executor.leads else ()):
        executor.evaluate(lanes, count, progress)
        for lane in lanes if executor.leads else ():
            score(lane.plan, drop_failed(lane.cells), progress)
    if executor.leads:
        for lane in lanes:
            if preview is not None and _is_untimed(lane):
                preview(lane.folder.path)
        for lane in (lane for lane in lanes if lane.plan.spec.kernels):
            trace_cells(lane.plan, drop_failed(lane.cells), progress)
        executor.time(lanes, progress)


def _is_untimed(lane: Lane) -> bool:
    """Whether times of some of its cells are still to be measured."""
    cells = drop_failed(lane.cells)
    return any(find_untimed(lane.plan, cells, file).cells for file in files_of(lane.plan))


def begin(plan: Plan, progress: Progress) -> Lane:
    """Open a plan's folder, and find out what its cells are. Its model is on its device then."""
    folder, notes = plan.open_folder()
    for line in notes:
        progress.note(line)
    folder.write_environment(describe_machine)
    plan.model.to(plan.device)
    known = forget_changed(plan, folder, progress)
    return Lane(plan, folder, known, prepare(plan, folder, list(plan.methods), progress))


def preparing_scores(lanes: Sequence[Lane]) -> AbstractContextManager[None]:
    """Has the task of the first model that lacks scores prepare for them; those of all could fill the memory."""
    for lane in lanes:
        if any(cell.folder.scores() is None for cell in lane.cells):
            return lane.plan.task.prepare_scoring()
    return nullcontext()


def prepare(plan: Plan, folder: RunFolder, keys: Sequence[str], progress: Progress) -> list[StoredCell]:
    """Describe every cell in its folder, once; a FLOPs target that cannot be reached fails its cell."""
    cells = []
    for key in progress.steps("resolving rates", keys):
        cell, method = folder.cell(key), plan.methods[key]
        cell.remove("failed")
        about = cell.read("cell") or plan.describe(key)
        try:
            if about["resolved_rate"] is None:
                about |= plan.resolve(key, lambda: sample_images(plan, SOLVED_ON))
            cell.write("cell", about)
            handle = plan.handle(method, stored_rate(about["resolved_rate"]))
        except Exception as error:  # also what a method's own code raises while its cost is counted
            cell.write("cell", about)
            cell.fail(describe_error(error))
            progress.failed(f"{method.reducer} {rate_text(method.rate)}", describe_error(error))
            continue
        ran = cell.read("accuracy") or {"batch_size": plan.spec.batch_size}
        cells.append(StoredCell(key, handle, ran["batch_size"], cell, about))
    return cells


def count_cost(plan: Plan, cells: list[StoredCell], progress: Progress) -> list[StoredCell]:
    """flops.json of every cell, in float32; cells that cannot be counted fail.

    On one real image; on several where the cost depends on the image.
    """
    todo = [cell for cell in cells if cell.folder.read("flops") is None]
    if not todo:
        return cells
    images = sample_images(plan, 1)
    baseline = count_flops(plan.model, images=images).total
    if any(cell.handle.planned_counts is None for cell in todo):
        images = sample_images(plan, COUNTED_ON)
    for cell in progress.steps("counting FLOPs", todo, name=lambda cell: cell.name):
        try:
            with cell.handle:
                report = count_flops(plan.model, images=images)
                further = plan.task.further_costs(plan.model, images, report.total, count_module)
            cell.folder.write("flops", {**report.as_dict(), "further": further, "baseline_total": baseline})
        except Exception as error:  # a method that breaks fails its cell, not the sweep
            cell.folder.fail(describe_error(error))
            progress.failed(cell.name, describe_error(error))
    return drop_failed(cells)


def score(plan: Plan, cells: Sequence[StoredCell], progress: Progress) -> None:
    """scores.json of every cell whose outcomes are not scored yet, by one scorer for all of them."""
    made_of, todo, by_key = {}, [], {cell.key: cell for cell in cells}
    version, scorable = plan.task.scoring_version(), set(plan.task.scorable())
    unreduced = Unreduced(plan.task.beside, cells)
    for cell in cells:
        shards = cell.folder.shards
        if not shards.files.exists(shards.whole):
            continue
        digests = digest_outcomes(shards) + unreduced.digest
        made_of[cell.key] = hashlib.sha256((digests + version).encode()).hexdigest()
        stored = cell.folder.scores() or {"of": None, "scores": {}}
        unknown = [name for name, score in stored["scores"].items() if score["value"] is None]
        # what is known stays known, even where its scorer is not installed now
        if stored["of"] != made_of[cell.key] or scorable.intersection(unknown):
            todo.append(cell)
    with progress.scoring(len(todo)) as advance:
        for key, summary in plan.task.summaries(Outcomes(todo, unreduced)):
            cell = by_key[key]
            if isinstance(summary, CellError):
                cell.folder.fail(str(summary))
                progress.failed(cell.name, str(summary))
                continue
            if summary.samples is not None:
                cell.folder.write_scores(summary.samples)
            scores = {name: asdict(score) for name, score in summary.scores.items()}
            about = {"of": made_of[key], "notes": list(summary.notes), "per_sample": summary.samples is not None}
            cell.folder.write("scores", {**about, "scores": scores})
            advance(cell.name, 1)
