"""The fields of an annotation file, read strictly: whatever is not as it must be is named, with what to do about it."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Callable
from typing import Any

from tasks.caption_scoring.tokens import on_one_line


class Invalid(Exception):
    """What is wrong with a file's content, and what to do about it."""


def parse(data: bytes) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise Invalid(f"it is not UTF-8 text ({error}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        if str(error).startswith("Extra data: line 2"):
            raise Invalid("it holds a JSON value a line (JSON Lines); write them as one list, [..., ...]") from None
        raise Invalid(f"it is not valid JSON ({error}); repair it or download it again") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # json itself would silently keep the last
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Invalid(f"{twice!r} stands there twice; join the two entries, or remove one")
    if "raw" in found:
        found.pop("tokens", None)  # most of the memory that a Karpathy file takes
    return found


def read_list(content: dict[str, Any], key: str, where: str = "") -> list[dict[str, Any]]:
    """The objects in the list under `key`."""
    what = f"{key!r} {where}".strip()
    items = content.get(key)
    if not isinstance(items, list):
        raise Invalid(f"{what} is {shown(items)} instead of a list; is it a file of captions?")
    return check_objects(items, lambda number: f"{key}[{number}] {where}".strip())


def check_objects(items: list[Any], where: Callable[[int], str]) -> list[dict[str, Any]]:
    """The items, all of which must be objects. where: an item by its number."""
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise Invalid(f"{where(number)} is {shown(item)} instead of an object; repair it")
    return items


def read_id(item: dict[str, Any], key: str, where: str) -> str:
    """Ids are compared as text: COCO writes numbers, other data sets of its form write names."""
    value = item.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Invalid(f"{where} has the {key} {shown(value)}; it must be a number or a name")
    return read_text(str(value), f"the {key} of {where}")


def read_name(value: Any, where: str) -> str:
    """A file's name, with forward slashes."""
    return posixpath.normpath(read_text(value, f"the file name of {where}").replace("\\", "/"))


def read_caption(value: Any, where: str) -> str:
    """A caption on one line. It may be empty."""
    said = _complete(value, f"a caption of {where}")
    return said if said.isprintable() else on_one_line(said)  # asking is much faster


def read_text(value: Any, what: str) -> str:
    """A text that is not empty."""
    said = _complete(value, what)
    if not said.strip():
        raise Invalid(f"{what} is empty; write it, or remove the entry")
    return said


def has_word(caption: str) -> bool:
    """Whether scorers find something in it: they leave punctuation out."""
    return any(map(str.isalnum, caption))


def _complete(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{what} is {shown(value)} instead of text; write it, or remove the entry")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid(f"{what} is {shown(value)}, which is no complete Unicode text; repair it") from None
    return value


def shown(value: Any) -> str:
    """A value in one short line; ascii, so that it can be printed whatever it holds."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
