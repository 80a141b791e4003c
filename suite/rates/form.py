"""What all forms of rates have in common, and how numbers are written in them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
Blocks = tuple[int, ...] | None


@dataclass(frozen=True, repr=False)
class Rate(ABC):
    """What is asked of a method, in one of the forms below. `str` is its text as it was written, else the plainest.

    A rate that can be made can be asked: RequestError, where it is made, for numbers that mean nothing. Two are equal
    if they mean the same, however they were written.
    """

    prefix: ClassVar[str]
    """What its text begins with, before '='."""
    form: ClassVar[str]
    """What a method must accept (`Reducer.rates`) to be given it."""
    written: str = field(default="", compare=False, kw_only=True)
    """The text that it was read from; '' of a rate that was computed."""

    def __str__(self) -> str:
        return self.written or f"{self.prefix}={self._amount()}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @abstractmethod
    def _amount(self) -> str:
        """The text behind '='."""

    @property
    def is_zero(self) -> bool:
        """Asks for no reduction at all (r=0, keep=1, merge=0, lines=0, tau=1, flops=0%), which every method can do."""
        return self.strength == 0

    @property
    @abstractmethod
    def strength(self) -> float:
        """Grows with what is taken out; compares rates of one prefix."""


@dataclass(frozen=True, repr=False)
class RateOfBlocks(Rate):
    """A rate that says itself what blocks take out. blocks: 0-based, those that it acts in; None: the method's own."""

    blocks: Blocks = field(default=None, kw_only=True)

    def _at_blocks(self, amount: str) -> str:
        return amount if self.blocks is None else f"{amount}@{','.join(map(str, self.blocks))}"


def plain(value: float) -> str:
    """A number as it would be written: 0.7, 1."""
    return repr(value).removesuffix(".0")


def is_list(amount: str) -> bool:
    return amount.startswith("[") and amount.endswith("]")


def items(amount: str) -> list[str]:
    return amount[1:-1].rstrip(",").split(",")


def decimals(amount: str) -> float | tuple[float, ...]:
    """A number, or a list of numbers."""
    return tuple(map(decimal, items(amount))) if is_list(amount) else decimal(amount)


def decimal(text: str) -> float:
    """ValueError for what float() takes beside plain numbers: 'nan', '1e-3', '1_000'."""
    if not re.fullmatch(NUMBER, text):
        raise ValueError(text)
    return float(text)
