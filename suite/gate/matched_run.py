"""Running what is to be compared: a new method at the cost of a baseline, or two methods in the same rounds."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from suite.errors import RequestError
from suite.gate.extend import take_over
from suite.gate.looks import Look
from suite.gate.run_side import run_side
from suite.gate.side import Side, check_comparable
from suite.pictures.report import draw_report
from suite.rates.rate import FlopsTarget, Rate
from suite.sweep.api import run_sweep
from suite.sweep.engine import SOLVED_ON
from suite.sweep.images import sample_images
from suite.sweep.plan import make_plan
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec, make_spec

# What a run against a stored side takes over from it, where it is not said otherwise.
TAKEN_OVER = (
    *("task", "data", "model", "checkpoint", "task_options", "limit", "batch_size", "image_size", "precision"),
    "allow_missing",
)


def sweep_against(
    new: str, base: Side, values: Mapping[str, Any], progress: Progress, allowed: Collection[str] = ()
) -> Side:
    """NEW at what the cells of BASE cost.

    RequestError if BASE has several methods, or differs in what is not `allowed`, and for what `run` refuses.
    """
    if len(base.methods) != 1:
        raise RequestError(
            f"{base.name} has {', '.join(base.methods) or 'no method'}; say which one is meant: {base.name}:METHOD"
        )
    given = {name: base.spec[name] for name in TAKEN_OVER if base.spec.get(name) not in (None, {}, "")}
    given |= values
    if not given.get("rates") and not given.get("flops"):
        cuts = [entry.reduction for entry in base.entries if entry.reduced and entry.reduction is not None]
        if not cuts:
            raise RequestError(f"{base.name} does not say what its cells cost; name targets with --flops")
        given["flops"] = targets(cuts)
    given["reducers"] = [new]
    planned = make_plan(make_spec(given)).identity  # said before the sweep, not after it
    check_comparable(Side(new, planned, {}, base.shown, ()), base, allowed)
    given["out"] = _folder(given, f"{_plain(new)}-against-{_plain(base.name)}")
    return _swept(given, [new], progress)[0]


class Trial:
    """NEW and BASE in one run, so that their speeds are measured side by side, at what the cells of BASE cost."""

    def __init__(self, new: str, base: str, values: Mapping[str, Any], progress: Progress) -> None:
        self.methods, self.values, self.progress = (new, base), dict(values), progress
        self.ran: dict[str, Any] = {}
        self.sides: tuple[Side, Side]

    def see(self, look: Look, rates: Collection[str] | None) -> tuple[Side, Side]:
        """Both on the samples of the look before and more; only at `rates`, where these are given."""
        new, base = self.methods
        asked = {**self.values, **look.values, "reducers": [base, new]}
        if not self.ran and not asked.get("rates"):
            asked["flops"] = self.values["flops"] = reached({**asked, "reducers": [base]})
        if rates is not None:
            asked |= _only(rates, make_spec(asked))
        folder = _folder(asked, f"{_plain(new)}-against-{_plain(base)}")
        asked["out"] = folder if look.of == 1 else f"{folder}-{look.samples}"
        if self.ran:
            take_over(make_plan(make_spec(asked)), Path(self.ran["out"]))
        self.ran = asked
        found = _swept(asked, self.methods, self.progress, report=look.of == 1)
        self.sides = found[0], found[1]
        return self.sides

    def draw(self) -> None:
        """Page, tables and plots of the last look."""
        run_sweep(self.ran, progress=self.progress, report=draw_report)


def _only(rates: Collection[str], spec: RunSpec) -> Mapping[str, Sequence[Rate]]:
    """Of what a spec asks for, what is among `rates`; all of it where methods have plans of their own and no rate."""
    kept: dict[str, Sequence[Rate]] = {
        "rates": [rate for rate in spec.rates if str(rate) in rates],
        "flops": [target for target in spec.flops if str(target) in rates],
    }
    return kept if any(kept.values()) else {}


def reached(values: Mapping[str, Any]) -> list[FlopsTarget]:
    """FLOPs targets that the method of `values` meets exactly: what its steps allow nearest to those asked for.

    Another method is then compared with it at its true cost. A target that cannot be reached stays as it is.
    """
    plan = make_plan(make_spec(dict(values)))
    found = []
    for method in plan.methods.values():
        if not isinstance(method.rate, FlopsTarget):
            continue
        try:
            solved = plan.solve(method, method.rate, lambda: sample_images(plan, SOLVED_ON))
            found += targets([solved.reduction])
        except RequestError:
            found.append(method.rate)
    return list(dict.fromkeys(found))


def targets(reductions: list[float]) -> list[FlopsTarget]:
    """[-0.33921] -> [flops=-33.92%], the least reduction first."""
    return [FlopsTarget(round(cut, 4)) for cut in sorted(set(reductions), reverse=True)]


def _folder(values: Mapping[str, Any], name: str) -> str:
    """A folder of the comparison's own unless `out` says which."""
    spec = make_spec(dict(values))
    limited = f"-{spec.limit}" if spec.limit else ""
    return values.get("out") or str(Path("results") / "check" / f"{spec.task}-{spec.model}-{name}{limited}")


def _swept(values: dict[str, Any], methods: Sequence[str], progress: Progress, report: bool = True) -> list[Side]:
    """The cells of each of the methods."""
    results = run_sweep(values, progress=progress, report=draw_report if report else None)
    side = run_side(results.out, str(results.out))
    asked = [entry for entry in side.entries if entry.key in results.cells]
    return [
        replace(side, name=method, entries=tuple(e for e in asked if e.reducer == _bare(method))) for method in methods
    ]


def _bare(method: str) -> str:
    return method if ".py:" in method else method.partition("@")[0]


def _plain(text: str) -> str:
    """Part of a folder's name: 'my/file.py:Mine' -> 'Mine'."""
    return re.sub(r"[^\w.-]+", "-", text.rpartition(":")[2] if ".py:" in text else Path(text).name).strip("-")
