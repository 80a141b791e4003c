"""Run folders that can be compared, and the commands that compare them."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.cli.app import main
from suite.gate.side import Entry
from tests.unit.run_folder import rewrite

IDENTITY = {
    "task": "scenes", "samples": "400 (abc)", "model": "vit_scenes", "weights": "w" * 64, "precision": "fp32",
    "image_size": None, "task_options": {}, "protocol": {}, "torch": "2", "timm": "1", "device": "cpu",
}  # fmt: skip


def identified(out: Path, **changes) -> Path:
    rewrite(out / "run.json", identity=IDENTITY | changes, slots={})
    return out


def cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def entry(reducer: str, gmacs: float | None, status: str = "done", rate: str = "r=1", **changes) -> Entry:
    values = {
        "key": f"{reducer}-{gmacs}", "options": "", "training": "", "resolved_rate": rate, "reason": "it broke",
        "reduction": None, "memory_mib": None, "speed": None, "whole_speed": None,
    }  # fmt: skip
    return Entry(reducer=reducer, gmacs=gmacs, status=status, rate=rate, **(values | changes))
