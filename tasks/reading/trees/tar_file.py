"""A tar, plain or compressed, as a tree."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, Literal

from suite.errors import RequestError
from tasks.reading.trees.bounds import check_ratio, check_unpacked
from tasks.reading.trees.tree import FileTree, normal_name

Opener = Callable[[Path, Literal["rb"]], BufferedIOBase]
COMPRESSIONS: dict[bytes, Opener] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class TarTree(FileTree):
    """A tar file, read at recorded offsets with positional reads, which need no state that processes could share.

    Tars in it, as ImageNet's training archive has one a class, are folders of their name, read in place as well.
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
        for name, member in _unfolded(self._file, location):
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
        size, unpacked = os.stat(self.location).st_size, 0
        with opener(self.location, "rb") as packed:
            while piece := packed.read(1 << 20):
                unpacked += plain.write(piece)
                check_ratio(unpacked, size)
        plain.flush()
        return plain

    def _read(self, name: str) -> bytes:
        if self._file is None:
            self._file = self._open()
        offset, size = self._extent(name)
        check_unpacked(size)
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


def _members(file: IO[bytes], location: Path, start: int = 0, stop: int | None = None) -> list[tarfile.TarInfo]:
    """Those of the tar between two offsets of a file; their own offsets are the file's, too."""
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = archive.getmembers()
            end = archive.offset
    except tarfile.TarError as error:
        raise RequestError(
            f"data '{location}' is no folder, zip or complete tar ({error}); name one of these"
        ) from error
    # tarfile takes a damaged header, or a file cut between two members, for the end; the end mark is zeros.
    whole = os.pread(file.fileno(), tarfile.BLOCKSIZE, end) == bytes(tarfile.BLOCKSIZE)
    if not whole or (stop is not None and end + tarfile.BLOCKSIZE > stop):
        raise RequestError(
            f"data '{location}' is damaged or cut off after {len(members)} entries; copy or download it again"
        )
    return members


def _unfolded(file: IO[bytes], location: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Names and members, in place of a plain tar within the tar its own."""
    for member in _members(file, location):
        name = normal_name(member.name)
        if not (member.isfile() and name.lower().endswith(".tar")):
            yield name, member
            continue
        folder, start = name[: -len(".tar")], member.offset_data
        for part in _members(file, Path(f"{location}:{name}"), start, start + member.size):
            if part.islnk():  # a hard link names its target from the top
                part.linkname = posixpath.join(folder, part.linkname)
            yield posixpath.join(folder, normal_name(part.name)), part


def _extent(member: tarfile.TarInfo, name: str) -> tuple[int, int] | str:
    if member.issym():
        return normal_name(posixpath.join(posixpath.dirname(name), member.linkname))
    if member.islnk():
        return normal_name(member.linkname)
    return member.offset_data, member.size
