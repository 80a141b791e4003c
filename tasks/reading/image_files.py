"""One image of a data set, from its bytes in a folder or archive to the model's input, or the reason why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from suite.contract.task import ReadError, Sample
from suite.errors import what_ran_out
from tasks.reading.images import TimmPreprocessing, UnreadableImage, decode
from tasks.reading.picture_cache import CachedPreprocessing
from tasks.reading.trees.tree import FileTree

Content = TypeVar("Content")


def load_image(tree: FileTree, name: str, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
    """File `name` of the tree as (3, H, W) float32. Raises ReadError when it is missing, damaged or no image."""
    if isinstance(preprocessing, CachedPreprocessing):
        return read_file(tree, name, sample, preprocessing.of_file)
    return read_file(tree, name, sample, lambda data: preprocessing(decode(data)))


def read_file(tree: FileTree, name: str, sample: Sample, read: Callable[[bytes], Content]) -> Content:
    """What `read` makes of the bytes of file `name`, one of the sample's, which may be another than `sample.path`.

    Raises ReadError when it is missing or damaged, with the reason that `read` gives in an UnreadableImage.
    """
    path = tree.where(name)
    if name not in tree:
        raise ReadError(sample.id, path, "the file is listed and does not exist")
    try:
        return read(tree.read(name))
    except UnreadableImage as error:
        raise ReadError(sample.id, path, str(error)) from error
    # Disks, network file systems and archives fail in ways of their own; the reason is kept with the sample.
    except Exception as error:
        if what_ran_out(error):  # of which the file knows nothing
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ReadError(sample.id, path, reason) from error
