"""What a sweep takes beside its forwards: on a device that needs a known time for a forward, and no CPU.

    python -m tests.perf.sweep --images 1000,10000,50000 --forward-ms 6

A stub takes the model's place: `predict` sleeps, as who waits for a device does, and returns logits of 1000 classes
that were made before. All else is the program's own: loader, scoring, log, claims, joining. A process each, so that
peaks of memory are its own.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.contract.task import Sample
from suite.models.weights_file import WeightsInfo
from suite.store.folder import RunFolder
from suite.sweep import evaluate
from suite.sweep.executors.local import evaluate_lanes
from suite.sweep.lane import OF_DATA, Lane, StoredCell
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec
from tasks.classification import ClassificationTask
from tests.perf.apart import measure_apart

CLASSES, BATCH = 1000, 64


class Drawn(ClassificationTask):
    """Samples with ids like ImageNet's, and a device that takes `seconds` for a forward."""

    num_classes = CLASSES

    def __init__(self, images: int, seconds: float) -> None:
        super().__init__()
        self.samples = [Sample(f"n{i % CLASSES:08d}/ILSVRC2012_val_{i:08d}.JPEG", i % CLASSES) for i in range(images)]
        self.seconds, self.image = seconds, torch.zeros(3, 32, 32)
        self.logits = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(0))
        self.waited = 0.0

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> str:
        return "none"

    def load(self, sample: Sample, preprocessing: Any) -> Tensor:
        return self.image

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        start = time.perf_counter()
        if self.seconds:
            time.sleep(self.seconds)
        self.waited += time.perf_counter() - start
        return self.logits[: len(images)]


class Stub(nullcontext):
    """What a sweep asks of a handle, of no reducer."""

    unplanned, prefix = "", None

    def forget(self) -> None:
        pass


def measure(images: int, cells: int, seconds: float, workers: int) -> dict[str, float]:
    out = Path(tempfile.mkdtemp(prefix="sweep-"))
    task, folder = Drawn(images, seconds), RunFolder(out)
    spec = RunSpec(batch_size=BATCH, workers=workers, device="cpu", speed=False)
    nothing: Any = None  # the task does not ask for a model
    weights = WeightsInfo("trained", "", "")
    plan = Plan(spec, task, nothing, weights, dict.fromkeys(OF_DATA), torch.device("cpu"))
    handle: Any = Stub()
    made = [
        StoredCell(key := f"{i:016x}", handle, BATCH, folder.cell(key), {"reducer": "stub", "rate": f"r={i}"})
        for i in range(cells)
    ]
    scored, rows_of = [0.0], evaluate.rows_of

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return rows_of(*arguments)
        finally:
            scored[0] += time.perf_counter() - start

    evaluate.rows_of = timed
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    evaluate_lanes([Lane(plan, folder, {}, made)], torch.device("cpu"), Progress(quiet=True))
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    batches = cells * -(-images // BATCH)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    files = sum(path.is_file() for path in out.rglob("*"))
    shutil.rmtree(out)
    return {
        "images": images,
        "seconds": took,
        "sweep over forwards": took / task.waited if seconds else float("nan"),
        "CPU ms a cell and batch": cpu / batches * 1e3,
        "scoring ms": scored[0] / batches * 1e3,
        "files": files,
        "peak MiB": after.ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="1000,10000,50000")
    parser.add_argument("--cells", type=int, default=45)
    parser.add_argument("--forward-ms", type=float, default=6.0)
    parser.add_argument("--workers", type=int, default=1)
    measure_apart(
        parser, "images", lambda asked: measure(int(asked.images), asked.cells, asked.forward_ms / 1e3, asked.workers)
    )


if __name__ == "__main__":
    main()
