"""Several archives as one tree, as the shards of a WebDataset are."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tasks.reading.trees.tree import FileTree


class JoinedTree(FileTree):
    """The files of all shards. Where several shards have one key, its names begin with those of their shards."""

    def __init__(self, location: Path, shards: Sequence[FileTree]) -> None:
        self._shards = tuple(shards)
        shared = Counter(key for shard in shards for key in {key_of(name) for name in shard.files})
        self._places: dict[str, tuple[FileTree, str]] = {}
        files = []
        for shard in shards:
            for name in shard.files:
                files.append(name if shared[key_of(name)] == 1 else f"{shard.location.name}/{name}")
                self._places[files[-1]] = (shard, name)
        super().__init__(location, files, set())

    def _read(self, name: str) -> bytes:
        shard, inside = self._places[name]
        return shard.read(inside)

    def stamp(self, name: str) -> str:
        """As its shard has it."""
        shard, inside = self._places[name]
        return shard.stamp(inside)

    def where(self, name: str) -> str:
        if name not in self:
            return super().where(name)
        shard, inside = self._places[name]
        return shard.where(inside)


def key_of(name: str) -> str:
    """What the files of one sample have in common, in a WebDataset: the name up to the first dot of its last part."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])
