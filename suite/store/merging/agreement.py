"""What runs have to agree in before they are one: else their cells could not stand in one table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from suite.errors import RequestError, unknown
from suite.store.folder import MANIFEST, RunFolder

ALLOWED = ("task_options", "device", "tf32", "torch", "timm")
"""What of two runs' identities may differ where that is asked for; no cell is then made of both."""
FREE = ("data",)
"""What may differ anyhow: where the data lie. They are known by their samples, and by what the samples' files held."""


@dataclass(frozen=True)
class Source:
    """A run that is merged into another."""

    folder: RunFolder
    run: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.folder.path)

    @property
    def identity(self) -> dict[str, Any]:
        identity: dict[str, Any] = self.run["identity"]
        return identity

    @property
    def slots(self) -> dict[str, str]:
        """What is measured -> key of the cell."""
        return {self.run["slots"].get(key, key): key for key in self.run["cells"]}


def check_agreement(sources: Sequence[Source], allowed: Collection[str]) -> None:
    """RequestError for runs that are not of the same model on the same samples, task and circumstances.

    allowed: names of `ALLOWED` that may differ.
    """
    for name in allowed:
        if name not in ALLOWED:
            raise unknown("name in --allow-different", name, ALLOWED)
    for source in sources:
        if not source.identity:
            raise RequestError(f"{source.name} does not say what it was made of, so it cannot be merged; run it again")
    first = sources[0]
    for other in sources[1:]:
        for name in dict.fromkeys([*first.identity, *other.identity]):
            own, its = (source.identity.get(name) for source in (first, other))
            if own == its or name in FREE or name in allowed:
                continue
            remedy = f"allow it with --allow-different {name}" if name in ALLOWED else "these are two runs"
            raise RequestError(f"{name} is {own!r} in {first.name} and {its!r} in {other.name}; {remedy}")
        if first.run["shown"] != other.run["shown"]:
            raise RequestError(
                f"{first.name} and {other.name} are of versions of the program that report other metrics; continue "
                "both with one version"
            )


def read_samples(sources: Sequence[Source]) -> pa.Table:
    """id and label of the samples that all runs expect; no rows where none has listed them.

    RequestError for the first sample that is another one.
    """
    tables = {
        source.name: source.folder.files.read_rows(MANIFEST, ["id", "label"])
        for source in sources
        if source.folder.files.exists(MANIFEST)
    }
    if not tables:
        return pa.table({"id": pa.array([], pa.string()), "label": pa.array([], pa.int32())})
    (name, samples), *others = tables.items()
    for other, its in others:
        if not samples.equals(its):
            pairs = zip(samples.to_pylist(), its.to_pylist())
            sample = next((f"sample {one['id']!r}" for one, two in pairs if one != two), "the number of samples")
            raise RequestError(f"{sample} is not the same in {name} and {other}; merge runs on the same samples")
    return samples


def join_contents(sources: Sequence[Source]) -> list[dict[str, str]]:
    """What the samples' files held, as the first run says that knows it. RequestError for a sample that held something
    else in two runs."""
    known: dict[str, dict[str, str]] = {}
    whose: dict[str, str] = {}
    for source in sources:
        for row in (row for table in source.folder.contents.read_all() for row in table.to_pylist()):
            if known.setdefault(row["id"], row)["digest"] != row["digest"]:
                raise RequestError(
                    f"the file of sample {row['id']!r} is not the same in {whose[row['id']]} and {source.name}; merge "
                    "runs on the same data"
                )
            whose.setdefault(row["id"], source.name)
    return list(known.values())
