"""Copies of modules that share everything with the original but what is replaced in them."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def with_module(module: Module, name: str, other: nn.Module) -> Module:
    """A copy that shares everything with `module` but its submodule `name`."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, name: other}
    return twin


def with_values(module: Module, **values: object) -> Module:
    """A copy that shares everything with `module` but plain attributes of these names."""
    twin = copy.copy(module)
    vars(twin).update(values)
    return twin
