"""One image of a data set, from its bytes in a folder or archive to the model's input, or the reason why not."""

from __future__ import annotations

from torch import Tensor

from suite.task import ReadError, Sample
from tasks.file_tree import FileTree
from tasks.images import TimmPreprocessing, UnreadableImage, decode


def load_image(tree: FileTree, name: str, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
    """File `name` of the tree as (3, H, W) float32. Raises ReadError when it is missing, damaged or no image."""
    if name not in tree:
        raise ReadError(sample.id, sample.path, "the file is listed and does not exist")
    try:
        return preprocessing(decode(tree.read(name)))
    except UnreadableImage as error:
        raise ReadError(sample.id, sample.path, str(error)) from error
    # Disks, network file systems and archives fail in ways of their own; the reason is kept with the sample.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ReadError(sample.id, sample.path, reason) from error
