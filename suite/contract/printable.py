"""Names of files, classes and methods as a terminal may show them."""

from __future__ import annotations

import unicodedata

UNSEEN = ("Cc", "Cf", "Cs")  # control characters, formats such as writing backwards, halves of characters


def printable(text: str) -> str:
    """The text with what would steer a terminal written out, as `\\x1b`; lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(sign if _is_seen(sign) else sign.encode("unicode_escape").decode() for sign in text)


def _is_seen(sign: str) -> bool:
    return sign in "\n\t" or unicodedata.category(sign) not in UNSEEN
