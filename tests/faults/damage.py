"""A tally of damaged files: `python -m tests.faults.damage --trials 200 --seed 0`.

Every trial damages one file of a finished run's folder, then writes its report, then gives the run's command again.
What must not be: a report that differs from that of the undamaged run without a word ("silent"), a defect (exit 70),
and a second run that does not end in the undamaged run's report, byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch

import reports.write
from suite.cli.app import main
from tests.faults.gaps import only_gaps, rows_of
from tests.photos import write_photos

DEFECT, BAD_REQUEST = 70, 2
# how the names of columns that no two timings agree in begin
TIMED = ("speed", "im_s", "whole_s", "memory", "latency", "single", "energy", "fastest", "compile")
WRONG = (
    "[]", "[1, 2]", "5", "null", '"text"', "{}", '{"schema": 3}', '{"total": "many", "scores": 5, "batch_size": null}',
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """report, again: what became of the report, and of the same command again."""

    kind: str
    damage: str
    report: str
    again: str
    said: str

    @property
    def bad(self) -> bool:
        return self.report in ("silent", "exit 70") or self.again != "equal"


def flip(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    bit = random.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def truncate(path: Path, random: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: random.randrange(1, len(data))])


def empty(path: Path, random: Random) -> None:
    path.write_bytes(b"")


def zero(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    start = random.randrange(len(data))
    block = len(data[start : start + 512])
    data[start : start + block] = bytes(block)
    path.write_bytes(data)


def remove(path: Path, random: Random) -> None:
    path.unlink()


def wrong_shape(path: Path, random: Random) -> None:
    if path.suffix == ".parquet":
        tables = [{"id": [1, 2]}, {"name": ["a"]}, {"id": ["a"], "label": [None], "prediction": ["b"]}]
        pq.write_table(pa.table(random.choice(tables)), path)
    else:
        path.write_text(random.choice(WRONG))


def swap(path: Path, random: Random) -> None:
    """With another file of the run of the same form."""
    out = next(folder for folder in path.parents if (folder / "run.json").exists())
    others = sorted({*out.rglob(f"*{path.suffix}")} - {path, *out.glob("report/*")}) or [out / "run.json"]
    other, aside = random.choice(others), path.with_suffix(".aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


DAMAGES: dict[str, Callable[[Path, Random], None]] = {
    "flip": flip, "truncate": truncate, "empty": empty, "zero": zero, "remove": remove, "shape": wrong_shape,
    "swap": swap,
}  # fmt: skip


def call(*arguments: str) -> tuple[int, str]:
    """Exit code and all that was printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(list(arguments))
        except SystemExit as ended:
            return int(ended.code or 0), said.getvalue()
    return 0, said.getvalue()


class FinishedRun:
    """A finished run in `folder`/whole, and the command that made it."""

    def __init__(self, folder: Path, speed: bool = False) -> None:
        self.folder, self.speed = folder, speed
        reports.write.write_pareto = lambda *_: ([], [])  # of the table's numbers, and most of a report's time
        photos = write_photos(folder / "photos", each=2)
        next(photos.rglob("*.JPEG")).write_text("no picture")  # so that there is a missing.jsonl
        torch.manual_seed(0)
        model = timm.create_model("deit_tiny_patch16_224", img_size=64)
        torch.save(model.state_dict(), folder / "weights.pth")
        self.spec = {
            "task": "imagenet", "data": str(photos), "model": "deit_tiny_patch16_224", "image_size": 64,
            "checkpoint": str(folder / "weights.pth"), "batch_size": 4, "device": "cpu", "workers": 0,
            "reducers": ["tome", "evit"], "rates": ["r=1"], "speed": speed, "speed_rounds": 2, "allow_missing": 1,
        }  # fmt: skip
        self.whole = folder / "whole"
        code, said = self.run(self.whole)
        assert code == 0, said
        self.report = self.report_of(self.whole)

    def run(self, out: Path) -> tuple[int, str]:
        request = self.folder / "request.yaml"
        request.write_text(json.dumps({**self.spec, "out": str(out)}))
        return call("run", str(request))

    def report_of(self, out: Path) -> dict[str, bytes]:
        """The report's files; of a run with timings the table without them, and without what is drawn of them."""
        if not self.speed:
            return {path.name: path.read_bytes() for path in sorted((out / "report").iterdir())}
        with (out / "report" / "table.csv").open() as stream:
            rows = [{k: v for k, v in row.items() if not k.startswith(TIMED)} for row in csv.DictReader(stream)]
        return {"table.csv": json.dumps(rows).encode()}

    def files(self) -> list[str]:
        """Those that are stored; the report is made of them."""
        names = {path.relative_to(self.whole).as_posix() for path in self.whole.rglob("*") if path.is_file()}
        stored = sorted(name for name in names if not name.startswith(("report/", ".")))  # no locks: nothing is in them
        return [name for name in stored if name.endswith("speed.json") or not self.speed]

    def trial(self, name: str, damage: str, random: Random) -> Outcome:
        out = self.folder / "copy"  # whose path is printed, and must not say what is looked for
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.whole, out)
        DAMAGES[damage](out / name, random)
        code, said = call("report", str(out))
        if code == DEFECT or "defect" in said or "Traceback" in said:
            report = "exit 70"
        elif code == BAD_REQUEST or "damaged" in said:
            report = "named"
        elif self.report_of(out) == self.report:
            report = "equal"
        else:
            there, here = rows_of(self.table_of(self.whole)), rows_of(self.table_of(out))
            report = "absent" if damage == "remove" and only_gaps(here, there) else "silent"
        code, said_again = self.run(out)
        again = "exit 70" if code == DEFECT else f"exit {code}" if code else "differs"
        if not code and self.report_of(out) == self.report:
            again = "equal"
        return Outcome(kind_of(name), damage, report, again, f"{name}: {said[-300:]} | {said_again[-300:]}")

    def table_of(self, out: Path) -> bytes:
        return (out / "report" / "table.csv").read_bytes()


def kind_of(name: str) -> str:
    """Without the cell's key."""
    parts = name.split("/")
    if parts[0] == "cells":
        return f"cells/*/{'/'.join(parts[2:])}"
    return "exhibits/tokens/*" if name.startswith("exhibits/tokens/") else name


def tally(run: FinishedRun, trials: int, random: Random) -> Iterator[Outcome]:
    """Every kind of file in turn, every kind of damage in turn."""
    kinds: dict[str, list[str]] = {}
    for name in run.files():
        kinds.setdefault(kind_of(name), []).append(name)
    pairs = [(kind, damage) for damage in DAMAGES for kind in kinds]
    random.shuffle(pairs)
    for number in range(trials):
        kind, damage = pairs[number % len(pairs)]
        yield run.trial(random.choice(kinds[kind]), damage, random)


def show(outcomes: list[Outcome]) -> None:
    counts = Counter((one.kind, one.damage, f"{one.report}/{one.again}") for one in outcomes)
    kinds = sorted({one.kind for one in outcomes})
    print("| file | " + " | ".join(DAMAGES) + " |\n|---|" + "---|" * len(DAMAGES))
    for kind in kinds:
        cells = (
            ", ".join(f"{n}× {what}" for (k, d, what), n in sorted(counts.items()) if (k, d) == (kind, damage))
            for damage in DAMAGES
        )
        print(f"| {kind} | {' | '.join(cells)} |")
    totals = Counter(one.report for one in outcomes), Counter(one.again for one in outcomes)
    print(f"\n{len(outcomes)} damages. The report: {dict(totals[0])}. The same command again: {dict(totals[1])}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--timed", type=int, default=14, help="more, of the files of a run with timings")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Outcome] = []
    for trials, speed in ((given.trials, False), (given.timed, True)):
        with tempfile.TemporaryDirectory() as folder:
            finished, dice = FinishedRun(Path(folder), speed), Random(given.seed)
            for one in tally(finished, trials, dice):
                found.append(one)
                print(len(found), one.kind, one.damage, one.report, one.again, file=sys.stderr, flush=True)
                if one.bad:
                    print(f"BAD {one.damage}: {one.report}, then {one.again}: {one.said}", file=sys.stderr, flush=True)
    show(found)
    sys.exit(any(one.bad for one in found))
