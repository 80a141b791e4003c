"""Freed memory stays with the process, so that a batch does not pay for the pages of the batch before it again."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to reuse large blocks instead of returning each to the system; False where it is not glibc.

    torch has no cache of its own on a CPU: every large tensor is mapped anew and its pages are cleared at first touch,
    which costs more than the arithmetic of a small model and differs from moment to moment.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))
