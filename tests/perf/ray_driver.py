"""What the driver of a cluster does with what workers send: records a second, where these cost the workers nothing.

    python -m tests.perf.ray_driver --workers 2 --images 50000 --cells 45

The workers answer every order at once, with rows that were made before. All else is the program's own: schedule, calls
of Ray, log, joining.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import ray
import torch

from suite.store.folder import RunFolder
from suite.store.log import pack
from suite.sweep.executors.ray import cluster, driver
from suite.sweep.executors.ray.messages import WINDOW, About, Assignment, Event, Opened, Read, Scored
from suite.sweep.executors.ray.units import Pair, Piece
from suite.sweep.executors.ray.worker import sources_here
from suite.sweep.lane import Lane, StoredCell
from suite.sweep.progress import Progress
from suite.sweep.record import Record
from suite.sweep.spec import RunSpec
from tests.perf.sweep import BATCH, Drawn, Stub


class Instant:
    """A worker that has the rows of every batch already."""

    def __init__(self, kind: str, cores: int) -> None:
        task = Drawn(BATCH, 0)
        self.rows = task.columns(task.measure(task.logits, task.samples), task.samples)
        self.todo: list[Event] = []

    def about(self) -> About:
        return About("here", 0, "none", sources_here())

    def exchange(
        self,
        acknowledged: int,
        assignments: dict[int, Assignment],
        orders: Sequence[Piece],
        dropped: Sequence[Pair],
    ) -> list[Event]:
        self.todo += [Opened(lane) for lane in assignments]
        for piece in orders:
            ids = [
                f"n{i % 1000:08d}/ILSVRC2012_val_{i:08d}.JPEG"
                for i in range(piece.number * BATCH, len(self.rows) + piece.number * BATCH)
            ]
            packed = pack(self.rows.set_column(0, "id", pa.array(ids)))
            self.todo.append(Read(piece.lane, piece.number, [None] * BATCH, []))  # type: ignore[list-item]
            self.todo += [Scored(pair, packed, BATCH, BATCH) for pair in piece.pairs() if pair not in dropped]
        said, self.todo = self.todo[: WINDOW // 2], self.todo[WINDOW // 2 :]
        return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--cells", type=int, default=45)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images = asked.images // BATCH * BATCH
    cluster.Worker = Instant  # type: ignore[misc, assignment]
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=asked.workers, **options)
    with tempfile.TemporaryDirectory() as out:
        task, folder = Drawn(images, 0), RunFolder(out)
        batches = [task.samples[i : i + BATCH] for i in range(0, images, BATCH)]
        spec: Any = RunSpec(device="cpu", executor="ray", executor_cores=1, batch_size=BATCH, out=out)
        plan: Any = SimpleNamespace(
            spec=spec, task=task, model=None, weights=SimpleNamespace(kind="trained"), identity={}, batches=batches
        )
        handle: Any = Stub()
        cells = [
            StoredCell(
                key := f"{i:016x}",
                handle,
                BATCH,
                folder.cell(key),
                {"reducer": "stub", "rate": f"r={i}", "resolved_rate": ""},
            )
            for i in range(asked.cells)
        ]
        Record.decoded = lambda self, number, samples, errors: None  # type: ignore[method-assign]
        executor = driver.Ray(spec, Progress(quiet=True))
        executor.crew.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        executor.evaluate([Lane(plan, folder, {}, cells)], lambda progress: None, Progress(quiet=True))
        records = asked.cells * len(batches)
        for name, took in (("seconds", time.perf_counter() - wall), ("CPU seconds", time.process_time() - cpu)):
            print(f"{name}: {took:.3g}, {took / records * 1e3:.3g} ms a record; ", end="")
        joined = sum(path.exists() for path in Path(out).glob("cells/*/samples.parquet"))
        print(f"{records} records of {asked.workers} workers, {joined} cells")
        executor.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
