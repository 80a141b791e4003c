"""Measurements that need a process of their own, for their peaks of memory, their threads or their cluster."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def measure_apart(
    parser: argparse.ArgumentParser, several: str, measure: Callable[[argparse.Namespace], dict[str, float]]
) -> None:
    """Print what `measure` finds for each value of the option `several`, which is a list 'a,b'.

    measure: is given the options with one of the values, in a new process that was started like this one.
    """
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked)))
        return
    for value in getattr(asked, several).split(","):
        command = [sys.executable, "-m", sys.modules["__main__"].__spec__.name, "--one"]
        for name, given in vars(asked).items():
            if name != "one":
                command += [f"--{name.replace('_', '-')}", value if name == several else str(given)]
        found: dict[str, Any] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
        print("  ".join(f"{name}: {value:.4g}" for name, value in found.items()), flush=True)
