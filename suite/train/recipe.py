"""How a method is trained: what one update does with a batch."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from suite.errors import RequestError, unknown
from suite.rates.rate import Rate
from suite.train import recipes
from suite.train.objective import Examples
from suite.train.session import Session, SessionRecipe

REGISTERED: dict[str, type[Recipe]] = {}


class Recipe(SessionRecipe):
    """The numbers of a method's training (`Numbers`), and in `loss` what is minimised."""

    def terms(self, session: Session, batch: Examples, step: int) -> Tensor:
        """(n,) int64, what the means in `loss` are over that are not over samples: the numbers of `Examples.terms`.

        Asked for, without gradients and with the random states that `loss` will find, where an update has parts.
        """
        return session.objective.terms(batch)[None]

    def loss(self, session: Session, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        """What is minimised on a batch, and what is to be noted of it. Default: the task's loss through the reducer."""
        session.set_modes(soft=False)
        return session.objective.loss(session.model, batch), {}

    def rate_at(self, rate: Rate, epoch: float) -> Rate:
        """The rate of an update. rate: what `self.rate` was resolved to. epoch: how many passes were made before it."""
        return rate


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
        return cls(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:
            raise RequestError(f"recipe of {method!r}: {first['msg'].removeprefix('Value error, ')}") from error
        raise RequestError(f"{where}={first['input']!r} is not valid: {first['msg'].lower()}") from error
