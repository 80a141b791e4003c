"""The harness of faults can fail: what must not become of a command is told from what may."""

from __future__ import annotations

from random import Random

import pytest

from tests.faults.injected.command import Ended
from tests.faults.injected.fault import Fault
from tests.faults.injected.judge import judge_again, judge_fault
from tests.faults.injected.project import Project
from tests.faults.injected.tally import upper_bound
from tests.faults.injected.trial import KINDS, kind_of

TABLE = b"key,status,top1\na,done,0.9\nb,done,0.8\n"
OTHER = b"key,status,top1\na,done,0.9\nb,done,0.7\n"
GAP = b"key,status,top1\na,done,0.9\nb,running,0.7\n"


def judged(tmp_path, code: int, table: bytes | None, said: str = "", **of: object) -> str:
    project = Project(tmp_path, {}, {"table.csv": TABLE}, {}, 0.0)
    if table is not None:
        (project.out / "report").mkdir(parents=True)
        (project.out / "report" / "table.csv").write_bytes(table)
    return judge_fault(project, Fault("here", "fresh", **of), Ended(code, "", said, 1.0))


@pytest.mark.parametrize(
    ("code", "table", "said", "verdict"),
    [
        (0, TABLE, "", "same"),
        (0, OTHER, "", "silent"),
        (0, OTHER, "contents.parquet is damaged", "named"),
        (0, None, "", "silent"),
        (2, None, "error: no such data", "refused"),
        (2, OTHER, "error: no such data", "silent"),
        (1, GAP, "failed: b: unreadable image", "refused"),
        (71, None, "", "no word"),
        (70, None, "defect: KeyError", "defect"),
        (2, None, "Traceback (most recent call last)", "traceback"),
        (9, None, "error", "exit 9"),
        (-9, None, "", "died of signal 9"),
    ],
)
def test_outcomes_are_told_apart(code, table, said, verdict, tmp_path):
    assert judged(tmp_path, code, table, said) == verdict


def test_a_command_that_is_killed_on_purpose_may_die(tmp_path):
    assert judged(tmp_path, -9, None, killed=True) == "killed"


def test_another_command_beside_it_is_judged_too(tmp_path):
    assert judged(tmp_path, 0, TABLE, others=[Ended(70, "", "", 1.0)]) == "the other command: exit 70"


def test_what_is_left_behind_and_what_differs_afterwards_is_bad(tmp_path):
    project, fault = Project(tmp_path, {}, {"table.csv": TABLE}, {}, 0.0), Fault("here", "fresh")
    (project.out / "report").mkdir(parents=True)
    (project.out / "report" / "table.csv").write_bytes(OTHER)
    assert judge_again(project, fault, Ended(0, "", "", 1.0)) == "silent"
    assert judge_again(project, fault, Ended(1, "", "", 1.0)) == "exit 1"
    (project.out / "report" / "table.csv").write_bytes(TABLE)
    assert judge_again(project, fault, Ended(0, "", "", 1.0)) == "same"
    (project.out / ".run.json.1.tmp").touch()
    assert judge_again(project, fault, Ended(0, "", "", 1.0)) == "left .run.json.1.tmp"


def test_a_number_and_a_seed_draw_the_same_fault_and_every_kind_is_drawn(tmp_path):
    assert {kind_of(number, 7) for number in range(len(KINDS))} == {*KINDS}
    assert kind_of(3, 7) == kind_of(3, 7)
    assert Random("7 3").random() == Random("7 3").random()


def test_the_bound_of_none_in_600_is_half_a_percent():
    assert upper_bound(0, 600) == pytest.approx(1 - 0.05 ** (1 / 600))
    assert upper_bound(1, 600) > upper_bound(0, 600)
    assert upper_bound(2, 2) == 1.0
