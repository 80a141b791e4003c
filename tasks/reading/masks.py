"""Strict reading of annotation masks: PNG files in which a pixel is the index of a class, and nothing else.

A mask that was saved in another form would be read as other classes without a word: colours are no indices, JPEG
changes them, 16 bits do not fit, and Pillow stretches greyscale of fewer than 8 bits to 0..255. All that is refused.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from torch import Tensor

from tasks.reading.images import UnreadableImage, decode_unconverted

PNG = b"\x89PNG\r\n\x1a\n"
IGNORED = 255  # label of pixels that are not scored, as in mmsegmentation
GREY, PALETTE = 0, 3
REMEMBERED = 2**28  # bytes
COLOURS = {GREY: "greyscale", 2: "RGB", PALETTE: "palette", 4: "greyscale with alpha", 6: "RGBA"}


def read_mask(data: bytes) -> np.ndarray:
    """The indices (H, W) uint8 in the bytes of a PNG of 8-bit greyscale, or of a palette, whose colours are ignored.

    Raises UnreadableImage for anything else.
    """
    _check_indices(*_header(data)[2:])
    return np.asarray(decode_unconverted(data, ("PNG",)))


def mask_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels, from the header alone. Raises UnreadableImage for what is no PNG."""
    return _header(data)[:2]


def reduce_zero_label(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels 1..num_classes of a mask (H, W) as 0..num_classes-1; 0 becomes IGNORED, and so does 255.

    As mmsegmentation's `reduce_zero_label=True`, which leaves 255 ignored: a common mark of pixels without a label.
    Raises UnreadableImage for every other label.
    """
    mask = mask - np.uint8(1)  # 0 becomes 255
    mask[mask == IGNORED - 1] = IGNORED  # it was 255
    strange = mask[(mask >= num_classes) & (mask != IGNORED)]
    if strange.size:
        labels = ", ".join(str(label + 1) for label in np.unique(strange)[:5].tolist())
        raise UnreadableImage(
            f"{strange.size} pixels of the mask have labels beyond 0..{num_classes} (and 255): {labels}"
        )
    return mask


class RecentMasks:
    """The masks that were asked for last, up to REMEMBERED bytes: all cells of a sweep score the same batch in turn.

    They stay in the process that asked for them: pickled, there are none.
    """

    def __init__(self) -> None:
        self._masks: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._bytes = 0

    def __reduce__(self) -> tuple[type[RecentMasks], tuple[()]]:
        return RecentMasks, ()

    def get(self, key: Hashable, read: Callable[[], Tensor]) -> Tensor:
        """The mask `key`, read if it is not remembered; not to be written to."""
        if key not in self._masks:
            self._masks[key] = read()
            self._bytes += self._masks[key].nbytes
        self._masks.move_to_end(key)
        mask = self._masks[key]
        while self._bytes > REMEMBERED:
            self._bytes -= self._masks.popitem(last=False)[1].nbytes
        return mask


def _header(data: bytes) -> tuple[int, int, int, int]:
    """Height, width, bits per channel, and type of colour."""
    if not data:
        raise UnreadableImage("the file is empty (0 bytes)")
    if not data.startswith(PNG):
        raise UnreadableImage(f"no PNG ({len(data)} bytes that start with {data[:12]!r}); masks are PNG files")
    if len(data) < 26:
        raise UnreadableImage("image file is truncated within its header")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    return height, width, bits, colour


def _check_indices(bits: int, colour: int) -> None:
    if colour == PALETTE or (colour == GREY and bits == 8):
        return
    raise UnreadableImage(
        f"a mask of {bits}-bit {COLOURS.get(colour, f'colour type {colour}')} says no class of its pixels; save the "
        "indices as 8-bit greyscale or as a palette image"
    )
