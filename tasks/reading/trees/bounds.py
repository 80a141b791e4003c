"""How much a file may come to when it is unpacked: some megabytes can claim more than any memory holds."""

from __future__ import annotations

LARGEST = 2**30  # bytes that are read at once
RATIO = 200  # times its packed size; pictures and their masks hardly shrink at all, annotations twentyfold
SMALL = 2**26  # bytes of which no ratio is asked: an empty mask shrinks as far as a bomb


class TooLargeError(OSError):
    """A file that is not unpacked. The text says what it claims to come to."""


def check_unpacked(size: int, packed: int | None = None) -> None:
    """TooLargeError for more bytes than anything that is read here has, or, unpacked, than its packed ones can be.

    size: of the file, as the archive claims or as was unpacked so far. packed: None where it is not packed.
    """
    if size > LARGEST:
        raise TooLargeError(f"the file has {size / 2**30:.1f} GiB; at most {LARGEST >> 30} GiB are read at once")
    check_ratio(size, packed)


def check_ratio(size: int, packed: int | None) -> None:
    """The same of what is unpacked piece by piece, and may be of any size."""
    if packed is not None and size > max(SMALL, RATIO * packed):
        raise TooLargeError(
            f"{packed} packed bytes come to {size >> 20} MiB or more, as those of a bomb do; unpack them yourself if "
            "they are none"
        )
