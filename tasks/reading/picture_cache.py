"""Decoded and cut pictures on local disk: an image is decoded once, whatever model, run or process needs it again.

A picture is known by the bytes of the image's file, by how it is cut, and by what decodes and cuts it: one of another
release, or of code that has changed, is not found. Each has a checksum; one that is damaged is made again.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diskcache import Cache, Disk, Timeout
from diskcache.core import MODE_PICKLE
from PIL import Image, features
from torch import Tensor

from suite.contract.content import DIGEST, digest_of
from suite.errors import RequestError
from tasks.reading import images
from tasks.reading.images import TimmPreprocessing, decode

FAULTS = (sqlite3.Error, OSError, Timeout)
LIBRARIES = ("jpg", "libjpeg_turbo", "jpg_2000", "webp", "libtiff", "zlib")  # that Pillow decodes with
PATIENCE = 10  # seconds to wait for another process that is writing


@dataclass(frozen=True)
class CachedPreprocessing(TimmPreprocessing):
    """timm's preprocessing that keeps its pictures in a folder, up to `most` bytes; what came first stays.

    A folder that fails, or is full, costs time and nothing else: what is not found in it is decoded.
    """

    folder: str
    most: int

    def of_file(self, data: bytes) -> Tensor:
        """(3, H, W) float32 from the bytes of an image's file. Raises UnreadableImage for what is no complete image."""
        _, height, width = self.input_size
        key = digest_of(data) + digest_of(f"{self.geometry} {_made_by()}".encode())
        pixels = self._find(key, 3 * height * width)
        if pixels is None:
            picture = self.cut(decode(data))
            self._keep(key, picture.tobytes())
        else:
            picture = Image.frombytes("RGB", (width, height), pixels)
        return self.normalise(picture)

    def check(self) -> list[str]:
        """What the user should know of the folder, which is made if need be. RequestError where it cannot be used."""
        try:
            full = _open(self.folder).volume() >= self.most
        except FAULTS as error:
            reason = " ".join(str(error).split())
            raise RequestError(
                f"cache '{self.folder}' cannot be used: {reason}; name another folder, or remove it if it is damaged"
            ) from error
        return [f"cache '{self.folder}' is full: more is not kept; remove it, or raise --cache-size"] if full else []

    def _find(self, key: bytes, size: int) -> bytes | None:
        try:
            entry = _open(self.folder).get(key)
        except FAULTS:
            return None
        if not isinstance(entry, bytes) or len(entry) != DIGEST + size:
            return None
        pixels = entry[DIGEST:]
        return pixels if entry[:DIGEST] == digest_of(key + pixels) else None

    def _keep(self, key: bytes, pixels: bytes) -> None:
        entry = digest_of(key + pixels) + pixels
        try:
            kept = _open(self.folder)
            kept.delete(key)  # a damaged one, so that it leaves its room
            if kept.volume() + len(entry) <= self.most:
                kept.set(key, entry)
        except FAULTS:
            return


class _Bytes(Disk):  # type: ignore[misc]  # diskcache has no types
    """Reads bytes alone: a pickle would run the code of whoever may write to the folder."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode == MODE_PICKLE:
            raise OSError("the entry is no bytes")
        return super().fetch(mode, filename, value, read)


OPENED: dict[str, Cache] = {}


def _open(folder: str) -> Cache:
    if folder not in OPENED:
        OPENED[folder] = Cache(folder, timeout=PATIENCE, disk=_Bytes, eviction_policy="none", cull_limit=0)
    return OPENED[folder]


def _close_all() -> None:
    for opened in OPENED.values():
        opened.close()
    OPENED.clear()


os.register_at_fork(before=_close_all)  # a connection to SQLite must not be carried through a fork


@cache
def _made_by() -> str:
    """What decodes images and cuts pictures: releases, and our own code."""
    packages = {name: version(name) for name in ("pillow", "torchvision", "timm")}
    libraries = {name: features.version(name) for name in LIBRARIES}
    return f"{packages} {libraries} {digest_of(Path(images.__file__).read_bytes()).hex()}"
