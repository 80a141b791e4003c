"""Pickles of protocols 3 to 5 in the operations of protocol 2, which torch's `weights_only` unpickler knows.

They are rewritten and not run: operations are taken from the file one by one, and what asks for a class asks for it by
the same name afterwards. Sets become lists, frozen ones tuples, for nothing reads them.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import IO, Any, cast

from torch.serialization import MAGIC_NUMBER

from suite.models.file_kinds import is_archive

START = b"\x80\x02"
SAME = {"EMPTY_SET": b"]", "ADDITEMS": b"e", "FROZENSET": b"t"}
TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
PUTS, GETS = ("MEMOIZE", "BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
UNKNOWN = ("NEWOBJ_EX", "NEXT_BUFFER", "READONLY_BUFFER")


class _Listening:
    """A file that keeps what was read of it since the last time it was asked."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._kept = file, b""

    def read(self, count: int) -> bytes:
        self._kept += (found := self._file.read(count))
        return found

    def readline(self) -> bytes:
        self._kept += (found := self._file.readline())
        return found

    def taken(self) -> bytes:
        found, self._kept = self._kept, b""
        return found


def in_protocol_two(file: IO[bytes]) -> bytes:
    """The next pickle of a file, up to its end. ValueError for what protocol 2 has no operation for, or no pickle."""
    source, made = _Listening(file), io.BytesIO()
    memo: dict[int, str | None] = {}  # the texts that were put aside; None for anything else
    waiting: list[str] = []  # texts not written yet: the last two may be the name of a class
    last_is_text = False
    argument: Any
    for operation, argument, _ in pickletools.genops(cast(IO[bytes], source)):
        name, raw = operation.name, source.taken()
        if name in PUTS:
            place = len(memo) if name == "MEMOIZE" else argument
            memo[place] = waiting[-1] if last_is_text else None
            if not last_is_text:
                made.write(b"r" + struct.pack("<I", place))
            continue
        known = memo.get(argument) if name in GETS else None
        last_is_text = name in TEXTS or known is not None
        if last_is_text:
            waiting.append(argument if known is None else known)
            continue
        if name == "STACK_GLOBAL":
            *waiting, module, attribute = waiting
            if "\n" in module + attribute:
                raise ValueError("a class has a line break in its name")
            raw = f"c{module}\n{attribute}\n".encode()
        for text in waiting:
            made.write(_text(text))
        waiting = []
        made.write(_in_two(name, argument, raw))
    return made.getvalue()


def _in_two(name: str, argument: Any, raw: bytes) -> bytes:
    if name in UNKNOWN:
        raise ValueError(f"it has the operation {name}")
    if name == "PROTO":
        return START
    if name == "FRAME":
        return b""
    if name in BYTES:  # as protocol 2 writes them
        return b"c_codecs\nencode\n" + _text(bytes(argument).decode("latin1")) + _text("latin1") + b"\x86R"
    return SAME.get(name, raw)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def rewrite(path: Path) -> io.BytesIO:
    """The bytes of a file of torch.save of either format, or of a bare pickle, as torch.save writes it with protocol 2.

    ValueError, struct.error, zipfile.BadZipFile and others for what is none.
    """
    made = io.BytesIO()
    with path.open("rb") as file:
        zipped = is_archive(file.read(4))
        file.seek(0)
        if zipped:
            with zipfile.ZipFile(file) as old, zipfile.ZipFile(made, "w") as new:
                for member in old.namelist():
                    is_pickle = member.endswith("/data.pkl")
                    content = old.read(member)
                    new.writestr(member, in_protocol_two(io.BytesIO(content)) if is_pickle else content)
        else:
            first = in_protocol_two(file)
            magic = pickle.dumps(MAGIC_NUMBER, 2)
            if first == magic:  # of its protocol, the system, the object, and the names of storages, which then follow
                made.write(first + b"".join(in_protocol_two(file) for _ in range(4)))
                made.write(file.read())
            else:
                values: tuple[Any, ...] = (1001, {"little_endian": True}, [])
                about = [pickle.dumps(value, 2) for value in values]
                made.write(magic + about[0] + about[1] + first + about[2])
    made.seek(0)
    return made
