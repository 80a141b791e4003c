"""The packages that this one declares: the releases it takes of each, and the one that is installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

DISTRIBUTION = "reducerbench"
TAKES_PLACE_OF = {"mmcv-lite": "mmcv"}  # the same package, with compiled operators


@dataclass(frozen=True)
class Dependency:
    """bound: the releases that are taken on this Python. extra: '' where the package is always needed. release: the one
    that is installed, '' where none is."""

    name: str
    bound: SpecifierSet
    extra: str
    release: str

    @property
    def fits(self) -> bool:
        """The release that is installed lies within the bound."""
        return bool(self.release) and self.bound.contains(self.release, prereleases=True)

    @property
    def releases(self) -> str:
        """The bound as people write it, the lowest release first."""
        return ",".join(sorted(map(str, self.bound), reverse=True))

    @property
    def repair(self) -> str:
        """The command that installs a release that fits."""
        return f"pip install '{self.name}{self.releases}'"


def list_dependencies() -> list[Dependency]:
    """Everything that the installed package declares, as it stands in its metadata.

    PackageNotFoundError where it has none: it runs from sources that were never installed.
    """
    extras = ("", *(metadata(DISTRIBUTION).get_all("Provides-Extra") or ()))
    bounds: dict[tuple[str, str], SpecifierSet] = {}
    for requirement in map(Requirement, requires(DISTRIBUTION) or ()):
        marker = requirement.marker
        for extra in extras:
            if marker is None or marker.evaluate({"extra": extra}):
                key = requirement.name, extra
                bounds[key] = bounds.get(key, SpecifierSet()) & requirement.specifier
                break
    return [
        Dependency(name, bound, extra, installed(name) or "")
        for (name, extra), bound in bounds.items()
        if installed(name) or not installed(TAKES_PLACE_OF.get(name, name))
    ]


def installed(name: str) -> str | None:
    """The release of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
