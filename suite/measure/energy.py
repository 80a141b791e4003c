"""What a GPU has used, by the counter of its driver (NVML)."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from suite.measure.machine import smi_id


def joules_so_far(device: torch.device) -> float | None:
    """Joules since the driver was loaded; None where nobody counts: no CUDA device, no NVML, or one before Volta."""
    handle = _handle(device) if device.type == "cuda" else None
    if handle is None:
        return None
    import pynvml

    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except pynvml.NVMLError:
        return None


@cache
def _handle(device: torch.device) -> Any:
    """NVML's name for the device; None where it has none."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(smi_id(device.index))
    except pynvml.NVMLError:
        return None
