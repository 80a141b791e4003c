#!/usr/bin/env python3
"""Benchmark of token reduction in Vision Transformers. `python run_bench.py` runs the embedded default."""

import os
import signal
from types import FrameType


def main() -> None:
    """The program. Until it listens to signals itself, nothing is begun that these could interrupt."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    from suite.cli.program import main as run

    run()


def end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted; nothing was begun\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
