"""One fault: drawn by a seed, injected, judged, taken away, and judged again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.faults.injected.command import Acts, run_forked, run_started
from tests.faults.injected.content import CONTENT
from tests.faults.injected.disks import DISKS
from tests.faults.injected.ends import ENDS
from tests.faults.injected.fault import Draw
from tests.faults.injected.judge import Verdict, judge_again, judge_fault, tail
from tests.faults.injected.limits import LIMITS
from tests.faults.injected.machines import MACHINES
from tests.faults.injected.project import Project
from tests.faults.injected.streams import STREAMS

KINDS: dict[str, Draw] = {
    f"{of}: {name}": draw
    for of, kinds in {
        "signal": ENDS, "limit": LIMITS, "disk": DISKS, "content": CONTENT, "stream": STREAMS, "machine": MACHINES,
    }.items()
    for name, draw in kinds.items()
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """number: with the seed of all, it draws the fault. said: what the two commands said, of one that is bad."""

    number: int
    kind: str
    where: str
    verdict: Verdict
    seconds: float
    patched: bool
    started: bool
    said: str


def kind_of(number: int, seed: int) -> str:
    """Every kind in turn, in an order of the seed's."""
    kinds = sorted(KINDS)
    Random(seed).shuffle(kinds)
    return kinds[number % len(kinds)]


def run_trial(project: Project, number: int, seed: int, started: bool = False) -> Trial:
    """started: by a new interpreter, not in a forked process."""
    kind = kind_of(number, seed)
    random = Random(f"{seed} {number}")
    fault = KINDS[kind](random, project)
    project.renew(fault.stage)
    fault.prepare()
    run = run_started if started else run_forked
    usual = project.seconds[fault.stage] + started * project.starting
    ended = run(project.command(), fault.acts, usual)
    under = judge_fault(project, fault, ended)
    fault.mend()
    under = judge_fault(project, fault, ended) if fault.others else under
    if not fault.asks_else:
        project.renew_request()
    again_ended = run_forked(project.command(), Acts())
    verdict = Verdict(under, judge_again(project, fault, again_ended), ended.code)
    said = f"{tail(ended)}\n    again: {tail(again_ended)}" if verdict.bad else ""
    where = f"{fault.place}; {fault.stage}" + ("" if fault.acts.at is None else f"; at {fault.acts.at:.0%}")
    seconds = ended.seconds + again_ended.seconds
    return Trial(number, kind, where, verdict, seconds, fault.patched, started, said)
