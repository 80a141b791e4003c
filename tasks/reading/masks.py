"""Strict reading of annotation masks: PNG files in which a pixel is the index of a class, and nothing else.

A mask that was saved in another form would be read as other classes without a word: colours are no indices, JPEG
changes them, and Pillow stretches greyscale of fewer than 8 bits to 0..255. All that is refused. Grey that was saved as
RGB, with an opaque alpha or with 16 bits is still the index that it was.
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
UNLABELLED_16 = 2**16 - 1  # in masks of 16 bits
GREY, PALETTE = 0, 3
REMEMBERED = 2**28  # bytes
COLOURS = {GREY: "greyscale", 2: "RGB", PALETTE: "palette", 4: "greyscale with alpha", 6: "RGBA"}
REMEDY = "says no class of its pixels; save the indices as 8-bit greyscale or as a palette image"
COLOURED = (
    "is coloured: the full ADE20K's colours number other objects, and a palette's need not tell all classes apart; use "
    "masks of indices, such as those of ADEChallengeData2016"
)


def read_mask(data: bytes) -> np.ndarray:
    """The indices (H, W), uint8 or of 16 bits, in the bytes of a PNG of greyscale or of a palette, whose colours are
    ignored.

    Raises UnreadableImage for anything else.
    """
    bits, colour = _header(data)[2:]
    _check_indices(bits, colour)
    pixels = np.asarray(decode_unconverted(data, ("PNG",)))
    return pixels if pixels.ndim == 2 else _grey(pixels, COLOURS[colour])


def read_palette(data: bytes) -> np.ndarray | None:
    """The 8-bit RGB (n, 3) of each index in a PNG with a palette; None of a PNG without.

    Raises UnreadableImage for what is no PNG.
    """
    if _header(data)[3] != PALETTE:
        return None
    colours = decode_unconverted(data, ("PNG",)).getpalette("RGB") or []
    return np.array(colours, dtype=np.uint8).reshape(-1, 3)


def mask_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels, from the header alone. Raises UnreadableImage for what is no PNG."""
    return _header(data)[:2]


def labels_in(mask: np.ndarray) -> frozenset[int]:
    """The labels that occur in a mask (H, W) of whole numbers."""
    if mask.dtype == np.uint8:  # ten times as fast as sorting
        return frozenset(np.bincount(mask.ravel(), minlength=256).nonzero()[0].tolist())
    return frozenset(np.unique(mask).tolist())


def class_indices(mask: np.ndarray, num_classes: int, reduce_zero_label: bool) -> np.ndarray:
    """Labels of a mask (H, W) as classes 0..num_classes-1, uint8, or IGNORED.

    reduce_zero_label: as mmsegmentation has it: labels count classes from 1, and 0 is none. Else they count from 0.
    255, of 16 bits 65535, a common mark of pixels without a label, is none in both. Raises UnreadableImage for every
    other label.
    """
    first = int(reduce_zero_label)
    classes = np.full(UNLABELLED_16 + 1, IGNORED, dtype=np.uint8)
    classes[first : first + num_classes] = np.arange(num_classes)
    last = first + num_classes - 1
    if mask.max(initial=0) > last:
        strange = sorted(label for label in labels_in(mask) - {IGNORED, UNLABELLED_16} if label > last)
        if strange:
            labels = ", ".join(map(str, strange[:5]))
            raise UnreadableImage(
                f"{np.isin(mask, strange).sum()} pixels of the mask have labels beyond 0..{last} (and 255): {labels}"
            )
    found: np.ndarray = classes[mask]
    return found


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
    if colour == PALETTE or (colour in COLOURS and bits == 8) or (colour == GREY and bits == 16):
        return
    raise UnreadableImage(f"a mask of {bits}-bit {COLOURS.get(colour, f'colour type {colour}')} {REMEDY}")


def _grey(pixels: np.ndarray, form: str) -> np.ndarray:
    """(H, W) of pixels (H, W, C) whose colours are all the same grey, and whose alpha, if any, hides nothing."""
    colours: list[np.ndarray] = list(np.moveaxis(pixels, -1, 0))
    opaque = len(colours) % 2 == 1 or (colours.pop() == 255).all()
    if opaque and all((colour == colours[0]).all() for colour in colours):
        return colours[0]
    raise UnreadableImage(f"a mask of 8-bit {form} {COLOURED if len(colours) > 1 else REMEDY}")
