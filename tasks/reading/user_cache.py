"""Where what is too large to come with the suite is kept for all checkouts of a user."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "REDUCERBENCH_CACHE"  # environment: the folder of what was fetched, in place of one in the user's cache


def user_cache(part: str) -> Path:
    """The folder of one kind of it."""
    of_user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(CACHE) or of_user / "reducerbench") / part
