"""What a device has used: a GPU by the counter of its driver (NVML), a processor by its own (RAPL), all of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from suite.measure.machine import smi_id

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the counters of Intel's and AMD's processors; since 2020 to root alone, unless told otherwise."""


def joules_so_far(device: torch.device) -> float | None:
    """Joules since some moment; None where nobody counts: no RAPL that may be read, no NVML, or a GPU before Volta.

    Those of a processor are of all its cores, whoever uses them.
    """
    if device.type == "cpu":
        return processor_joules(POWERCAP)
    handle = _handle(device) if device.type == "cuda" else None
    if handle is None:
        return None
    import pynvml

    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except pynvml.NVMLError:
        return None


def joules_between(before: float | None, after: float | None) -> float | None:
    """None where one of them is not known, or the counter has begun anew between them, as RAPL's do within the hour."""
    return None if before is None or after is None or after < before else after - before


def processor_joules(folder: Path) -> float | None:
    """Of all packages of the machine; None where one cannot be read, or there is none."""
    try:
        used = [
            int((package / "energy_uj").read_text()) for package in folder.glob("intel-rapl:[0-9]*") if whole(package)
        ]
    except (OSError, ValueError):
        return None
    return sum(used) / 1e6 if used else None


def whole(domain: Path) -> bool:
    """A package, and no part of one, which it counts already."""
    return domain.name.count(":") == 1 and (domain / "name").read_text().startswith("package")


@cache
def _handle(device: torch.device) -> Any:
    """NVML's name for the device; None where it has none."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(smi_id(device.index))
    except pynvml.NVMLError:
        return None
