"""What a GPU is given to do: kernels, and those of one forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

PRODUCT, BATCHED, ATTENTION, BIASED = "product", "batched product", "attention", "biased attention"


@dataclass(frozen=True)
class Kernel:
    """An operator as it was dispatched.

    launches: kernels; 0 for a view. moved: bytes read and written, each element of an operand once. macs:
    multiply-accumulates, and kind: by which units ('' for elementwise work). host_read: the CPU waits for a value.
    """

    name: str
    launches: int
    moved: int
    macs: int = 0
    kind: str = ""
    host_read: bool = False


@dataclass(frozen=True)
class Trace:
    """The kernels of one forward, in order, and the most bytes in tensors at any moment, weights included."""

    kernels: tuple[Kernel, ...]
    peak: int

    @property
    def launches(self) -> int:
        return sum(kernel.launches for kernel in self.kernels)

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return sum(kernel.moved for kernel in self.kernels)

    @property
    def macs(self) -> int:
        return sum(kernel.macs for kernel in self.kernels)

    @property
    def host_reads(self) -> int:
        return sum(kernel.host_read for kernel in self.kernels)

    def rows(self) -> list[list[Any]]:
        """Every different kernel once, its fields in their order, and how often it ran: for storing."""
        return [[*fields, times] for fields, times in Counter(map(astuple, self.kernels)).items()]

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[Any]], peak: int, share: float = 1.0) -> Trace:
        """From `rows`, in whatever order. share: of bytes and products, as of a smaller batch (weights are so, too)."""
        kernels: list[Kernel] = []
        for name, launches, moved, macs, kind, host_read, times in rows:
            kernels += [Kernel(name, launches, round(moved * share), round(macs * share), kind, host_read)] * times
        return cls(tuple(kernels), peak)
