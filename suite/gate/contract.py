"""The contract tests of all reducers, run on one, and which of them it fails."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from suite.contract.program import PROGRAM
from suite.errors import RequestError
from suite.gate.contract_tests import check_reducer

PASSED, FAILED = 0, 1  # of pytest


@dataclass(frozen=True)
class Contract:
    """tests: that were run. failed: what one of them promises -> on how many kinds of model, or other cases, it does
    not hold.
    """

    tests: int
    failed: dict[str, int]


def prove(reducer: str, only: str = "") -> Contract:
    """Run the contract tests on a reducer, or the part of them that pytest's -k chooses.

    RequestError where they cannot be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "contract.xml"
        status = check_reducer(reducer, report, only)
        if status not in (PASSED, FAILED) or not report.is_file():
            raise RequestError(
                f"the contract tests of {reducer!r} could not be run (pytest ended with {status}); see: "
                f"{PROGRAM} list --check {reducer}"
            )
        cases = [case for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None]
    broken = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return Contract(len(cases), dict(Counter(promise(case.get("name", "")) for case in broken)))


def promise(test: str) -> str:
    """'test_two_forwards_are_equal[tome-MAE]' -> 'two forwards are equal'."""
    return test.partition("[")[0].removeprefix("test_").replace("_", " ")
