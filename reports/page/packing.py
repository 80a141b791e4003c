"""Bulk data inside an HTML file: deflated, so that the page stays small, and inert until a script unpacks it.

What is packed holds letters, digits, '+', '/' and '=' alone: no text of a data set can end its element or run.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from typing import Any

LEVEL = 6


def pack_text(text: str) -> str:
    """base64 of zlib's deflate of UTF-8, which a browser's `DecompressionStream('deflate')` reads."""
    return base64.b64encode(zlib.compress(text.encode(), LEVEL)).decode("ascii")


def pack_json(value: Any) -> str:
    """`pack_text` of compact JSON; NaN and infinity become null."""
    compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return pack_text(compact.encode(value))
    except ValueError:
        return pack_text(compact.encode(finite(value)))


def unpack(packed: str) -> str:
    """The text that was packed."""
    return zlib.decompress(base64.b64decode(packed)).decode()


def finite(value: Any) -> Any:
    """The value with None in place of every NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value
