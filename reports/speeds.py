"""What was timed of a cell, under one runtime, as columns of the frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from reports.cells import Cell
from suite.store.schema import TIMINGS

INTERVAL = ("", "_low", "_high")
LATENCIES = ("p50", "p90", "p99")
SPEED_TEXTS = ("runtime", "fastest_runtime", "attention")
"""How it was run; how the unreduced model runs fastest, of the ways that were timed beside it; attention's kernels."""
FURTHER_NUMBERS = (
    *(f"speedup_fastest{end}" for end in INTERVAL),  # over the unreduced model as it runs fastest
    *(f"latency_{part}_ms" for part in LATENCIES),  # of a forward on a whole batch
    *(f"single_{part}_ms" for part in LATENCIES),  # of a forward on one image
    "energy_j",  # joules per image
    "compile_s",
)
TIMED = (
    *(f"{name}{end}" for name in ("im_s", "speedup") for end in INTERVAL), *FURTHER_NUMBERS, "peak_memory_mib",
    *SPEED_TEXTS, "speed_note",
)  # fmt: skip
"""The columns that hang on the runtime and the device."""
CIRCUMSTANCES = {name: name for name in ("device", "runtime", "tf32", "aa_low", "aa_high", "noisy")}
CIRCUMSTANCES["timed_batch_size"] = "batch_size"
"""What captions need beside them -> the field that it is stored in."""


def shown_runtime(spec: Mapping[str, Any], cells: Iterable[Cell]) -> str:
    """The runtime whose speeds stand in the tables: the first that was asked for last; '' where none was timed."""
    timed = [name for cell in cells for name in cell.timings["speed"]]
    return next(iter([*(spec.get("runtime") or ()), *timed]), "")


def speed_rows(cell: Cell) -> list[dict[str, Any]]:
    """What was timed of the cell on every device, the tables' own first, a row a runtime: see `speed_row`; `timing`:
    see `timing_of`."""
    others = [{file: files.get(file, {}) for file in TIMINGS} for files in cell.elsewhere.values()]
    on_devices = [cell, *(replace(cell, timings=timings) for timings in others)]
    return [
        {**speed_row(one, runtime), "timing": timing_of(speed)}
        for one in on_devices
        for runtime, speed in one.timings["speed"].items()
    ]


def speed_row(cell: Cell, runtime: str) -> dict[str, Any]:
    """Columns of the cell's speed under a runtime, and a note on what keeps it from being read at face value."""
    speed, single = cell.timed("speed", runtime), cell.timed("single_speed", runtime) or {}
    found = speed or {}
    memory, attention = found.get("peak_memory_bytes"), found.get("attention") or ""
    return {
        **interval_columns(speed, {name: name for name in ("im_s", "speedup", "speedup_fastest")}),
        **{name: found.get(name) for name in ("energy_j", "compile_s")},
        **{f"latency_{part}_ms": found.get(f"latency_{part}_ms") for part in LATENCIES},
        **{f"single_{part}_ms": single.get(f"latency_{part}_ms") for part in LATENCIES},
        "device": found.get("device") or "",
        "runtime": found.get("runtime") or "",
        "fastest_runtime": found.get("fastest_runtime") or "",
        "attention": f"{attention} (reads the map)" if found.get("reads_map") else attention,
        "peak_memory_mib": None if memory is None else memory / 2**20,
        "speed_note": speed_note(speed, cell.about),
    }


def whole_speed_of(cell: Cell) -> dict[str, Any] | None:
    """What was timed of the whole model, which runs in one way alone."""
    return next(iter(cell.timings["whole_speed"].values()), None)


def first_seconds(speed: dict[str, Any] | None) -> float | None:
    """Seconds a sample of the first batch that was timed; None where older runs do not say."""
    found = speed or {}
    first, count = found.get("first_s"), found.get("batch_size")
    return None if first is None or not count else first / count


def timing_of(speed: dict[str, Any] | None, prefix: str = "") -> dict[str, Any]:
    """How a speed was measured, under names that begin with `prefix`."""
    return {f"{prefix}{name}": (speed or {}).get(field) for name, field in CIRCUMSTANCES.items()}


def interval_columns(speed: dict[str, Any] | None, parts: dict[str, str]) -> dict[str, Any]:
    """Column -> what is stored under its part, each with its interval."""
    return {f"{name}{end}": (speed or {}).get(f"{part}{end}") for name, part in parts.items() for end in INTERVAL}


def speed_note(speed: dict[str, Any] | None, about: dict[str, Any]) -> str:
    if speed is None:
        return ""
    notes = [speed["note"]] if speed.get("note") else []
    for name in ("batch_size", "precision"):  # a reader would take the cell's own for granted
        if speed.get(name) not in (None, about.get(name)):
            notes.append(f"timed at {name.replace('_', ' ')} {speed[name]}")
    return "; ".join([*notes, *(["noisy"] if speed.get("noisy") and speed.get("im_s") is not None else [])])
