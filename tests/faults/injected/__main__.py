"""Faults that are drawn from a table and injected into a run: `python -m tests.faults.injected --faults 600 --seed 0`.

A fault strikes the command, which then ends in the table of an undisturbed run, byte for byte, or in a line and a
documented exit code; without the fault, the same command ends in that table. What does not is printed, and repeated by
`--seed SEED --only NUMBER`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

import reports.write
from tests.faults.injected.disks import mounts_apart
from tests.faults.injected.project import make_project
from tests.faults.injected.tally import print_tally
from tests.faults.injected.trial import Trial, run_trial


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of faults")
    parser.add_argument("--started", type=int, default=50, help="one in so many is given to a new interpreter")
    given = parser.parse_args()
    if not mounts_apart():
        print("file systems cannot be mounted here: run it as root", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    reports.write.write_pareto = lambda *_: ([], [])  # of the table's numbers, and most of a report's time
    trials: list[Trial] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # an ordinary user is to get there
        (Path(folder) / "tmp").mkdir(mode=0o777)
        os.environ["TMPDIR"] = tempfile.tempdir = f"{folder}/tmp"  # locks of devices are no other command's
        project = make_project(Path(folder))
        for number in range(given.faults) if given.only is None else given.only:
            trial = run_trial(project, number, given.seed, started=number % given.started == given.started - 1)
            trials.append(trial)
            print(
                f"{number} {trial.kind} ({trial.where}): {trial.verdict.under}, exit {trial.verdict.code}; again "
                f"{trial.verdict.again}; {trial.seconds:.1f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            if trial.verdict.bad:
                print(f"BAD: repeat it by --seed {given.seed} --only {number}\n    {trial.said}", file=sys.stderr)
    print_tally(trials, time.monotonic() - begun)
    return int(any(trial.verdict.bad for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
