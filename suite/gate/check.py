"""The gate: a new method against a baseline, at the same cost, with a verdict."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from suite.errors import RequestError, unknown
from suite.gate.baseline import FOLDER
from suite.gate.compare import check_alpha, check_common
from suite.gate.contract import prove
from suite.gate.looks import decide, describe_look, expected, one_look, plan_looks
from suite.gate.matched_run import Trial, sweep_against
from suite.gate.pairing import TOLERANCE, left_out, same_cost, undisclosed
from suite.gate.report import LEVEL, Report, rows_of
from suite.gate.select import load_side
from suite.gate.side import Side, check_comparable
from suite.gate.verdict import REGRESSED, judge, overall, planned, samples_needed
from suite.reducers import list_reducers
from suite.sweep.progress import Progress

NOT_PROVED = "contract tests left out (--no-contract)"


def check(
    new: str,
    against: str,
    values: Mapping[str, Any],
    *,
    margin: float | None = None,
    alpha: float = LEVEL,
    tolerance: float = TOLERANCE,
    allowed: Collection[str] = (),
    contract: bool = True,
    most: int | None = None,
    folder: Path = FOLDER,
    progress: Progress | None = None,
) -> Report:
    """Whether NEW is as good as BASE: see `suite.gate.verdict` for the rule, `same_cost` for what is compared.

    new: a reducer's name or file, which is proved by the contract tests and run, or what `load_side` reads. against:
    what `load_side` reads, or a reducer, which is run in the same rounds, on more and more samples until it can be told
    (`suite.gate.looks`), at most `most`. values: of a RunSpec, for what is run. margin: in the metric's points; None
    for the default.

    Raises:
        RequestError: for what cannot be done.
    """
    check_alpha(alpha)
    if margin is not None and not 0 < margin < float("inf"):
        raise RequestError(f"--margin {margin}: the largest loss that is tolerated is above 0 points, such as 0.5")
    if not 0 <= tolerance < 1:
        raise RequestError(f"--tolerance {tolerance:.0%}: costs may differ by 0 to 100 %, such as 2")
    progress = progress or Progress()
    stored = stored_side(against, folder)
    if most is not None and stored is not None:
        raise RequestError("--max-samples has no meaning here: what is stored decides how many samples are compared")
    if not is_reducer(new) or is_cell_of_a_run(new, folder):
        side = stored_side(new, folder)
        if stored is None or side is None:
            raise RequestError(f"{against!r} is a method, and NEW is not; compare {new!r} with a run or a baseline")
        return _judged(side, stored, margin, alpha, tolerance, allowed)
    if stored is None and method_name(new) == method_name(against):
        raise RequestError(f"NEW and BASE are the same method {new!r}; save a baseline of one of them first")
    looks = plan_looks(values, alpha, most) if stored is None else one_look(alpha)
    shown = load_shown(values) if stored is None else stored.shown
    proved = None
    if contract:
        progress.note(f"contract tests of {new} ...")
        proved = prove(method_name(new))
        if proved.failed:
            return Report(new, against, alpha, shown, [], [], margin, REGRESSED, contract=proved)
    progress.note(expected(looks, shown, margin, alpha))
    more: dict[str, Any] = {"contract": proved, "skipped": "" if contract else NOT_PROVED}
    if stored is None:
        trial = Trial(new, against, values, progress)
        rows, last = decide(looks, trial.see, alpha, margin, tolerance, progress.note)
        if last.of > 1:
            trial.draw()
        check_common(*trial.sides, rows)
        more |= {"verdict": overall(rows), "needed": samples_needed(rows)}
        return Report(new, against, alpha, shown, rows, [*left_out(*trial.sides), *describe_look(last)], margin, **more)
    side = sweep_against(new, stored, values, progress, allowed)
    return _judged(side, stored, margin, alpha, tolerance, allowed, **more)


def _judged(
    new: Side, base: Side, margin: float | None, alpha: float, tolerance: float, allowed: Collection[str], **more: Any
) -> Report:
    remarks = [*check_comparable(new, base, allowed), *left_out(new, base), *undisclosed(base)]
    found = rows_of(same_cost(new, base, tolerance), new, base, alpha, margin)
    check_common(new, base, found)
    rows = planned(judge(found, alpha), alpha)
    return Report(
        new.name, base.name, alpha, new.shown, rows, remarks, margin, overall(rows), samples_needed(rows), **more
    )


def is_reducer(text: str) -> bool:
    return bool(re.search(r"\.py:\w+$", text)) or method_name(text) in list_reducers()


def is_cell_of_a_run(text: str, folder: Path) -> bool:
    """'RUN:my.py:Mine' looks like a file, too."""
    if ".py:" not in text or Path(text.rpartition(":")[0]).is_file():
        return False
    try:
        return bool(load_side(text, folder))
    except RequestError:
        return False


def method_name(text: str) -> str:
    """Without what was learned: 'dtem@FILE' -> 'dtem'."""
    return text if ".py:" in text else text.partition("@")[0]


def stored_side(text: str, folder: Path = FOLDER) -> Side | None:
    """The run or baseline of this name; None where it names a method. What is stored comes first."""
    try:
        return load_side(text, folder)
    except RequestError as error:
        if is_reducer(text):
            return None
        if re.fullmatch(r"\w+", text) and not (folder / f"{text}.parquet").exists():
            stems = [file.stem for file in folder.glob("*.parquet")]
            raise unknown("run, baseline or method", text, [*stems, *list_reducers()]) from error
        raise


def load_shown(values: Mapping[str, Any]) -> Any:
    from tasks import task_class

    return task_class(values.get("task") or "scenes").shown
