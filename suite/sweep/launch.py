"""Processes that torchrun starts of one command: how many there are, and which of them this one is."""

from __future__ import annotations

import os
from typing import NamedTuple


class Launch(NamedTuple):
    """world: number of processes. rank: number of this one, from 0. local: its number on its machine."""

    world: int
    rank: int
    local: int


def launched() -> Launch:
    """As torchrun says; one process where it says nothing."""
    return Launch(*(int(os.environ.get(name, alone)) for name, alone in
                    (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))))  # fmt: skip
