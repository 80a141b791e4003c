"""Of what kind a weights file is by its first bytes, whatever it is called; what is no weights file is named."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from suite.errors import RequestError

SAFETENSORS, ARRAYS, PICKLE = "safetensors", "npz", "pickle"
OTHERS = {
    b"version https://git-lfs": ("a pointer of Git LFS and not the file itself", "fetch it with git lfs pull"),
    b"<": ("a web page", "download the file itself"),
    b"{": ("JSON", "give the weights themselves"),
    b"\x1f\x8b": ("packed by gzip", "unpack it"),
    b"BZh": ("packed by bzip2", "unpack it"),
    b"\xfd7zXZ": ("packed by xz", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "unpack it"),
    b"\x89HDF": ("HDF5, as Keras writes it", "convert it to safetensors"),
    b"GGUF": ("GGUF", "give weights that are not quantised"),
    b"\x93NUMPY": ("one array of NumPy's", "give an .npz, which holds arrays by their names"),
}
"""How files begin that hold no weights, or none that can be read: what they are, and what to do."""


def is_archive(first: bytes) -> bool:
    """Whether a file is a zip by how it begins; one that holds a zip further on is none."""
    return first.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def kind_of(file: Path) -> str:
    """One of the three that are read. OSError; RequestError, one line, for what is known to be something else."""
    with file.open("rb") as opened:
        first = opened.read(64)
    size = file.stat().st_size
    if not size:
        raise RequestError(f"checkpoint '{file}' is empty; fetch it again")
    if first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= size:
        return SAFETENSORS
    for start, (what, remedy) in OTHERS.items():
        if first.lstrip().startswith(start):
            raise RequestError(f"checkpoint '{file}' is {what}; {remedy}")
    if is_archive(first):
        with zipfile.ZipFile(file) as archive:
            return _kind_of_archive(file, archive.namelist())
    if file.suffix.lower() == ".safetensors":
        return SAFETENSORS  # broken, which its reader says better
    if tarfile.is_tarfile(file):
        with tarfile.open(file) as tar:
            names = tar.getnames()
        if "pickle" not in names:  # which torch's first format has
            raise RequestError(f"checkpoint '{file}' is a tar archive of '{names[0]}'; unpack it and give that")
    return PICKLE


def _kind_of_archive(file: Path, names: list[str]) -> str:
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return PICKLE
    if names and all(name.endswith(".npy") for name in names):
        return ARRAYS
    what = (
        f"a zip archive of '{names[0]}'; unpack it and give that" if names else "an empty zip archive; fetch it again"
    )
    raise RequestError(f"checkpoint '{file}' is {what}")
