"""The tree at a path, whatever lies there."""

from __future__ import annotations

import lzma
import zipfile
from pathlib import Path

from suite.errors import RequestError
from tasks.reading.trees.folder import FolderTree
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
        if zipfile.is_zipfile(path):
            return ZipTree(path)
        return TarTree(path)
    except (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise RequestError(f"data '{data}' cannot be read: {error}; is it complete, and readable to you?") from error
