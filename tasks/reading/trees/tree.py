"""What every read-only view of a data set's files has, wherever and in whatever they lie.

Names are relative, with forward slashes, and equal for the same files in every form, so that ids made of
them do not depend on how the data is stored. Archives are read in place: nothing is ever extracted under
its own name. A tree can be used in forked or spawned loader workers: each process opens the archive for
itself.
"""

from __future__ import annotations

import posixpath
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from suite.contract.content import digest_of
from suite.errors import RequestError

LITTER = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archivers, file servers and systems put beside data; what is in them may look like it."""
LITTER_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")


class FileTree(ABC):
    """Files by relative name. `files` and `folders` are sorted; hidden ones and what other programs put there (LITTER)
    are left out.

    notes: lines the user should read once.
    """

    notes: Sequence[str] = ()

    def __init__(self, location: Path, files: list[str], folders: set[str]) -> None:
        self.location = location
        self.files = sorted(name for name in files if is_visible(name))
        self.notes = [
            f"{count} files in {folder!r}, which other programs have put there, are left out"
            for folder, count in Counter(filter(None, map(_littered, files))).items()
        ]
        # A folder exists by being listed or by holding a file: archives often list files alone.
        above = {parent for name in self.files for parent in _parents(name)}
        self.folders = sorted({name for name in folders if is_visible(name)} | above)
        twice = next((a for a, b in zip(self.files, self.files[1:], strict=False) if a == b), None)
        if twice is not None:
            raise RequestError(f"data '{location}' holds '{twice}' twice; remove one, sample ids must be unique")
        for name in self.files:
            _check_encodable(name, location)
        self._names = frozenset(self.files)
        self._forms: dict[str, list[str]] | None = None
        self._noted: dict[str, bytes] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        """All bytes of one file. Raises OSError or another exception with the reason where it cannot be read."""
        data = self._read(name)
        noted = self._noted  # another thread may end the noting now
        if noted is not None:
            noted[name] = digest_of(data)
        return data

    @contextmanager
    def noting(self) -> Iterator[dict[str, bytes]]:
        """Digests of the files that are read meanwhile, by name."""
        noted: dict[str, bytes] = {}
        self._noted = noted
        try:
            yield noted
        finally:
            self._noted = None

    def find(self, name: str) -> str | None:
        """The file of that name, else the only one whose name differs from it in its Unicode form alone; None if there
        is none."""
        if name in self or name.isascii():
            return name if name in self else None
        if self._forms is None:
            self._forms = {}
            for file in self.files:
                if not file.isascii():
                    self._forms.setdefault(composed(file), []).append(file)
        found = self._forms.get(composed(name), [])
        return found[0] if len(found) == 1 else None

    @abstractmethod
    def _read(self, name: str) -> bytes:
        """All bytes of one file."""

    @abstractmethod
    def stamp(self, name: str) -> str:
        """What changes whenever the file does, without reading it. Raises OSError or KeyError where it is not there."""

    def where(self, name: str) -> str:
        """The file's address for a person: its path, or `archive:name`."""
        return f"{self.location}:{name}"


def composed(name: str) -> str:
    """The name with an accent in one character with its letter (NFC); macOS has file names with both apart (NFD)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def say_forms(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """A line on names, folders apart, that are the same when they are composed, and not before: (as it is listed, as
    the file has it)."""
    pairs = [(posixpath.basename(listed), posixpath.basename(name)) for listed, name in pairs]
    differ = [(listed, name) for listed, name in pairs if listed != name and composed(listed) == composed(name)]
    if not differ:
        return []
    files = "file is" if len(differ) == 1 else "files are"
    return [f"{len(differ)} {files} named in another Unicode form, first {differ[0][1]!a} for {differ[0][0]!a}"]


def normal_name(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def is_visible(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") or part in LITTER for part in parts)
    return not hidden and parts[-1].lower() not in LITTER_FILES


def _littered(name: str) -> str:
    """The folder of other programs that a file lies in and that may hold pictures; "" for none."""
    return next((part for part in name.split("/") if part in LITTER[1:]), "")


def _check_encodable(name: str, location: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise RequestError(f"data '{location}' has a file name that is no UTF-8: {name!r}; rename it") from None
