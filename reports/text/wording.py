"""Numbers and names as people read them: no more digits than the noise supports, n/a where there is no data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import pandas as pd

Value = TypeVar("Value")

WIDE = 0.2  # of a speed: beyond, an interval is not symmetric about it
NO_DATA, EMBEDDED = "n/a", "embedded"


def known(value: Value | None) -> TypeGuard[Value]:
    """Whether there is data: neither None nor NaN."""
    return not pd.isna(value)


def significant(value: float | None, digits: int, noise: float = 0.0) -> str:
    """`value` with at most `digits` significant digits, and none finer than a tenth of `noise`'s first digit."""
    if not known(value):
        return NO_DATA
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if noise > 0:
        places = min(places, 1 - math.floor(math.log10(noise)))
    return _minus(f"{round(value, places):.{max(places, 0)}f}")


def whole(value: float) -> str:
    return f"{value:.0f}" if known(value) else NO_DATA


def gflops(value: float | None) -> str:
    """Four significant digits, as papers give them; three decimals at most (4.599, 31.75, 0.885)."""
    if not known(value):
        return NO_DATA
    return f"{value:.3f}" if 0.1 <= value < 10 else significant(value, 4)


def percent(fraction: float | None, decimals: int = 1, signed: bool = False) -> str:
    if not known(fraction):
        return NO_DATA
    return _minus(f"{100 * fraction:{'+' if signed else ''}.{decimals}f}".replace("+0.0", "0.0"))


def score(
    value: float,
    low: float,
    high: float,
    interval: bool = True,
    scale: float = 100,
    decimals: int = 1,
    largest: float | None = 1.0,
) -> str:
    """A score times `scale` ± half its interval: two decimals where that is below 0.5, else one.

    Where value ± half would be below 0 or above the largest possible, the interval itself: '95.0 [83.5, 98.6]'. A score
    without an interval has `decimals`.
    """
    if not known(value):
        return NO_DATA
    value, low, high = scale * value, scale * low, scale * high
    if not known(low) or not known(high):
        return f"{value:.{decimals}f}"
    half = (high - low) / 2
    if half == 0:
        return f"{value:.{decimals}f}"
    decimals = 2 if half < 0.5 else 1
    if not interval:
        return f"{value:.{decimals}f}"
    if value - half < 0 or (largest is not None and value + half > scale * largest):
        return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{value:.{decimals}f} ± {half:.{decimals}f}"


def speed(value: float, low: float, high: float) -> str:
    """Images per second ± half the interval, 3 significant digits at most; a wide interval itself: '70 [7, 640]'."""
    if not known(value) or not known(low) or not known(high):
        return significant(value, 3)
    half = (high - low) / 2
    if half > WIDE * value:
        return f"{significant(value, 2)} [{significant(low, 2)}, {significant(high, 2)}]"
    return significant(value, 3, half) + (f" ± {significant(half, 2 if half >= 10 else 1)}" if half > 0 else "")


def ratio(value: float | None, low: float | None, high: float | None) -> str:
    """A speed-up with its interval, 3 significant digits."""
    if not known(value) or not known(low) or not known(high):
        return significant(value, 3)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def reducer_label(reducer: str, options: str, mark: str = "") -> str:
    """A reducer's name, with a mark and its options if any: 'a (untrained, x=1)'; of a file, without folders."""
    return method_label(reducer.rsplit("/", 1)[-1], options, mark)


def method_label(name: str, options: str, mark: str = "") -> str:
    """The same of a name that is short enough already."""
    said = [mark] if mark else []
    said += [f"{option}={value}" for option, value in (json.loads(options) if options else {}).items()]
    return name + (f" ({', '.join(said)})" if said else "")


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Every path with no more of its folders than tell it from the others."""
    parts = {path: path.split("/") for path in paths}
    tails = {path: ["/".join(split[-length:]) for length in range(1, len(split) + 1)] for path, split in parts.items()}
    shared = Counter(tail for path in tails for tail in set(tails[path]))
    return {path: next((tail for tail in tails[path] if shared[tail] == 1), path) for path in tails}


def short_origins(sources: Iterable[str | None]) -> dict[str, str]:
    """Where weights are from, by their source as it is stored: short names, no two alike.

    A file's name, or its folder's, since every training calls its file alike; 'embedded' for what comes with the suite.
    """
    places = {source: _place(source) for source in sources if source}
    short = short_names({EMBEDDED, *places.values()})
    return {source: short[place] for source, place in places.items()}


def _place(source: str) -> str:
    if source.startswith(f"{EMBEDDED}:"):
        return EMBEDDED
    path = Path(source)
    return str(path.parent) if path.stem == "weights" and path.parent.name else source


def training_of(learned: str | None, source: str | None, origins: Mapping[str, str]) -> str:
    """'', 'untrained embedding' (or what else the method learns), or 'trained: ORIGIN'."""
    if source:
        return f"trained: {origins[source]}"
    return f"untrained {learned}" if learned else ""


def is_untrained(training: str) -> bool:
    """Whether a frame's `training` says that the method lacks what it has to learn."""
    return training.startswith("untrained")


def training_mark(training: str, short: bool = False) -> str:
    """What a reducer's label says about its training: 'untrained embedding', 'trained: run-3', or nothing.

    short: 'untrained'. The weights that come with the embedded models are just 'trained'.
    """
    if is_untrained(training):
        return training.split()[0] if short else training
    return "trained" if training == "trained: embedded" else training


def rate_label(rate: str, resolved: str) -> str:
    """What was asked and what it came to: 'flops=-35% → r=11'; one of them where they are the same."""
    rate, resolved = (text if known(text) else "" for text in (rate, resolved))
    if not rate:
        return "–"
    return rate if resolved in ("", rate) else f"{rate} → {resolved}"


def spread(value: str, low: str, high: str) -> str:
    """A value with what it is between, where that is known: '2.756 [2.610, 2.903]'."""
    return value if NO_DATA in (low, high) else f"{value} [{low}, {high}]"


def row_label(row: Any) -> str:
    """One row's name in a sentence: 'tome r=13', 'mctf (trained) r=13'."""
    label = reducer_label(row.reducer, row.options, training_mark(row.training, short=True))
    return f"{label} {row.rate if known(row.rate) else ''}".strip()


def shorten(text: str, width: int) -> str:
    """The text on one line of at most `width` characters; '…' where something was left out."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _minus(number: str) -> str:
    return number.replace("-", "−")
