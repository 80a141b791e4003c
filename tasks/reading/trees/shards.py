"""Which files are the shards of a data set: all those of one split, or those that a pattern names."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from suite.errors import RequestError

PARQUET, TARS = (".parquet",), (".tar", ".tar.gz", ".tgz")
PREFERRED = ("validation", "val", "valid", "test")
SPLITS = (*PREFERRED, "train", "training")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)\.\w+")


def is_pattern(data: str) -> bool:
    """Whether `data` names several files: `val-{000..063}.tar`, `val-*.tar`."""
    return any(sign in data for sign in "{*?[")


def expand(pattern: str) -> list[Path]:
    """The files that a pattern of braces and wildcards names, in its order. RequestError for one that is not there."""
    found: list[Path] = []
    for text in _expand_braces(pattern):
        matches = [text] if Path(text).is_file() else sorted(glob(text))
        if not matches:
            raise RequestError(f"data '{pattern}': there is no file '{text}'; name shards that are all there")
        found += map(Path, matches)
    return found


def _expand_braces(text: str) -> list[str]:
    match = BRACES.search(text)
    if match is None:
        return [text]
    first, last, listed = match.groups()
    if listed is None:
        width = len(first) if first.startswith("0") else 0
        items = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    else:
        items = listed.split(",")
    return [whole for item in items for whole in _expand_braces(text[: match.start()] + item + text[match.end() :])]


def choose_split(location: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The shards below `location` that are of one split, and notes on those that are left.

    Of several splits the first of `PREFERRED`. RequestError where it is open which are meant, or where one is missing.
    """
    splits = defaultdict(list)
    for name in names:
        splits[_split_of(name)].append(name)
    chosen = next((split for split in PREFERRED if split in splits), None)
    if chosen is None:
        chosen, *others = splits
        if others:
            some = " and ".join(f"'{splits[split][0]}'" for split in (chosen, others[0]))
            raise RequestError(
                f"data '{location}' holds {some}, neither of a split {', '.join(PREFERRED)}; name the shards that are "
                "meant with a pattern"
            )
    shards = splits.pop(chosen)
    folders = sorted({posixpath.dirname(name) for name in shards})
    if len(folders) > 1:
        raise RequestError(
            f"data '{location}' holds shards in several folders: {', '.join(folder or '.' for folder in folders)}; "
            "name one of them with --data"
        )
    _check_complete(location, shards)
    left = f", not those of {', '.join(map(_shown, sorted(splits)))}" if splits else ""
    return shards, [f"shards of {_shown(chosen)} are used{left}"] if left or chosen not in ("", *PREFERRED) else []


def _shown(split: str) -> str:
    return f"split '{split}'" if split else "no split"


def _split_of(name: str) -> str:
    """What the file's name says, or else the folders that it lies in; '' where they say nothing."""
    for part in reversed(name.lower().split("/")):
        for word in re.split(r"[^a-z]+", part):
            if word in SPLITS:
                return word
    return ""


def _check_complete(location: Path, shards: Sequence[str]) -> None:
    """RequestError where names such as `validation-00003-of-00014` count more shards than there are."""
    numbers = defaultdict(set)
    for match in filter(None, map(NUMBERED.fullmatch, shards)):
        numbers[match[1], match[3]].add(int(match[2]))
    for (start, total), found in numbers.items():
        missing = sorted(set(range(int(total))) - found)
        if missing:
            raise RequestError(
                f"data '{location}' lacks {len(missing)} of {int(total)} shards, first "
                f"'{start}-{missing[0]:0{len(total)}d}-of-{total}'; download it again"
            )
