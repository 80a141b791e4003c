"""A folder as a tree."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from tasks.reading.trees.bounds import check_unpacked
from tasks.reading.trees.tree import FileTree


class FolderTree(FileTree):
    """A folder on disk; links are followed, so that a folder of links to images elsewhere is as good."""

    def __init__(self, location: Path) -> None:
        files: list[str] = []
        folders: set[str] = set()
        for folder, subfolders, names in os.walk(location, followlinks=True, onerror=_raise):
            here = os.path.relpath(folder, location).replace(os.sep, "/")
            subfolders[:] = [name for name in subfolders if not _is_loop(location, folder, name)]
            folders.update(posixpath.normpath(f"{here}/{name}") for name in subfolders)
            files.extend(posixpath.normpath(f"{here}/{name}") for name in names)
        self._above = "" if location == Path() else os.path.join(location, "")
        super().__init__(location, files, folders)

    def _read(self, name: str) -> bytes:
        path = Path(self.where(name))
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")  # reading a pipe would wait for ever
        check_unpacked(path.stat().st_size)
        return path.read_bytes()

    def stamp(self, name: str) -> str:
        """Size, time of change of the content, and of the file: the last one is set by renaming, too."""
        about = os.stat(self.where(name))
        return f"{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"

    def where(self, name: str) -> str:
        # a Path would take longer than to ask the file for its stamp
        return self._above + name if name else str(self.location)


def _is_loop(location: Path, folder: str, name: str) -> bool:
    """Whether a link leads to a folder that it was reached through, or to one above that."""
    link = os.path.join(folder, name)
    if not os.path.islink(link):
        return False
    target = os.path.realpath(link) + os.sep
    way = Path(folder)
    passed = [way, *way.parents][: len(way.parts) - len(location.parts) + 1]
    return any((os.path.realpath(place) + os.sep).startswith(target) for place in passed)


def _raise(error: OSError) -> None:
    raise error
