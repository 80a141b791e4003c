"""Train a method: from a request to a file that `--reducer-weights` reads."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite.attachment.reducer_weights import about as stored_about
from suite.attachment.reducer_weights import write_tensors
from suite.contract.task import Task
from suite.errors import RequestError
from suite.measure.machine import describe_machine
from suite.models.load import load_model
from suite.models.registry import default_checkpoint
from suite.models.weights_file import one_line
from suite.store.files import atomic_path, once, write_json
from suite.sweep.evaluate import repeatable
from suite.sweep.launch import Launch, launched
from suite.sweep.plan import make_task, resolve_device
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec
from suite.train.fit import Fit
from suite.train.loop import CHECKPOINT, check_identity, find_difference, read_state, train
from suite.train.recipe import Recipe, make_recipe
from suite.train.session import Session
from suite.train.settings import recipe_settings
from tasks import task_class

WEIGHTS, MODEL = "weights.safetensors", "model.safetensors"


@dataclass(frozen=True)
class Request:
    """What is trained, on what. task_options: default the task's training split."""

    method: str
    task: str = "scenes"
    data: str | None = None
    model: str = ""
    checkpoint: str = ""
    task_options: dict[str, Any] | None = None
    limit: int | None = None
    device: str = "auto"
    workers: int | None = None
    every: int = 100
    out: str = ""

    def fill_defaults(self) -> Request:
        """With every default spelled out."""
        cls = task_class(self.task)
        model = self.model or cls.default_model
        options = {**cls.training, **(self.task_options or {})}
        out = self.out or str(Path("results") / "train" / f"{self.task}-{model}-{self.method}")
        checkpoint = self.checkpoint or default_checkpoint(model)
        return replace(self, model=model, checkpoint=checkpoint, task_options=options, out=out)


@dataclass(frozen=True)
class Trained:
    """weights: the file for `--reducer-weights`. model: the whole model for `--checkpoint`, where it learned, too."""

    weights: Path
    model: Path | None


def train_method(request: Request, settings: dict[str, Any], progress: Progress) -> Trained:
    """Train, or go on with what was interrupted; what is finished is not trained again.

    settings: of the recipe, by name; see `Recipe`. RequestError for what cannot be done, and for a loss that is no
    number.
    """
    request = request.fill_defaults()
    folder, (world, rank, local) = Path(request.out), processes(request.device)
    if rank:
        progress = Progress(quiet=True)
    recipe = make_recipe(request.method, **{**recipe_settings(request.task, request.method), **settings})
    device = resolve_device(request.device)
    if device.type == "cuda" and world > 1:
        device = torch.device("cuda", local)
    spec = RunSpec(task=request.task, data=request.data, limit=request.limit, task_options=request.task_options or {})
    task = make_task(spec)
    model, weights = load_model(request.model, request.checkpoint)
    for line in weights.notes:
        progress.note(line)
    task.check_model(model)
    task.configure(model)
    about = description(request, recipe, task, weights.sha256, weights.source)
    if is_finished(folder / WEIGHTS, about):
        progress.note(f"trained already: {folder / WEIGHTS}")
        return Trained(folder / WEIGHTS, folder / MODEL if (folder / MODEL).exists() else None)
    for line in task.notes:
        progress.note(line)
    if not task.training:
        progress.note(f"trains on all {len(task.samples)} samples of {request.data}: measure it on others")
    identity, begun = {**about, "processes": world}, read_state(folder / CHECKPOINT)
    check_identity(begun, identity, folder / CHECKPOINT)
    found = begun["job"].get("found") if begun else None
    workers = request.workers if request.workers is not None else min(8, (os.cpu_count() or 1) // 2)
    with repeatable(device):
        session = Session(task, model, recipe, device, found=found, workers=workers, progress=progress)
    fit = None if recipe.measured_by else Fit(session, identity, world=world, rank=rank)
    about |= {"rate": str(session.rate), "updates": fit.steps if fit else 0}
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        once(folder / "environment.json", describe_machine)
        write_json(folder / "training.json", about)
        write_manifest(task, folder / "manifest.csv")
    if fit:
        with repeatable(device):
            train(fit, folder, progress, every=request.every, main=rank == 0)
    return finish(session, fit.finish() if fit else session.collect_weights(), folder, about, rank)


def finish(session: Session, state: dict[str, Tensor], folder: Path, about: dict[str, Any], rank: int) -> Trained:
    """Write what was learned: the method's file and, where the backbone learned, the whole model."""
    # a captioner is a folder of several files, which only its weights would not make
    trains_backbone = bool(session.backbone_parameters) and session.objective.kind != "captioning"
    if rank == 0:
        if trains_backbone:
            session.handle.detach()
            write_tensors(folder / MODEL, session.model.state_dict(), **about)
        write_tensors(folder / WEIGHTS, state, **about)
    return Trained(folder / WEIGHTS, folder / MODEL if trains_backbone else None)


def description(request: Request, recipe: Recipe, task: Task, sha256: str, source: str) -> dict[str, Any]:
    """What decides the result, as it stands in the file that comes of it."""
    ids = json.dumps([[sample.id, repr(sample.label)] for sample in task.samples])
    return {
        "reducer": request.method,
        "recipe": recipe.meant(mode="json"),
        "task": request.task,
        "task_options": request.task_options,
        "data": f"{len(task.samples)} samples ({hashlib.sha256(ids.encode()).hexdigest()[:12]})",
        "model": request.model,
        "weights": source,
        "weights_sha256": sha256,
    }


def is_finished(file: Path, about: dict[str, Any]) -> bool:
    """The file is there already. RequestError if it is another training's."""
    if not file.is_file():
        return False
    if found := find_difference(stored_about(file), about):
        raise RequestError(f"{str(file)!r} is of another training: {found}; use another --out")
    return True


def write_manifest(task: Task, file: Path) -> None:
    """Ids and labels of what is trained on, in the task's order."""
    with atomic_path(file) as path, path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "label"])
        writer.writerows([sample.id, sample.label] for sample in task.samples)


def processes(device: str) -> Launch:
    """Those that torchrun has started, joined on first use."""
    launch = launched()
    if launch.world > 1 and not torch.distributed.is_initialized():
        try:
            torch.distributed.init_process_group("nccl" if resolve_device(device).type == "cuda" else "gloo")
        except ValueError as error:  # RANK and WORLD_SIZE are set, by a cluster or a shell, and no address to meet at
            raise RequestError(
                f"WORLD_SIZE is {launch.world}, and its processes cannot meet ({one_line(error)}); start them with "
                "torchrun, or unset WORLD_SIZE"
            ) from error
    return launch
