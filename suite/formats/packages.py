"""What formats and runtimes need that a plain installation lacks."""

from __future__ import annotations

from importlib.util import find_spec

from suite.errors import RequestError

EXTRA = "deploy"
OWN_EXTRA = ("tensorrt",)  # of use with a GPU alone


def missing(*modules: str) -> list[str]:
    """Those of these modules that are not installed."""
    return [module for module in modules if find_spec(module) is None]


def require(*modules: str) -> None:
    """RequestError that names what is missing and how it is installed."""
    if lacking := missing(*modules):
        raise RequestError(not_installed(lacking))


def not_installed(modules: list[str]) -> str:
    """One line on what is missing, and the command that brings it."""
    extras = ",".join(dict.fromkeys(module if module in OWN_EXTRA else EXTRA for module in modules))
    return f"{', '.join(modules)} is not installed; pip install 'reducerbench[{extras}]'"
