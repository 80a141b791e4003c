"""A run on more samples takes over what an earlier one has stored of its cells: outcomes, costs, rates and speeds."""

from __future__ import annotations

from pathlib import Path

from suite.store.folder import RunFolder
from suite.store.schema import TIMINGS
from suite.sweep.plan import Plan

MEASURED_ONCE = ("flops", "kernels", *TIMINGS)


def take_over(plan: Plan, earlier: Path) -> None:
    """Fill the cells of `plan` that hold nothing yet from the cells of `earlier` that measure the same.

    `earlier` is a run of the same identity but for its samples, which are among the plan's. What it lacks is run.
    """
    folder, _ = plan.open_folder()
    before = RunFolder(earlier)
    keys = {slot: key for key, slot in before.read_run()["slots"].items()}
    folder.contents.take_over(before.contents)
    for key, method in plan.methods.items():
        if method.slot not in keys:
            continue
        old, new = before.cell(keys[method.slot]), folder.cell(key)
        about = old.read("cell")
        if about is None or new.read("cell") is not None:
            continue
        for name in MEASURED_ONCE:
            value = old.read(name)
            if value is not None:
                new.write(name, value)
        new.shards.take_over(old.shards)
        new.write("cell", about | {"key": key})  # last: it says that the rest is there
