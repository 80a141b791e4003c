"""What became of a command under a fault, and of the same command without it."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from suite.cli.ending import ExitCode
from suite.cli.signals import ENDING
from tests.faults.gaps import only_gaps, rows_of
from tests.faults.injected.command import Ended
from tests.faults.injected.fault import Fault
from tests.faults.injected.project import Project, report_of

DOCUMENTED = {*ExitCode, 129, 143} - {ExitCode.DEFECT}
NAMED = (
    "damaged",
    "changed",
    "unreadable",
    "made anew",
    "measured again",
    "is not stored",
    "failed",
    "reading runs",
    "not written",
    "no token groups",
    "no picture of",
    "cannot be",
)
"""Words of lines by which a run that ends well says what it found."""
GOOD = ("same", "named", "refused", "killed")


@dataclass(frozen=True)
class Verdict:
    """under: 'same' table; 'named', another one with a line on why; 'refused' with a documented exit code; 'killed'; or
    what must not be. again: 'same', or what must not be."""

    under: str
    again: str
    code: int

    @property
    def bad(self) -> bool:
        return self.under not in GOOD or self.again != "same"

    @property
    def silent(self) -> bool:
        return self.under == "silent" or self.again == "silent"


def judge_fault(project: Project, fault: Fault, ended: Ended) -> str:
    for other in fault.others:
        if other.hung or other.code not in (*DOCUMENTED, -signal.SIGKILL) or "Traceback" in other.said:
            return f"the other command: {'hung' if other.hung else f'exit {other.code}'}"
    if ended.hung:
        return "hung"
    if ended.code == ExitCode.DEFECT or "defect:" in ended.said:
        return "defect"
    if "Traceback" in ended.said or "Exception ignored" in ended.said:
        return "traceback"
    if -ended.code in ENDING and has_report(project):
        return "same"  # it was asked to end when all was done, and only Python left to go
    if ended.code < 0:
        return "killed" if fault.killed else f"died of signal {-ended.code}"
    if ended.code == 0:
        if has_report(project) or (fault.clears and has_nothing_else(project)):
            return "same"
        return "named" if fault.asks_else or any(word in ended.said for word in NAMED) else "silent"
    if ended.code not in DOCUMENTED:
        return f"exit {ended.code}"
    if not ended.said.strip():
        return "no word"
    return "refused" if fault.asks_else or has_only_gaps(project) else "silent"


def judge_again(project: Project, fault: Fault, ended: Ended) -> str:
    if ended.hung:
        return "hung"
    if ended.code:
        return f"exit {ended.code}"
    if left := [path.name for path in project.out.rglob("*") if path.name.endswith((".tmp", ".log"))]:
        return f"left {left[0]}"
    if has_report(project):
        return "same"
    there, here = rows_of(project.report["table.csv"]), rows_of((project.out / "report" / "table.csv").read_bytes())
    return "same" if fault.asks_else and there.items() <= here.items() else "silent"


def has_report(project: Project) -> bool:
    """Whether the tables are those of the undisturbed run, and so is the page where no plots were drawn beside it."""
    here = report_of(project.out)
    plots = any(name.startswith("pareto") for name in here)
    names = [name for name in project.report if name.startswith("table") or not plots]
    return all(here.get(name) == project.report[name] for name in names)


def has_nothing_else(project: Project) -> bool:
    """Whether every file that there is of the report is that of the undisturbed run."""
    return report_of(project.out).items() <= project.report.items()


def has_only_gaps(project: Project) -> bool:
    """Whether every number of the table, if there is one, is that of the undisturbed run, or is not there."""
    try:
        here = (project.out / "report" / "table.csv").read_bytes()
    except OSError:
        return True
    return only_gaps(rows_of(here), rows_of(project.report["table.csv"]))


def tail(ended: Ended, most: int = 400) -> str:
    return f"exit {ended.code} after {ended.seconds:.1f} s: {' '.join(ended.said.split())[-most:]}"
