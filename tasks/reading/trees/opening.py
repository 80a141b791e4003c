"""The tree at a path, whatever lies there."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from suite.errors import RequestError
from tasks.reading.images import is_image
from tasks.reading.trees.folder import FolderTree
from tasks.reading.trees.joined import JoinedTree
from tasks.reading.trees.parquet import ParquetTree
from tasks.reading.trees.shards import PARQUET, TARS, choose_split, expand, is_pattern
from tasks.reading.trees.tar_file import TarTree
from tasks.reading.trees.tree import FileTree
from tasks.reading.trees.zip_file import ZipTree


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
        # of a tar whose last file is a zip, that one is found as well
        if zipfile.is_zipfile(path) and not tarfile.is_tarfile(path):
            return ZipTree(path)
        return TarTree(path)
    except (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise RequestError(f"data '{data}' cannot be read: {error}; is it complete, and readable to you?") from error


def open_shards(data: str | None) -> FileTree:
    """The tree at `data` as `open_tree` has it, or that of shards.

    Shards are Parquet files or tars: those that a pattern names, such as `val-{000..063}.tar`, or those of one split of
    a folder without images. RequestError as `open_tree`, and for shards that are not complete.
    """
    path = Path(data or "")
    if data and is_pattern(data) and not path.exists():
        return _joined(path, expand(data))
    if data and path.is_file() and data.endswith(PARQUET):
        return ParquetTree(path, [path])
    tree = open_tree(data)
    names = [name for name in tree.files if name.endswith((*PARQUET, *TARS))]
    if not path.is_dir() or not names or any(map(is_image, tree.files)):
        return tree
    _are_parquet(path, names)
    chosen, notes = choose_split(path, names)
    joined = _joined(path, [path / name for name in chosen])
    joined.notes = [*notes, *joined.notes]
    return joined


def _joined(location: Path, shards: Sequence[Path]) -> FileTree:
    if _are_parquet(location, list(map(str, shards))):
        return ParquetTree(location, shards)
    trees = [open_tree(str(shard)) for shard in shards]
    return trees[0] if len(trees) == 1 else JoinedTree(location, trees)


def _are_parquet(location: Path, names: Sequence[str]) -> bool:
    """RequestError where some are, and others not."""
    found = {name.endswith(PARQUET): name for name in reversed(names)}
    if len(found) > 1:
        raise RequestError(f"data '{location}' holds '{found[True]}' and '{found[False]}'; name shards of one kind")
    return True in found
