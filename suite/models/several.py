"""Files that hold several models: which of them is meant, by the user's word or by rule, and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

AVERAGED = (r"(^|[._])(ema|swa|avg)([._]|$)|averaged?([._]|$)|polyak|shadow", r"(^|[._])teacher([._]|$)")
FIRST, AVERAGES = "the first in the file", "averaged weights first"


def split_choice(source: str) -> tuple[Path, str]:
    """'f.pth::model_ema' -> the file, and which of the models in it; '' where none is named."""
    file, mark, choice = source.rpartition("::")
    return (Path(file), choice) if mark and not Path(source).exists() else (Path(source), "")


def rank(place: str) -> int:
    """Averages of weights over training before others, as timm takes them: 0 before 1 before `len(AVERAGED)`."""
    kinds = [number for number, pattern in enumerate(AVERAGED) if re.search(pattern, place)]
    return min(kinds, default=len(AVERAGED))


def say_choice(path: Path, taken: str, others: Sequence[str], why: str) -> str:
    """The remark on a model that was taken without being named."""
    return (
        f"it holds {len(others) + 1} models; {taken} is taken and not {', '.join(others)} ({why}); choose with "
        f"--checkpoint {path}::NAME"
    )


def say_choice_of(path: Path, taken: str, others: Sequence[str]) -> str:
    """The same where averages go before others and the first before the rest; '' where there are no others."""
    return say_choice(path, taken, others, FIRST if rank(taken) == len(AVERAGED) else AVERAGES) if others else ""
