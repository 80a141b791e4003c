"""What the driver and its workers tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from suite.contract.task import ReadError, Sample
from suite.sweep.executors.ray.units import Pair
from suite.sweep.timing import Timed

WINDOW = 16
"""Events of a worker that the driver has not acknowledged: what a worker that dies may have done unseen."""


@dataclass(frozen=True)
class Assignment:
    """A plan as workers are told of it. rates, batch_sizes: by the keys of cells, what the driver has resolved and
    what fitted the memory before."""

    spec: dict[str, Any]
    identity: dict[str, Any]
    rates: dict[str, str]
    batch_sizes: dict[str, int]


@dataclass(frozen=True)
class TimeOrder:
    """A cell, to be timed beside the unreduced model; files: of speeds, with the runtimes of each."""

    lane: int
    key: str
    files: dict[str, Sequence[str]]


@dataclass(frozen=True)
class About:
    """A worker. sources: digest of the code that it runs."""

    host: str
    pid: int
    device: str
    sources: str


@dataclass(frozen=True)
class Opened:
    """A plan was made, and its model loaded."""

    lane: int


@dataclass(frozen=True)
class Read:
    """A batch was read: see `Sink.decoded`."""

    lane: int
    number: int
    samples: Sequence[Sample]
    errors: Sequence[ReadError]


@dataclass(frozen=True)
class Scored:
    """Rows of a batch as an Arrow IPC stream, and how many; none where no sample can be read. batch_size: of a forward
    that fits the memory."""

    pair: Pair
    packed: bytes
    rows: int
    batch_size: int


@dataclass(frozen=True)
class Failed:
    """A cell has no outcome for a batch."""

    pair: Pair
    reason: str


@dataclass(frozen=True)
class Measured:
    """What an order to time a cell came to, by the file."""

    lane: int
    key: str
    files: dict[str, Timed]


@dataclass(frozen=True)
class Refused:
    """The worker cannot do what it was told, and nobody else on its node can."""

    reason: str


@dataclass(frozen=True)
class Broken:
    """What the worker was told is nothing that anybody can do; `defect`: by a fault of this program."""

    reason: str
    defect: bool


Event = Opened | Read | Scored | Failed | Measured | Refused | Broken
