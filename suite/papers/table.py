"""A published table as something that can be measured: which model, method and rate each of its rows is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reports.published import load_published
from reports.published.models import MODELS
from suite.contract.baseline import BASELINE
from suite.papers.names import METHODS, Method
from suite.rates.rate import FractionPerBlock, KeptFraction, Rate, TokensPerBlock, parse_rate
from suite.reducers import list_all_reducers

Rates = dict[tuple[str, ...], str | tuple[str, Mapping[str, Any]]]
TASKS = {"classification": "imagenet", "segmentation": "ade20k", "image generation": "generation"}
MACS = "multiply-accumulates"
WITH_ELEMENTWISE = (
    "multiply-accumulates and element-wise work (4 operations for a normalised element, 5 for one of a softmax, 1 for "
    "one that is scaled, added or activated), reconstructed"
)
TWO_PER_MAC = "2 FLOPs for a multiply-accumulate"


@dataclass(frozen=True)
class Way:
    """How a row is measured: a cell of a sweep.

    derived: the rate is not printed, it was found from the cost. plan: one of DiffRate's, by the GFLOPs that it was
    learned for (as its authors' file names it).
    """

    model: str
    reducer: str = BASELINE
    rate: Rate | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    derived: bool = False
    image_size: int | None = None
    plan: str = ""


@dataclass(frozen=True)
class Unprinted:
    """A row of a table of which no figure could be read, and how it would be measured."""

    model: str
    method: str
    setting: str
    way: Way


@dataclass(frozen=True)
class PaperTable:
    """file, tables: where its rows are in the published data, by the names that those have there.

    rates: (model, method, reduction, setting or GFLOPs as printed) -> rate, for rows that print none; alone or with the
    method's options. models: names of models that mean something else here than usually. convention: of its FLOPs.
    absent: why none of its figures is in the data; `unprinted` is then what is known of it. task: what it is measured
    on. notes: what a reader must know.
    """

    name: str
    title: str
    file: str = ""
    tables: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    rates: Rates = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    convention: str = MACS
    task: str = "imagenet"
    absent: str = ""
    unprinted: tuple[Unprinted, ...] = ()
    notes: tuple[str, ...] = ()

    def rows(self) -> list[Any]:
        """Its rows in the published data, as namedtuples of `load_published`'s columns, in their order there."""
        published = load_published()
        chosen = published[(published.file == self.file) & published.table.isin(self.tables)]
        if self.sources:
            chosen = chosen[chosen.source.isin(self.sources)]
        return list(chosen.itertuples(index=False))

    def way(self, row: Any) -> Way | str:
        """How one of its rows is measured, or why it cannot be."""
        model = named_model(self, row)
        if row.task not in TASKS:
            return f"{row.task} is not among the tasks here"
        if model is None:
            return "not among the models here"
        if model.startswith("!"):
            return model[1:]
        model, _, size = model.partition("@")
        method, printed = method_of(row.method)
        if isinstance(method, str):
            return method
        if method.reducer not in list_all_reducers():
            return "not among the methods here"
        if method.reducer == BASELINE:
            return Way(model, image_size=int(size) if size else None)
        if method.reducer == "diffrate":
            target = re.match(r"target ([\d.]+)G", row.setting)
            return Way(model, "diffrate", plan=target[1]) if target else "its FLOPs target is not printed"
        rate, options, derived = self._rate(row, method, printed)
        if not rate:
            return "its rate is not printed"
        return Way(model, method.reducer, rate, {**method.options, **options}, derived, int(size) if size else None)

    def _rate(self, row: Any, method: Method, printed: Rate | None) -> tuple[Rate | None, Mapping[str, Any], bool]:
        """(rate, options that go with it, whether it was derived from the cost)."""
        for last in (row.reduction, row.setting, row.printed_gflops):
            found = self.rates.get((row.model, row.method, last)) if last else None
            if found:
                rate, options = (found, {}) if isinstance(found, str) else found
                return parse_rate(rate), options, True
        named = parse_rate(method.rate) if method.rate else printed
        return named or printed_rate(row), {}, False


def named_model(table: PaperTable, row: Any) -> str | None:
    """What the model of a row is called here; '!...': why there is none, None: it is not known."""
    return table.models.get(row.model) or MODELS.get(row.model) or (row.model if row.file == "opentome" else None)


def method_of(name: str) -> tuple[Method | str, Rate | None]:
    """The method of a printed name, or why it is none here; and the rate that the name holds: 'ToMe (r=8)'."""
    if name in METHODS:
        return METHODS[name], None
    match = re.fullmatch(r"(.+) \((?:r=(\d+)|(\d+)%)\)", name)
    if match and isinstance(METHODS.get(match[1]), Method):
        return METHODS[match[1]], TokensPerBlock(int(match[2])) if match[2] else KeptFraction(int(match[3]) / 100)
    if name.startswith("Base ("):
        return METHODS[BASELINE], None
    return "not among the methods here", None


def printed_rate(row: Any) -> Rate | None:
    """The rate that a row prints; None if it prints none."""
    if row.r == row.r:
        return TokensPerBlock(round(row.r), -1.0 if "decreasing" in row.setting else None)
    if keep := re.fullmatch(r"keep (0\.\d+)", row.setting):
        return KeptFraction(float(keep[1]))
    share = re.fullmatch(r"merge (\d+)%|(\d+)% token reduction before attention", row.setting)
    return FractionPerBlock(int(share[1] or share[2]) / 100) if share else None


def is_trained(row: Any) -> bool:
    """Whether a row's weights were updated for it."""
    return not row.training.startswith(("base model", "off-the-shelf"))
