"""Plug-ins: what installed packages bring, found by their entry points. What is broken is left out, by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, TypeVar

from suite.errors import RequestError, unknown

Thing = TypeVar("Thing")

# What can be brought -> the group of its entry points, after 'reducerbench.'.
GROUPS = {"reducer": "reducers", "family": "families", "model": "models", "task": "tasks"}
LEFT_OUT: list[tuple[str, str, str]] = []
"""What was met and is broken: its kind, its name, and one line that says whose it is and why it is left out."""


def installed(kind: str) -> list[EntryPoint]:
    """Plug-ins of a kind, in an order that no search path decides. None of them is imported."""
    found = entry_points(group=f"reducerbench.{GROUPS[kind]}")
    return sorted(found, key=lambda point: (str(point.dist and point.dist.name), point.name))


def load_plugins(kind: str, registry: dict[str, Any], add: Callable[[EntryPoint], None]) -> None:
    """Take every installed plug-in of a kind, of two with one name the first.

    add: loads an entry point and puts what it names into `registry`. Whatever it raises, for what is none of the kind
    or could not be run, is noted in `LEFT_OUT`.
    """
    for point in installed(kind):
        package = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
        whose = f"{kind} plug-in {point.name!r} ({point.value}){package}"
        with leaving_out(kind, point.name, whose, registry), redirect_stdout(sys.stderr):  # it is no part of an answer
            add(point)


@contextmanager
def leaving_out(kind: str, name: str, whose: str, registry: dict[str, Any]) -> Iterator[None]:
    """What goes wrong within is noted in `LEFT_OUT`, and nothing that it had registered stays."""
    before = dict(registry)
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also what leaves the interpreter: others' code must not end a look-up
        registry.clear()
        registry.update(before)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        LEFT_OUT.append((kind, name, f"{whose} is left out: {reason}"))


def members(found: Any, kind: str, belongs: Callable[[Any], bool]) -> list[Any]:
    """What an entry point stands for: itself, or all that belong to the kind in a module. TypeError for none."""
    if belongs(found):
        return [found]
    inside = [value for value in vars(found).values() if belongs(value)] if isinstance(found, ModuleType) else []
    if not inside:
        raise TypeError(f"{found!r} is no {kind}, nor a module with one")
    return inside


def add_once(registry: dict[str, Thing], kind: str, name: str, thing: Thing) -> None:
    """ValueError if another has the name already."""
    if name in registry:
        raise ValueError(f"{kind} {name!r} is registered twice")
    registry[name] = thing


def refuse_broken(kind: str, name: str) -> None:
    """RequestError, with the reason, for what was left out."""
    for broken_kind, broken, fault in LEFT_OUT:
        if (broken_kind, broken) == (kind, name):
            raise RequestError(fault)


def find(registry: dict[str, Thing], kind: str, name: str) -> Thing:
    """What is registered by a name. RequestError for one that is broken, or unknown."""
    if name not in registry:
        refuse_broken(kind, name)
        raise unknown(kind, name, registry)
    return registry[name]
