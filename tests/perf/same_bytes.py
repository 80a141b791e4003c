"""Whether Ray's workers store what one process stores, byte for byte, of the embedded default:
`python -m tests.perf.same_bytes --limit 200 --workers 1,2,3,7`. Minutes a number of workers on two cores."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import ray

import suite


def stored(out: Path) -> dict[str, bytes]:
    """Everything that a run stores of its samples and cells."""
    files = [*out.glob("*.parquet"), *(file for file in out.glob("cells/*/*") if file.is_file())]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def run_on(workers: int, limit: int, out: Path) -> dict[str, bytes]:
    """By so many workers of one core each; 0: by this process alone."""
    spec = {"limit": limit, "speed": False, "report": False, "out": str(out)}
    if not workers:
        suite.run(**spec)
        return stored(out)
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    suite.run(**spec, executor="ray", executor_cores=1)
    ray.shutdown()
    return stored(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--workers", default="1,2,3,7")
    given = parser.parse_args()
    differ = False
    with tempfile.TemporaryDirectory() as folder:
        local = run_on(0, given.limit, Path(folder) / "local")
        for number in map(int, given.workers.split(",")):
            found = run_on(number, given.limit, Path(folder) / f"ray{number}")
            same = sum(found.get(name) == data for name, data in local.items())
            differ |= found != local
            print(
                f"{number} workers: {same} of {len(local)} files the same, {len(found.keys() - local)} more", flush=True
            )
    sys.exit(differ)
