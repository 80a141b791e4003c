"""The table of kinds and outcomes, and how often an error may be silent at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scipy.stats import beta

from reports.text.markup import markdown_row, markdown_rule
from tests.faults.injected.judge import GOOD
from tests.faults.injected.trial import Trial


def upper_bound(silent: int, faults: int) -> float:
    """Of the share of faults whose error is silent: the upper end of Clopper and Pearson's one-sided 95 % interval."""
    return 1.0 if silent >= faults else float(beta.ppf(0.95, silent + 1, faults - silent))


def print_tally(trials: Sequence[Trial], seconds: float) -> None:
    outcomes = [*GOOD, *sorted({trial.verdict.under for trial in trials} - {*GOOD})]
    headers = ["Fault", "n", *outcomes, "again the same", "exit codes"]
    numeric = [False, *[True] * (len(headers) - 2), False]
    print(markdown_row(headers), markdown_rule(numeric), sep="\n")
    for kind in sorted({trial.kind for trial in trials}):
        print(markdown_row(_line(kind, [trial for trial in trials if trial.kind == kind], outcomes)))
    print(markdown_row(_line("all", trials, outcomes)))
    silent = sum(trial.verdict.silent for trial in trials)
    bad = sum(trial.verdict.bad for trial in trials)
    print(
        f"\n{len(trials)} faults in {seconds / 60:.1f} minutes: {bad} bad, {silent} silent, so at most "
        f"{100 * upper_bound(silent, len(trials)):.2f} % are (95 %). {sum(not trial.started for trial in trials)} of "
        f"them in forked, already imported processes without plots, {sum(trial.patched for trial in trials)} with a "
        "clock that Python alone sees."
    )


def _line(kind: str, trials: Sequence[Trial], outcomes: Sequence[str]) -> list[str]:
    counts = Counter(trial.verdict.under for trial in trials)
    codes = Counter(trial.verdict.code for trial in trials)
    again = sum(trial.verdict.again == "same" for trial in trials)
    said = ", ".join(f"{code} ({n})" for code, n in sorted(codes.items()))
    return [kind, str(len(trials)), *(str(counts[one] or "") for one in outcomes), str(again), said]
