"""Names and colours of ADE20K's 150 classes, as mmsegmentation has them."""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from suite.errors import RequestError
from tasks.segmentation_scoring import INSTALL

NUM_CLASSES = 150


def ade_names() -> tuple[str, ...]:
    """Name of each class, e.g. 'wall'. RequestError where mmsegmentation is not installed."""
    return tuple(_class_names().ade_classes())


def ade_palette() -> tuple[tuple[int, int, int], ...]:
    """8-bit RGB of each class. RequestError where mmsegmentation is not installed."""
    return tuple((red, green, blue) for red, green, blue in _class_names().ade_palette())


@cache
def _class_names() -> ModuleType:
    """mmsegmentation's `mmseg/utils/class_names.py` alone: the package that it lies in needs a compiled mmcv."""
    package = importlib.util.find_spec("mmseg")
    if package is None or not package.submodule_search_locations:
        raise RequestError(f"ADE20K's class names need mmsegmentation; install it with: {INSTALL}")
    file = Path(package.submodule_search_locations[0]) / "utils" / "class_names.py"
    module = ModuleType("mmseg_class_names")
    SourceFileLoader(module.__name__, str(file)).exec_module(module)
    return module
