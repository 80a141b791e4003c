"""What a sample's files hold: a digest of the bytes that were decoded, and a stamp that is looked at without reading.

A sample is its bytes, not their name: a picture that has another one's place is another sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeVar

Read = TypeVar("Read")
DIGEST = 16  # bytes


class Tree(Protocol):
    """Files by name, as `tasks.reading.trees.tree.FileTree` has them."""

    def read(self, name: str) -> bytes:
        """All bytes of a file."""

    def stamp(self, name: str) -> str:
        """What changes whenever the file does, such as its size and times."""

    def noting(self) -> AbstractContextManager[dict[str, bytes]]:
        """Digests of the files that are read meanwhile, by name."""


@dataclass(frozen=True)
class Content:
    """stamp: of the sample's files before they were read; digest: of their bytes, in hexadecimal digits."""

    stamp: str
    digest: str


def digest_of(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST).digest()


def stamp_of(tree: Tree, names: Sequence[str]) -> str:
    """The stamps of a sample's files, joined. OSError or LookupError where one is not there."""
    return " ".join(map(tree.stamp, names))


def with_content(tree: Tree, names: Sequence[str], read: Callable[[], Read]) -> tuple[Read, Content]:
    """What `read` makes of a sample, and what the sample's files held when `read` read them.

    The stamp is taken first: a file that is changed meanwhile has a stamp of before, so it is looked at again.
    """
    stamp = _stamp_or_none(tree, names)
    with tree.noting() as digests:
        found = read()
    whole = blake2b(digest_size=DIGEST)
    for name in names:
        whole.update(digests[name])
    return found, Content(stamp, whole.hexdigest())


def content_of(tree: Tree, names: Sequence[str]) -> Content:
    """The same without decoding. OSError, or another exception of an archive, where a file cannot be read."""
    return with_content(tree, names, lambda: [tree.read(name) for name in names])[1]


def _stamp_or_none(tree: Tree, names: Sequence[str]) -> str:
    try:
        return stamp_of(tree, names)
    except (OSError, LookupError):  # reading says what is wrong with it
        return ""
