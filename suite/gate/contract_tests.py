"""Runs the contract tests on one reducer: what every method owes on every kind of model."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from suite.errors import RequestError
from suite.reducers import make_reducer, reducer_class

TESTS = Path(__file__).parents[2] / "tests" / "contract"


def check_reducer(name: str, report: Path | None = None, only: str = "") -> int:
    """pytest's exit status, 0 if every test passes. RequestError where the reducer or the tests are not there.

    report: where pytest's JUnit XML goes, in place of its output. only: pytest's -k, to run a part of them.
    """
    reducer_class(name)
    make_reducer(name)  # its own mistakes are one line, not a hundred failures
    if not TESTS.is_dir():
        raise RequestError(f"the contract tests are not at {TESTS}; run --check from a clone of the repository")
    if find_spec("pytest") is None:
        raise RequestError("the contract tests need pytest: pip install pytest; or leave them out with --no-contract")
    path, _, cls = name.rpartition(":")
    full = f"{Path(path).resolve()}:{cls}" if path else name
    chosen = ["-k", only] if only else ["-n", "auto"] if find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", *chosen, str(TESTS)]
    command += [f"--junitxml={report}"] if report else []
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "REDUCERBENCH_CHECK": full}
    output = subprocess.DEVNULL if report else None
    return subprocess.run(command, cwd=TESTS.parents[1], env=environment, stdout=output, check=False).returncode
