"""Small runs that faults are injected into: their data, weights and commands, and what they come to undisturbed."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch

from suite.attachment.attach import attach
from suite.attachment.reducer_weights import write_tensors
from suite.cli.app import main
from suite.rates.rate import parse_rate
from tests.faults.injected.command import Acts, Ended, run_forked, run_started
from tests.photos import write_photos

STAGES = ("fresh", "begun", "whole")
"""What the output folder holds when the command begins: nothing, some of the methods, all of them."""
MODEL, SIZE = "test_vit", 64
BEGUN = ["tome"]  # of the methods: those that a run has which is continued


@dataclass
class Project:
    """A folder with the data, weights and request of a run; `out` is where that goes.

    seconds: that the command takes undisturbed, by what `out` holds before; starting: more, of a new interpreter.
    """

    folder: Path
    spec: dict[str, Any]
    report: dict[str, bytes]
    seconds: dict[str, float]
    starting: float

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def request(self) -> Path:
        return self.folder / "request.yaml"

    def command(self) -> list[str]:
        return ["run", str(self.request)]

    def renew(self, stage: str) -> None:
        """Everything as it was: data, weights and request, and in `out` nothing ('fresh'), a part, or all."""
        for name in ("data", "weights"):
            restore(self.folder / f"{name}.kept", self.folder / name)
        self.renew_request()
        shutil.rmtree(self.out, ignore_errors=True)
        if stage != "fresh":
            shutil.copytree(self.folder / f"{stage}.kept", self.out)

    def renew_request(self) -> None:
        write_request(self.request, self.spec)

    def files(self) -> list[Path]:
        """Those that are stored in `out`; its report is made of them."""
        found = sorted(path for path in self.out.rglob("*") if path.is_file())
        return [path for path in found if "report" not in path.parts and not path.name.startswith(".")]


def restore(kept: Path, place: Path) -> None:
    """With the times of the files, so that nobody takes them for changed."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(kept, place)


def report_of(out: Path) -> dict[str, bytes]:
    folder = out / "report"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def write_request(path: Path, spec: dict[str, Any]) -> None:
    path.write_text(json.dumps(spec, indent=1))


def make_project(folder: Path, workers: int = 0) -> Project:
    """Of photos in class folders, a model whose weights lie in a file, and a method that has learned."""
    data, weights = folder / "data", folder / "weights"
    write_photos(data, each=2)
    weights.mkdir()
    torch.manual_seed(0)
    model = timm.create_model(MODEL, img_size=SIZE).eval()
    safetensors.torch.save_file(model.state_dict(), weights / "model.safetensors")
    with attach(model, "dtem", parse_rate("r=1")) as handle:
        write_tensors(weights / "dtem.safetensors", handle.reducer.state_dict(), reducer="dtem")
    spec = {
        "task": "imagenet", "data": str(data), "task_options": {"classes": "all"}, "model": MODEL, "image_size": SIZE,
        "checkpoint": str(weights / "model.safetensors"), "batch_size": 2, "device": "cpu", "workers": workers,
        "reducers": ["tome", "dtem"], "rates": ["r=1"], "speed": False, "out": str(folder / "out"),
        "reducer_weights": {"dtem": str(weights / "dtem.safetensors")},
    }  # fmt: skip
    return _finished(folder, spec)


def _finished(folder: Path, spec: dict[str, Any]) -> Project:
    """Runs a part, then all, and keeps what each has stored."""
    project = Project(folder, spec, {}, {}, 0.0)
    for name in ("data", "weights"):
        shutil.copytree(folder / name, folder / f"{name}.kept")
    write_request(project.request, {**spec, "reducers": BEGUN, "reducer_weights": {}})
    _must_end(run_forked(project.command(), Acts()))
    shutil.copytree(project.out, folder / "begun.kept")
    write_request(project.request, spec)
    warm_up(project.command())
    shutil.copytree(project.out, folder / "whole.kept")
    for stage in STAGES:
        project.renew(stage)
        project.seconds[stage] = _must_end(run_forked(project.command(), Acts())).seconds
        project.report = project.report or report_of(project.out)
    project.starting = _must_end(run_started(project.command(), Acts())).seconds - project.seconds["whole"]
    return project


def warm_up(arguments: list[str]) -> None:
    """In this process, so that forked ones have imported, compiled and remembered what they need."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        main(arguments)


def _must_end(ended: Ended) -> Ended:
    assert ended.code == 0, ended.said
    return ended
