"""Timings of a cell by the device that was timed: a column holds those of one, the others stand apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from suite.store.folder import CellFolder
from suite.store.schema import TIMINGS

Runtimes = dict[str, dict[str, Any]]
"""By the runtime's name, the fields of a speed."""
Timed = dict[str, dict[str, Runtimes]]
"""Device -> file of TIMINGS -> what was timed in the same rounds."""
UNNAMED = "a device without a name"


def read_timings(cell: CellFolder) -> Timed:
    """All that was timed of a cell, that of its run's own device first."""
    found: Timed = {}
    for file in TIMINGS:
        for runtime, speed in (cell.read(file) or {"runtimes": {}})["runtimes"].items():
            device = found.setdefault(speed.get("device") or UNNAMED, {})
            device.setdefault(file, {})[runtime] = speed
    return join_timings([found, (cell.read("elsewhere") or {"devices": {}})["devices"]])


def join_timings(timings: Iterable[Timed]) -> Timed:
    """Of what was timed of one device several times, that under most runtimes, else the first: rounds are not mixed."""
    joined: Timed = {}
    for timed in timings:
        for device, files in timed.items():
            mine = joined.setdefault(device, {})
            for file, runtimes in files.items():
                if len(runtimes) > len(mine.get(file, ())):
                    mine[file] = runtimes
    return joined


def main_device(timings: Iterable[Iterable[str]]) -> str | None:
    """The device that most cells were timed on, of several the first; None where none was.

    timings: of every cell, the devices.
    """
    count = Counter(device for timed in timings for device in timed)
    return max(count, key=count.__getitem__, default=None)


def write_timings(cell: CellFolder, timed: Timed, device: str | None) -> None:
    """Those of `device` where the tables look for them, all others in elsewhere.json."""
    for file, runtimes in timed.get(device or "", {}).items():
        cell.write(file, {"runtimes": runtimes})
    if others := {name: files for name, files in timed.items() if name != device}:
        cell.write("elsewhere", {"devices": others})
