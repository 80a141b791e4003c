"""One read-only view of a data set's files, whether they lie in a folder, a zip or a tar (plain or compressed).

Names are relative, with forward slashes, and equal for the same files in every form, so that ids made of
them do not depend on how the data is stored. Archives are read in place: nothing is ever extracted under
its own name. A tree can be used in forked or spawned loader workers: each process opens the archive for
itself.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, Literal

from suite.contract.content import digest_of
from suite.errors import RequestError

Opener = Callable[[Path, Literal["rb"]], BufferedIOBase]
COMPRESSIONS: dict[bytes, Opener] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class FileTree(ABC):
    """Files by relative name. `files` and `folders` are sorted; hidden ones and __MACOSX are left out."""

    def __init__(self, location: Path, files: list[str], folders: set[str]) -> None:
        self.location = location
        self.files = sorted(name for name in files if _is_visible(name))
        # A folder exists by being listed or by holding a file: archives often list files alone.
        above = {parent for name in self.files for parent in _parents(name)}
        self.folders = sorted({name for name in folders if _is_visible(name)} | above)
        twice = next((a for a, b in zip(self.files, self.files[1:], strict=False) if a == b), None)
        if twice is not None:
            raise RequestError(f"data '{location}' holds '{twice}' twice; remove one, sample ids must be unique")
        for name in self.files:
            _check_encodable(name, location)
        self._names = frozenset(self.files)
        self._noted: dict[str, bytes] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        """All bytes of one file. Raises OSError or another exception with the reason where it cannot be read."""
        data = self._read(name)
        if self._noted is not None:
            self._noted[name] = digest_of(data)
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

    @abstractmethod
    def _read(self, name: str) -> bytes:
        """All bytes of one file."""

    @abstractmethod
    def stamp(self, name: str) -> str:
        """What changes whenever the file does, without reading it. Raises OSError or KeyError where it is not there."""

    def where(self, name: str) -> str:
        """The file's address for a person: its path, or `archive:name`."""
        return f"{self.location}:{name}"


def open_tree(data: str | None) -> FileTree:
    """The tree at path `data`. Raises RequestError when there is none, or it is neither folder, zip nor tar."""
    if not data:
        raise RequestError("no data given; name a folder, a zip or a tar of images with --data")
    path = Path(data)
    try:
        if path.is_dir():
            return FolderTree(path)
        if not path.exists():
            raise RequestError(f"data '{data}' does not exist; name a folder, a zip or a tar of images")
        if zipfile.is_zipfile(path):
            return ZipTree(path)
        return TarTree(path)
    except (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise RequestError(f"data '{data}' cannot be read: {error}; is it complete, and readable to you?") from error


class FolderTree(FileTree):
    """A folder on disk; links are followed, so that a folder of links to images elsewhere is as good."""

    def __init__(self, location: Path) -> None:
        files: list[str] = []
        folders: set[str] = set()
        for folder, subfolders, names in os.walk(location, followlinks=True, onerror=_raise):
            here = os.path.relpath(folder, location).replace(os.sep, "/")
            subfolders[:] = [name for name in subfolders if not _is_loop(folder, name)]
            folders.update(posixpath.normpath(f"{here}/{name}") for name in subfolders)
            files.extend(posixpath.normpath(f"{here}/{name}") for name in names)
        super().__init__(location, files, folders)

    def _read(self, name: str) -> bytes:
        path = self.location / name
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")  # reading a pipe would wait for ever
        return path.read_bytes()

    def stamp(self, name: str) -> str:
        """Size, time of change of the content, and of the file: the last one is set by renaming, too."""
        about = os.stat(self.location / name)
        return f"{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"

    def where(self, name: str) -> str:
        return str(self.location / name)


class ZipTree(FileTree):
    """A zip file, opened once in every process: a handle shared with a forked process would share its position."""

    def __init__(self, location: Path) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._process = -1
        with zipfile.ZipFile(location) as archive:
            self._entries: dict[str, zipfile.ZipInfo] = {}
            listed = []
            for entry in archive.infolist():
                name = _normal(entry.filename)
                listed.append((name, entry.is_dir()))
                self._entries[name] = entry
        super().__init__(location, [n for n, folder in listed if not folder], {n for n, folder in listed if folder})

    def _read(self, name: str) -> bytes:
        if self._zip is None or self._process != os.getpid():
            self._zip, self._process = zipfile.ZipFile(self.location), os.getpid()
        return self._zip.read(self._entries[name].filename)

    def stamp(self, name: str) -> str:
        """Size and the checksum that the archive has of the file, and that reading verifies."""
        return f"{self._entries[name].file_size}-{self._entries[name].CRC:08x}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None}


class TarTree(FileTree):
    """A tar file, read at recorded offsets with positional reads, which need no state that processes could share.

    A compressed tar has no random access: it is decompressed once into an unnamed temporary file, which
    needs as much space in the temporary folder and disappears with the process, however that ends.
    """

    def __init__(self, location: Path) -> None:
        self.location = location
        about = os.stat(location)
        self._times = f"{about.st_mtime_ns}-{about.st_ctime_ns}"
        self._file: IO[bytes] | None = self._open()
        self._extents: dict[str, tuple[int, int] | str] = {}
        files, folders = [], set()
        for member in _members(self._file, location):
            name = _normal(member.name)
            if member.isdir():
                folders.add(name)
            elif member.isfile() or member.issym() or member.islnk():
                files.append(name)
                self._extents[name] = _extent(member, name)
        super().__init__(location, files, folders)

    def _open(self) -> IO[bytes]:
        file = self.location.open("rb")
        head = file.read(6)
        opener = next((opener for magic, opener in COMPRESSIONS.items() if head.startswith(magic)), None)
        if opener is None:
            return file
        file.close()
        plain = tempfile.TemporaryFile(prefix="reducerbench-")  # noqa: SIM115 (lives as long as the tree)
        with opener(self.location, "rb") as packed:
            shutil.copyfileobj(packed, plain, 1 << 20)
        plain.flush()
        return plain

    def _read(self, name: str) -> bytes:
        if self._file is None:
            self._file = self._open()
        offset, size = self._extent(name)
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise OSError(f"the archive ends after {len(data)} of its {size} bytes")
        return data

    def stamp(self, name: str) -> str:
        """Place and size, and the archive's own times: a tar has no checksums of its files."""
        offset, size = self._extent(name)
        return f"{size}-{offset}-{self._times}"

    def _extent(self, name: str) -> tuple[int, int]:
        extent, seen = self._extents[name], {name}
        while isinstance(extent, str):  # a link within the archive
            if extent in seen or extent not in self._extents:
                raise OSError(f"links to '{extent}', which the archive does not hold")
            seen.add(extent)
            extent = self._extents[extent]
        return extent

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _members(file: IO[bytes], location: Path) -> list[tarfile.TarInfo]:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = archive.getmembers()
            end = archive.offset
    except tarfile.TarError as error:
        raise RequestError(
            f"data '{location}' is no folder, zip or complete tar ({error}); name one of these"
        ) from error
    # tarfile takes a damaged header, or a file cut between two members, for the end; the end mark is zeros.
    if os.pread(file.fileno(), tarfile.BLOCKSIZE, end) != bytes(tarfile.BLOCKSIZE):
        raise RequestError(
            f"data '{location}' is damaged or cut off after {len(members)} entries; copy or download it again"
        )
    return members


def _extent(member: tarfile.TarInfo, name: str) -> tuple[int, int] | str:
    if member.issym():
        return _normal(posixpath.join(posixpath.dirname(name), member.linkname))
    if member.islnk():
        return _normal(member.linkname)
    return member.offset_data, member.size


def _normal(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _is_visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _check_encodable(name: str, location: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise RequestError(f"data '{location}' has a file name that is no UTF-8: {name!r}; rename it") from None


def _is_loop(folder: str, name: str) -> bool:
    target = os.path.join(folder, name)
    return os.path.islink(target) and (os.path.realpath(folder) + os.sep).startswith(os.path.realpath(target) + os.sep)


def _raise(error: OSError) -> None:
    raise error
