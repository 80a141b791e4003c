"""Which cells are compared with which: those asked for alike, or those of equal cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from suite.errors import RequestError
from suite.gate.side import Entry, Side

TOLERANCE = 0.02  # of BASE's cost
UNKNOWN_DISPUTE = "{} does not say whether the counters of FLOPs agree; run it, or save its baseline, again"


@dataclass(frozen=True)
class Match:
    """A cell of BASE with the one of NEW that it is compared with; without one, `reason` says why.

    cheaper: NEW costs less by more than the tolerance, so that it may pass but not regress here. disputed: why nobody
    knows that the costs are what they are compared at; "" where all counters agree.
    """

    new: Entry | None
    base: Entry | None
    cheaper: bool = False
    reason: str = ""

    @property
    def unscored(self) -> dict[str, str]:
        """Why metrics cannot be compared that one of the cells has no value of, by their names."""
        return {name: why for entry in (self.base, self.new) if entry for name, why in entry.unscored.items()}

    @property
    def disputed(self) -> str:
        named = {"NEW": self.new, "BASE": self.base}
        said = [f"{_two_counts(entry)} for {side}" for side, entry in named.items() if entry and entry.disputed]
        return f"the counters of FLOPs differ: {', '.join(said)}" if said else ""


def _two_counts(entry: Entry) -> str:
    if entry.dispatched_gmacs is None or entry.dispatched_gmacs == entry.gmacs:
        return f"{entry.gmacs:.3f} G is not the closed form's"
    return f"{entry.gmacs:.3f} G traced, {entry.dispatched_gmacs:.3f} G dispatched"


def same_rate(new: Side, base: Side) -> tuple[list[Match], list[str]]:
    """Two single cells; else cells with the same method and rate, or of two methods with the same rate.

    The same is what was asked for, or, where that is nowhere the same, what it came to. Also the cells that have no
    partner. RequestError if none has one.
    """
    if len(new.entries) == len(base.entries) == 1:
        return [Match(new.entries[0], base.entries[0])], []
    alone = len(new.methods) == len(base.methods) == 1
    for came_to in (False, True):
        keys = [{_key(entry, alone, came_to): entry for entry in side.entries} for side in (new, base)]
        shared = [key for key in keys[0] if key in keys[1]]
        if any(keys[0][key].reduced for key in shared):
            break
    if not shared:
        raise RequestError(
            f"{new.name} ({_some(new)}) and {base.name} ({_some(base)}) share no method and rate; name one cell of "
            "each: 'RUN:METHOD RATE'"
        )
    lonely = [
        f"{entry.label} is in {side.name} alone"
        for side, own, other in ((new, keys[0], keys[1]), (base, keys[1], keys[0]))
        for key, entry in own.items()
        if key not in other
    ]
    return [Match(keys[0][key], keys[1][key]) for key in shared], lonely


def _key(entry: Entry, alone: bool, came_to: bool) -> tuple[str, ...]:
    return (str(entry.reduced) if alone else entry.method, entry.resolved_rate if came_to else entry.rate)


def _some(side: Side) -> str:
    labels = [entry.label for entry in side.entries]
    return ", ".join(labels[:4]) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")


def same_cost(new: Side, base: Side, tolerance: float = TOLERANCE) -> list[Match]:
    """Every reduced cell of BASE with the cell of NEW that costs the same.

    Cost is the larger of two counts of FLOPs. That is the nearest if it differs by no more than `tolerance` of BASE's
    cost, else the nearest that costs less: what is as good for less has passed, and what is worse for less proves
    nothing. Cells of NEW that failed stand for themselves.

    Raises:
        RequestError: the sides have several methods and none in common, or BASE has no reduced cell.
    """
    return [match for methods in _methods(new, base) for match in _of_method(new, base, *methods, tolerance)]


def _methods(new: Side, base: Side) -> list[tuple[str, str]]:
    for side in (new, base):
        if not side.methods:
            raise RequestError(f"{side.name} has no cell in which tokens are reduced; there is nothing to check")
    if len(new.methods) == len(base.methods) == 1:
        return [(new.methods[0], base.methods[0])]
    both = [(method, method) for method in new.methods if method in base.methods]
    if not both:
        raise RequestError(
            f"{new.name} has {', '.join(new.methods)} and {base.name} {', '.join(base.methods)}; say which one of each "
            "is meant: RUN:METHOD"
        )
    return both


def left_out(new: Side, base: Side) -> list[str]:
    """Which methods `same_cost` passes over, as only one side has them; one sentence a side."""
    compared = [set(names) for names in zip(*_methods(new, base), strict=True)]
    alone = [
        (side, [name for name in side.methods if name not in seen])
        for side, seen in zip((new, base), compared, strict=True)
    ]
    return [f"not compared, as {side.name} alone has them: {', '.join(names)}" for side, names in alone if names]


def undisclosed(base: Side) -> list[str]:
    """A sentence if BASE does not say whether its costs are disputed. What NEW costs is then compared with the one
    count that is known, which can only be too low: NEW gains nothing by it.
    """
    unknown = any(entry.reduced and entry.status == "done" and entry.disputed is None for entry in base.entries)
    return [UNKNOWN_DISPUTE.format(base.name)] if unknown else []


def _of_method(new: Side, base: Side, name: str, against: str, tolerance: float) -> Iterator[Match]:
    own = [entry for entry in new.entries if entry.method == name and entry.reduced]
    for entry in own:
        if entry.status == "failed":
            yield Match(entry, None, reason=entry.reason)
    for entry in (entry for entry in base.entries if entry.method == against and entry.reduced):
        if entry.status != "done":
            yield Match(None, entry, reason=f"BASE is {entry.status}: {entry.reason or 'not finished'}")
        elif entry.cost is None:
            yield Match(None, entry, reason="BASE's cost is not known")
        else:
            yield _nearest(own, entry, entry.cost, tolerance)


def _nearest(own: list[Entry], base: Entry, cost: float, tolerance: float) -> Match:
    counted = [(entry, entry.cost / cost) for entry in own if entry.cost is not None and entry.status != "failed"]
    if not counted:
        return Match(None, base, reason="no cell at this cost: NEW has none that is counted")
    near, ratio = min(counted, key=lambda one: abs(one[1] - 1))
    if abs(ratio - 1) <= tolerance:
        return _standing(near, base)
    less, _ = max((one for one in counted if one[1] < 1), key=lambda one: one[1], default=(None, 0.0))
    if less is not None:
        return _standing(less, base, cheaper=True)
    return Match(None, base, reason=f"no cell at this cost: the nearest of NEW costs {ratio - 1:+.1%}")


def _standing(new: Entry, base: Entry, cheaper: bool = False) -> Match:
    if new.status == "done":
        return Match(new, base, cheaper, UNKNOWN_DISPUTE.format("NEW") if new.disputed is None else "")
    return Match(new, base, cheaper, f"NEW is {new.status}: {new.reason or 'not finished'}")
