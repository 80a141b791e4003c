"""A zip as a tree."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from tasks.reading.trees.bounds import check_unpacked
from tasks.reading.trees.tree import FileTree, normal_name


class ZipTree(FileTree):
    """A zip file, opened once in every process: a handle shared with a forked process would share its position."""

    def __init__(self, location: Path) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._process = -1
        with zipfile.ZipFile(location) as archive:
            self._entries: dict[str, zipfile.ZipInfo] = {}
            listed = []
            for entry in archive.infolist():
                name = normal_name(entry.filename)
                listed.append((name, entry.is_dir()))
                self._entries[name] = entry
        super().__init__(location, [n for n, folder in listed if not folder], {n for n, folder in listed if folder})

    def _read(self, name: str) -> bytes:
        if self._zip is None or self._process != os.getpid():
            self._zip, self._process = zipfile.ZipFile(self.location), os.getpid()
        entry = self._entries[name]
        check_unpacked(entry.file_size, entry.compress_size)  # reading stops there, whatever is packed
        return self._zip.read(entry.filename)

    def stamp(self, name: str) -> str:
        """Size and the checksum that the archive has of the file, and that reading verifies."""
        return f"{self._entries[name].file_size}-{self._entries[name].CRC:08x}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None}
