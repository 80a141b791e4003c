"""Two trees as one, the names of the second apart from those of the first: data, and other data that go with them."""

from __future__ import annotations

from tasks.reading.trees.tree import FileTree


class TreeBeside(FileTree):
    """The files of `tree`, and those of `other` with `prefix` before their names."""

    def __init__(self, tree: FileTree, other: FileTree, prefix: str) -> None:
        self._tree, self._other, self._prefix = tree, other, prefix
        super().__init__(tree.location, [*tree.files, *(prefix + name for name in other.files)], set())
        self.notes = [*tree.notes, *other.notes]

    def _place(self, name: str) -> tuple[FileTree, str]:
        inside = name.removeprefix(self._prefix)
        return (self._tree, name) if inside == name else (self._other, inside)

    def _read(self, name: str) -> bytes:
        tree, inside = self._place(name)
        return tree.read(inside)

    def stamp(self, name: str) -> str:
        """As its own tree has it."""
        tree, inside = self._place(name)
        return tree.stamp(inside)

    def where(self, name: str) -> str:
        tree, inside = self._place(name)
        return tree.where(inside)
