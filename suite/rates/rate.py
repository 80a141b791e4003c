"""A rate: what is asked of a method. Its text is read here and nowhere else; from there on it is a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from suite.errors import RequestError
from suite.rates.form import Blocks, Rate, RateOfBlocks, decimal, decimals, is_list, items, plain
from suite.rates.image_rates import ImageSide, PatchGrid

__all__ = [
    "FlopsTarget",
    "FractionPerBlock",
    "GridLines",
    "ImageSide",
    "KeptFraction",
    "LearnedPlan",
    "MergedPortion",
    "PatchGrid",
    "Rate",
    "RateOfBlocks",
    "SimilarityThreshold",
    "TokensPerBlock",
    "parse_rate",
    "parse_target",
    "rate_text",
    "stored_rate",
]

EXAMPLES = (
    "r=13, r=16:-1, r=[16,16,8], r=0.35@3,6,9, keep=0.7, keep=0.7@3,6,9, merge=0.3, lines=2, tau=0.9, side=160, "
    "grid=10 or flops=-35%"
)


@dataclass(frozen=True, repr=False)
class TokensPerBlock(RateOfBlocks):
    """r=13: so many tokens out of every block. r=[16,16,8]: of the first, second, ... block. r=16:-1: 16 on average,
    changing linearly with the depth by `inflection`, in [-1, 1] (ToMe's parse_r)."""

    prefix = form = "r"
    r: int | tuple[int, ...]
    inflection: float | None = None

    def __post_init__(self) -> None:
        if self.inflection is not None and not -1 <= self.inflection <= 1:
            raise RequestError(f"rate {str(self)!r}: the inflection must lie in [-1, 1], not {self.inflection:g}")
        least = min(self.r) if isinstance(self.r, tuple) else self.r
        if least < 0:
            raise RequestError(f"rate {str(self)!r} asks for {least} tokens; r counts tokens taken out, use r>=0")
        if self.blocks is not None and (isinstance(self.r, tuple) or self.inflection is not None):
            raise RequestError(f"rate {str(self)!r}: '@blocks' goes with one number, r=13@3,6,9")

    def _amount(self) -> str:
        if isinstance(self.r, tuple):
            return f"[{','.join(map(str, self.r))}]"
        return self._at_blocks(f"{self.r}" if self.inflection is None else f"{self.r}:{plain(self.inflection)}")

    @property
    def strength(self) -> float:
        return fmean(self.r) if isinstance(self.r, tuple) else self.r


@dataclass(frozen=True, repr=False)
class FractionPerBlock(RateOfBlocks):
    """r=0.35: this fraction of the patches that enter a block is taken out of it (MCTF)."""

    prefix = form = "r"
    fraction: float

    def _amount(self) -> str:
        return self._at_blocks(plain(self.fraction))

    @property
    def strength(self) -> float:
        return self.fraction


@dataclass(frozen=True, repr=False)
class KeptFraction(RateOfBlocks):
    """keep=0.7: this fraction is kept, by the method's own rule. keep=[0.7,0.5,0.3]: of the original patches, in the
    first, second, ... block that it acts in (dTPS)."""

    prefix = form = "keep"
    keep: float | tuple[float, ...]

    def __post_init__(self) -> None:
        for keep in self.keep if isinstance(self.keep, tuple) else (self.keep,):
            if not 0 < keep <= 1:
                raise RequestError(f"rate {str(self)!r}: the kept fraction must lie in (0, 1], not {keep:g}")
        if isinstance(self.keep, tuple) and any(later > earlier for earlier, later in pairwise(self.keep)):
            raise RequestError(f"rate {str(self)!r}: kept fractions are of the original patches, so they cannot grow")

    def _amount(self) -> str:
        if isinstance(self.keep, tuple):
            return self._at_blocks(f"[{','.join(map(plain, self.keep))}]")
        return self._at_blocks(plain(self.keep))

    @property
    def strength(self) -> float:
        return 1 - (fmean(self.keep) if isinstance(self.keep, tuple) else self.keep)


@dataclass(frozen=True, repr=False)
class MergedPortion(RateOfBlocks):
    """merge=0.3: this portion of all patches is taken out in total, spread evenly over the blocks (at least so much, by
    a method whose counts depend on the image)."""

    prefix, form = "merge", "r"
    portion: float

    def __post_init__(self) -> None:
        if not 0 <= self.portion < 1:
            raise RequestError(
                f"rate {str(self)!r}: the portion of tokens taken out must lie in [0, 1), not {self.portion:g}"
            )

    def _amount(self) -> str:
        return self._at_blocks(plain(self.portion))

    @property
    def strength(self) -> float:
        return self.portion


@dataclass(frozen=True, repr=False)
class GridLines(RateOfBlocks):
    """lines=2: so many rows and so many columns of patches are taken out of every block that it acts in, of which a
    grid is left. lines=[4,3]: 4 rows and 3 columns."""

    prefix = form = "lines"
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 0:
            raise RequestError(f"rate {str(self)!r} asks for a negative number of lines; it counts those taken out")

    def _amount(self) -> str:
        return self._at_blocks(f"{self.rows}" if self.rows == self.columns else f"[{self.rows},{self.columns}]")

    @property
    def strength(self) -> float:
        return self.rows + self.columns


@dataclass(frozen=True, repr=False)
class SimilarityThreshold(RateOfBlocks):
    """tau=0.9: what is more alike than this (a cosine) makes a token redundant; how many are depends on the image.
    tau=[0.9,0.8]: in the first, second, ... block that it acts in; 1: nothing goes there."""

    prefix = form = "tau"
    tau: float | tuple[float, ...]

    def __post_init__(self) -> None:
        for tau in self.taus:
            if not -1 <= tau <= 1:
                raise RequestError(f"rate {str(self)!r}: a threshold is a cosine, in [-1, 1], not {tau:g}")

    @property
    def taus(self) -> tuple[float, ...]:
        return self.tau if isinstance(self.tau, tuple) else (self.tau,)

    def _amount(self) -> str:
        if isinstance(self.tau, tuple):
            return self._at_blocks(f"[{','.join(map(plain, self.tau))}]")
        return self._at_blocks(plain(self.tau))

    @property
    def strength(self) -> float:
        return 1 - fmean(self.taus)


@dataclass(frozen=True, repr=False)
class LearnedPlan(Rate):
    """plan=1: this one of the schedules that the method has learned, from 1 in order of strength."""

    prefix = form = "plan"
    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise RequestError(f"rate {str(self)!r}: plans count from 1, the weakest; for no reduction write r=0")

    def _amount(self) -> str:
        return str(self.number)

    @property
    def strength(self) -> float:
        return self.number


@dataclass(frozen=True, repr=False)
class FlopsTarget(Rate):
    """flops=-35%: whatever changes the total cost by so much, -0.35; no rate yet, but what one is solved for."""

    prefix = form = "flops"
    change: float

    def __post_init__(self) -> None:
        if not -1 < self.change <= 0:
            raise RequestError(
                f"rate {str(self)!r}: write the change of total FLOPs, between 0 and -100 %, such as flops=-35%"
            )

    @property
    def amount(self) -> str:
        """'-35%', as a spec lists targets."""
        return self.written.partition("=")[2].strip() or self._amount()

    def _amount(self) -> str:
        return f"{100 * self.change:.2f}%"

    @property
    def strength(self) -> float:
        return -self.change


def parse_rate(text: str) -> Rate:
    """'r=13', 'r=16:-1', 'r=[16,8]', 'keep=0.7', '...@3,6,9', 'merge=0.3', 'lines=2', 'tau=0.9', 'side=160', 'grid=10',
    'plan=1', 'flops=-35%'.

    RequestError for others.
    """
    compact = re.sub(r"\s*([=:,@%[\]])\s*", r"\1", text.strip())  # 'r=1 3' stays what it is, and is refused
    body, staged, at = compact.partition("@")
    prefix, _, amount = body.partition("=")
    try:
        if staged:
            return OF_BLOCKS[prefix](amount, tuple(int(block) for block in at.split(",")), text)
        if prefix in OF_BLOCKS:
            return OF_BLOCKS[prefix](amount, None, text)
        if prefix in OF_ONE_NUMBER:
            return OF_ONE_NUMBER[prefix](int(amount), written=text)
        if prefix == FlopsTarget.prefix:
            change = float(amount[:-1]) / 100 if amount.endswith("%") else float(amount)
            return FlopsTarget(change, written=text)
    except (ValueError, KeyError):
        pass
    raise RequestError(f"rate {text!r} cannot be read; write for example {EXAMPLES}")


def parse_target(amount: str) -> FlopsTarget:
    """'-35%' or '-0.35', the change of total FLOPs. RequestError for others."""
    target = parse_rate(f"{FlopsTarget.prefix}={amount}")
    assert isinstance(target, FlopsTarget)
    return target


def is_target(text: str) -> bool:
    """Whether what a run's folder says was asked for is a change of total FLOPs."""
    return text.startswith(f"{FlopsTarget.prefix}=")


def stored_rate(text: str) -> Rate | None:
    """What a run's folder says, where no rate is ''."""
    return parse_rate(text) if text else None


def rate_text(rate: Rate | None) -> str:
    """What a run's folder is told."""
    return "" if rate is None else str(rate)


def _read_r(amount: str, blocks: Blocks, text: str) -> Rate:
    if is_list(amount):
        return TokensPerBlock(tuple(map(int, items(amount))), blocks=blocks, written=text)
    if ":" in amount:
        r, _, inflection = amount.partition(":")
        return TokensPerBlock(int(r), float(inflection), blocks=blocks, written=text)
    if re.fullmatch(r"0?\.\d+", amount) and float(amount) > 0:
        return FractionPerBlock(float(amount), blocks=blocks, written=text)
    return TokensPerBlock(int(amount), blocks=blocks, written=text)


def _read_keep(amount: str, blocks: Blocks, text: str) -> Rate:
    return KeptFraction(decimals(amount), blocks=blocks, written=text)


def _read_tau(amount: str, blocks: Blocks, text: str) -> Rate:
    return SimilarityThreshold(decimals(amount), blocks=blocks, written=text)


def _read_lines(amount: str, blocks: Blocks, text: str) -> Rate:
    rows, columns = map(int, items(amount) if is_list(amount) else (amount, amount))
    return GridLines(rows, columns, blocks=blocks, written=text)


def _read_merge(amount: str, blocks: Blocks, text: str) -> Rate:
    return MergedPortion(decimal(amount), blocks=blocks, written=text)


OF_BLOCKS: dict[str, Callable[[str, Blocks, str], Rate]] = {
    "r": _read_r,
    "keep": _read_keep,
    "merge": _read_merge,
    "lines": _read_lines,
    "tau": _read_tau,
}
OF_ONE_NUMBER: dict[str, type[LearnedPlan | ImageSide | PatchGrid]] = {
    kind.prefix: kind for kind in (LearnedPlan, ImageSide, PatchGrid)
}
