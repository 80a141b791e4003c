"""What formats and runtimes need that a plain installation lacks."""

from __future__ import annotations

from importlib.util import find_spec

from suite.errors import RequestError

EXTRA = "deploy"


def missing(*modules: str) -> list[str]:
    """Those of these modules that are not installed."""
    return [module for module in modules if find_spec(module) is None]


def require(*modules: str) -> None:
    """RequestError that names what is missing and how it is installed."""
    if lacking := missing(*modules):
        raise RequestError(f"{', '.join(lacking)} is not installed; pip install 'reducerbench[{EXTRA}]'")
