"""Methods to try out many workers with: one whose forwards take a known time and no CPU, and one that kills."""

import os
import signal
import time
from pathlib import Path

import torch

from suite.reducers.random import Random


class Sleeper(Random):
    """Waits in the first block, as who waits for a device does. until: a file to wait for, two minutes at most."""

    def __init__(self, seconds: float = 0.1, until: str = "", seed: int = 0) -> None:
        super().__init__(seed)
        self.seconds, self.until = seconds, until

    def after_attention(self, tokens, signals, amount):
        if signals.block == 0 and is_batch(tokens.x):
            time.sleep(self.seconds)
            last = time.monotonic() + 120
            while self.until and not Path(self.until).exists() and time.monotonic() < last:
                time.sleep(self.seconds)
        return super().after_attention(tokens, signals, amount)


class Deadly(Random):
    """Kills the process that runs it."""

    def after_attention(self, tokens, signals, amount):
        if is_batch(tokens.x):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().after_attention(tokens, signals, amount)


def is_batch(tensor: torch.Tensor) -> bool:
    """Whether it is of images that are evaluated: costs are counted on one, or on shapes."""
    return type(tensor) is torch.Tensor and len(tensor) > 1
