"""What stands behind flags: lists, numbers, NAME=FILE and OPTION=VALUE, each read in one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from suite.errors import RequestError


def parse_names(texts: str | Iterable[str] | None) -> list[str]:
    """'a, b' -> ['a', 'b']; of a flag that is repeated, those of all its values."""
    listed = [texts] if isinstance(texts, str) else texts or ()
    return [part.strip() for text in listed for part in text.split(",") if part.strip()]


def parse_numbers(text: str, flag: str, least: int = 1, example: str = "1,2,3") -> tuple[int, ...]:
    """'256,1024' -> its numbers, each once, ascending."""
    parts = parse_names(text)
    if not parts or not all(part.isascii() and part.isdigit() and int(part) >= least for part in parts):
        raise RequestError(f"{flag} {text!r} cannot be read; write whole numbers of {least} or more, such as {example}")
    return tuple(sorted({int(part) for part in parts}))


def parse_files(texts: Sequence[str] | None, flag: str) -> dict[str, str]:
    """['a=file'] -> {'a': 'file'}."""
    split = [text.partition("=") for text in texts or []]
    for name, equals, file in split:
        if not (name and equals and file):
            raise RequestError(f"{flag} {name + equals + file!r} cannot be read; write NAME=FILE")
    return {name: file for name, _, file in split}


def parse_options(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """['key=value'] -> {'key': value}, values as YAML reads them."""
    found: dict[str, Any] = {}
    for text in texts:
        put_option(found, text, 1, flag)
    return found


def put_option(into: dict[str, Any], text: str, depth: int, flag: str) -> None:
    """'evit.fuse=false' into {'evit': {'fuse': False}}; with depth 1, 'key=value' into {'key': value}."""
    name, equals, value = text.partition("=")
    *path, last = name.rsplit(".", 1) if depth == 2 else [name]
    if not equals or not last or len(path) != depth - 1:
        wanted = "NAME.OPTION=VALUE" if depth == 2 else "OPTION=VALUE"
        raise RequestError(f"{flag} {text!r} cannot be read; write {wanted}")
    for part in path:
        into[part] = into.get(part) or {}
        into = into[part]
    try:
        into[last] = yaml.safe_load(value)
    except (yaml.YAMLError, TypeError) as error:
        raise RequestError(f"{flag} {text!r}: the value cannot be read") from error


def parse_settings(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """'--lr 1e-4 --amp=false --end-to-end' -> the recipe's settings; a flag without a value is true."""
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--"):
            raise RequestError(f"argument {flag!r} belongs to no flag; write --NAME VALUE")
        name, equals, value = flag[2:].partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        yield name.replace("-", "_"), None if value.lower() in ("none", "null") else value
