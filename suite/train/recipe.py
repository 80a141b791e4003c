"""Recipes by the methods that they train."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from pydantic import ValidationError

from suite.errors import RequestError, unknown
from suite.train import recipes
from suite.train.session import Recipe

__all__ = ["REGISTERED", "Recipe", "list_recipes", "make_recipe", "register"]

REGISTERED: dict[str, type[Recipe]] = {}


def register(recipe: type[Recipe]) -> type[Recipe]:
    """Class decorator: makes a recipe known by its method."""
    REGISTERED[recipe.method] = recipe
    return recipe


def list_recipes() -> list[str]:
    """Methods that can be trained, sorted."""
    for module in pkgutil.iter_modules(recipes.__path__):
        importlib.import_module(f"{recipes.__name__}.{module.name}")
    return sorted(REGISTERED)


def make_recipe(method: str, **values: Any) -> Recipe:
    """The recipe of a method with some of its numbers changed. RequestError, in one line, for what is not possible."""
    if method not in list_recipes():
        raise unknown("training recipe for", method, REGISTERED)
    cls = REGISTERED[method]
    for key in values:
        if key not in cls.model_fields:
            raise unknown(f"setting of the recipe for {method!r}:", key, cls.model_fields)
    try:
        recipe = cls(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:
            raise RequestError(f"recipe of {method!r}: {first['msg'].removeprefix('Value error, ')}") from error
        raise RequestError(f"{where}={first['input']!r} is not valid: {first['msg'].lower()}") from error
    if cls.measured_by and (idle := sorted(values.keys() - cls.measured_by)):
        meant = ", ".join(sorted(cls.measured_by))
        raise RequestError(f"{idle[0]}: {method!r} is measured, without updates; its numbers are {meant}")
    return recipe
