"""How much faster many workers are: of a method whose forwards take a known time and no CPU.

    python -m tests.perf.scaling --workers 1,2,4,7

Efficiency is the time that the forwards wait in all, by workers x the time that passes, from when the last worker has
begun to the end. What the driver needs is its CPU time for a cell and batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.perf.apart import measure_apart

METHOD = f"{Path(__file__).with_name('sleeper.py')}:Sleeper"


def measure(workers: int, batches: int, cells: int, seconds: float) -> dict[str, float]:
    """One run on a cluster of this process' own, of as many cores as workers."""
    import ray
    import torch
    from rich.console import Console

    import suite
    from suite.sweep.executors.ray.driver import Round
    from suite.sweep.executors.ray.messages import Scored
    from suite.sweep.progress import Progress
    from tests.photos import write_photos

    torch.set_num_threads(1)
    scored: list[tuple[int, str, float, float]] = []
    hear = Round._hear

    def timed(self: Round, worker: int, news: object) -> None:
        hear(self, worker, news)
        if isinstance(news, Scored):
            scored.append((worker, news.pair.key, time.monotonic(), time.process_time()))

    Round._hear = timed
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    with tempfile.TemporaryDirectory() as folder:
        run = suite.run(
            task="imagenet",
            data=str(write_photos(Path(folder) / "photos", each=batches, size=64)),
            model="test_vit",
            checkpoint="none",
            image_size=64,
            batch_size=4,
            device="cpu",
            workers=0,
            reducers=[METHOD],
            rates=[f"r={rate}" for rate in range(1, cells)],
            reducer_options={METHOD: {"seconds": seconds}},
            speed=False,
            out=f"{folder}/run",
            executor="ray",
            executor_cores=1,
            report=False,
            progress=Progress(Console(stderr=True)),
        )
        unreduced = run.frame().query("reducer == 'none'").index[0]
    begun = max(next(i for i, (of, *_) in enumerate(scored) if of == worker) for worker in {of for of, *_ in scored})
    after = scored[begun + 1 :]
    took, cpu = after[-1][2] - scored[begun][2], after[-1][3] - scored[begun][3]
    return {
        "workers": len({of for of, *_ in scored}),
        "seconds after start-up": took,
        "cells x batches": len(after),
        "efficiency": seconds * sum(key != unreduced for _, key, *_ in after) / (workers * took),
        "driver CPU ms a cell and batch": cpu / len(after) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4,7")
    parser.add_argument("--batches", type=int, default=120)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    measure_apart(
        parser, "workers", lambda asked: measure(int(asked.workers), asked.batches, asked.cells, asked.seconds)
    )


if __name__ == "__main__":
    main()
