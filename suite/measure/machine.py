"""What ran the measurement: processor, GPU and its state, versions, state of the checkout. JSON-serialisable."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from suite.errors import what_ran_out
from suite.measure.precision import tf32_setting

DISTRIBUTION = "reducerbench"
ROOT = Path(__file__).resolve().parents[2]

GPU_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "max_sm_clock_mhz": "clocks.max.sm",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
    "throttle": "clocks_event_reasons.active",
}
# bits of clocks_event_reasons.active: thermal and hardware slow-down. The power cap (0x04) is normal at full load.
SLOWED = {0x08: "hardware slowdown", 0x20: "thermal (software)", 0x40: "thermal (hardware)", 0x80: "power brake"}


def describe_machine() -> dict[str, Any]:
    """Everything about this machine that can move a measured number. What cannot be found out is None."""
    return {
        "cpu": cpu_name(),
        "cores": _physical_cores(),
        "logical_cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": load_average(),
        "ram_bytes": _ram_bytes(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "gpus": [describe_gpu(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "tf32": tf32_setting() if torch.cuda.is_available() else None,
        "packages": package_versions(),
        "git": git_state(ROOT),
    }


def describe_gpu(index: int) -> dict[str, Any]:
    """A CUDA device as torch and nvidia-smi see it; without nvidia-smi its clocks, power and driver are None."""
    properties = torch.cuda.get_device_properties(index)
    return {
        **gpu_state(index),
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
    }


def device_name(device: torch.device) -> str:
    """'NVIDIA H100 80GB HBM3', or the processor's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def gpu_state(index: int | None = None) -> dict[str, Any]:
    """Clocks, temperature, power and throttle bits of a CUDA device now. Values that nobody tells are None."""
    fields, line = ",".join(GPU_FIELDS.values()), None
    for reasons in ("clocks_event_reasons", "clocks_throttle_reasons"):  # the name before driver 535
        query = fields.replace("clocks_event_reasons", reasons)
        line = line or _output(
            "nvidia-smi", f"--id={smi_id(index)}", f"--query-gpu={query}", "--format=csv,noheader,nounits"
        )
    return parse_gpu_state(line)


def parse_gpu_state(line: str | None) -> dict[str, Any]:
    """One CSV line of nvidia-smi as numbers; '[N/A]', '[Not Supported]' and a missing line become None."""
    cells = [cell.strip() for cell in line.splitlines()[0].split(",")] if line else []
    if len(cells) != len(GPU_FIELDS):
        return dict.fromkeys(GPU_FIELDS)
    return {name: _number_or_text(cell) for name, cell in zip(GPU_FIELDS, cells)}


def slowdowns(state: dict[str, Any]) -> list[str]:
    """Why the GPU was slowing itself down beyond its power cap; empty when it was not, or when nobody tells."""
    bits = state.get("throttle")
    return [reason for bit, reason in SLOWED.items() if isinstance(bits, int) and bits & bit]


def gpu_processes(index: int | None = None) -> int | None:
    """How many processes compute on the GPU, this one included; None where nvidia-smi does not tell."""
    lines = _output("nvidia-smi", f"--id={smi_id(index)}", "--query-compute-apps=pid", "--format=csv,noheader")
    return None if lines is None else sum(line.strip().isdigit() for line in lines.splitlines())


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load_average() -> float | None:
    """Mean number of runnable processes over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def package_versions() -> dict[str, str | None]:
    """Installed versions of what the project requires; None for what is not installed."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        required = ["torch", "torchvision", "timm", "transformers", "fvcore", "numpy", "pandas", "pyarrow", "scipy"]
    names = [_name(requirement) for requirement in required if "extra ==" not in requirement]
    return {name: _version(name) for name in names}


def git_state(root: Path) -> dict[str, Any] | None:
    """Commit of the checkout at `root` and whether files differ from it; None when `root` is not a checkout."""
    if not (root / ".git").exists():
        return None
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(root), "status", "--porcelain")
    if commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def smi_id(index: int | None) -> str:
    """nvidia-smi counts all cards, torch those it is allowed to see: the UUID means the same card to both."""
    uuid = getattr(torch.cuda.get_device_properties(index or 0), "uuid", None) if torch.cuda.is_available() else None
    return f"GPU-{uuid}" if uuid is not None else str(index or 0)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        if what_ran_out(error):  # else the run would be stored without the commit that made it
            raise
        return None
    return done.stdout


def _number_or_text(cell: str) -> int | float | str | None:
    if not cell or cell.startswith("["):
        return None
    for kind in (lambda text: int(text, 0), float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _physical_cores() -> int | None:
    """Cores without hyper-threads, as Linux counts them."""
    try:
        blocks = Path("/proc/cpuinfo").read_text(encoding="utf-8").strip().split("\n\n")
    except OSError:
        return None
    keys = ("physical id", "core id")
    cores = {tuple(line for line in block.splitlines() if line.startswith(keys)) for block in blocks}
    return len(cores) if cores != {()} else None


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _name(requirement: str) -> str:
    for stop in "<>=!~;[ (":
        requirement = requirement.partition(stop)[0]
    return requirement


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
