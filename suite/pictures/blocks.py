"""Which blocks a picture shows, as a user names them."""

from __future__ import annotations

from suite.errors import RequestError


def blocks_of(text: str, depth: int) -> list[int]:
    """'3,6,9,12' or 'all' -> blocks, from 1; '': the last of each quarter. RequestError for one that is not there."""
    if text == "all":
        return list(range(1, depth + 1))
    if not text:
        return sorted({max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4)})
    found = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 1 <= int(part) <= depth:
            raise RequestError(f"--blocks {text!r}: {part.strip()!r} is no block; write 1 to {depth}, or all")
        found.append(int(part))
    return sorted(set(found))
