"""A run's folder: where each thing lies, and the rule that a folder holds one run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from suite.contract.metric import TaskReport
from suite.errors import RequestError, what_ran_out
from suite.store.claims import Claims
from suite.store.files import is_temporary, locked, remove_orphans
from suite.store.log import Logs, LogWriter
from suite.store.pulse import PULSE
from suite.store.schema import CELL_FILES, OLDEST, SCHEMA, EnvironmentFile, MissingLine, RunFile
from suite.store.sealed import DamagedError, SealedFiles
from suite.store.shards import Shards
from suite.store.upgrade import upgrade

RUN, ENVIRONMENT, MANIFEST, MISSING = "run.json", "environment.json", "manifest.parquet", "missing.jsonl"
LOGS, SAMPLES, CONTENTS_NAME = "logs", "samples", "contents"
EXHIBITS, REPORT = "exhibits", "report"  # made from the rest and safe to delete
REPORTED = ("index.html", "pareto_", "pictures", "runtimes.", "speed.", "table.", "tokens")
"""What names of files in a run's report begin with."""
OTHERWISE = {"samples": " (other data, or another --limit)"}
"""What may have been given otherwise, where the name of what differs does not say it."""
LOCK, CLAIMS = ".lock", ".claims"  # of the processes that work on one run; nothing is in them


class CellFolder:
    """One cell of a run."""

    def __init__(self, path: Path) -> None:
        self.path, self.files = path, SealedFiles(path.parent)  # the key is part of the names that are sealed
        self.shards = Shards(self.files, self.name(SAMPLES), Logs(path.parent.parent / LOGS))

    def name(self, name: str) -> str:
        return f"{self.path.name}/{name}"

    def read(self, name: str) -> dict[str, Any] | None:
        return self.files.read_json(self.name(f"{name}.json"), CELL_FILES[name], partial(upgrade, name))

    def write(self, name: str, value: dict[str, Any]) -> None:
        self.files.write_json(self.name(f"{name}.json"), value | {"schema": SCHEMA})

    def remove(self, name: str) -> None:
        self.files.remove(self.name(f"{name}.json"))

    def remove_scores(self) -> None:
        """Those of outcomes that are about to change."""
        self.remove("scores")
        self.files.remove(self.name("scores.parquet"))

    def scores(self) -> dict[str, Any] | None:
        """scores.json; None where it is not there, or the file of every sample's scores that it speaks of is not."""
        stored = self.read("scores")
        whole = not (stored or {}).get("per_sample") or self.files.exists(self.name("scores.parquet"))
        return stored if whole else None

    def write_scores(self, samples: pd.DataFrame) -> None:
        """scores.parquet: a number per metric and sample."""
        self.files.write_rows(self.name("scores.parquet"), pa.Table.from_pandas(samples, preserve_index=False))

    def read_scores(self, columns: Sequence[str] | None = None) -> pd.DataFrame | None:
        """scores.parquet, None where there is none."""
        if not self.files.exists(self.name("scores.parquet")):
            return None
        return self.files.read_rows(self.name("scores.parquet"), columns).to_pandas()

    def fail(self, reason: str) -> None:
        self.write("failed", {"reason": reason})


class RunFolder:
    """The folder of one run. Everything in it is written atomically, and carries a checksum."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = SealedFiles(self.path)
        self.logs = Logs(self.path / LOGS)
        self.contents = Shards(self.files, CONTENTS_NAME, self.logs)

    def cell(self, key: str) -> CellFolder:
        return CellFolder(self.path / "cells" / key)

    def read_run(self) -> dict[str, Any]:
        """run.json. RequestError if this is no run's folder, one of another schema, or the file is damaged."""
        run = self.files.read_json(RUN)
        if run is None:
            raise RequestError(
                f"{str(self.path)!r} is not the folder of a run: it has no run.json; give what --out named"
            )
        if run.get("schema", SCHEMA) not in range(OLDEST, SCHEMA + 1):
            raise RequestError(
                f"{self.path / RUN} has schema {run['schema']}, this version reads {OLDEST} to {SCHEMA}; give another "
                "--out"
            )
        run = upgrade("run", self.files.path(RUN), run) | {"schema": SCHEMA}
        self.files.check_shape(RUN, run, RunFile)
        return run

    def check(self, identity: dict[str, Any], cells: Sequence[str]) -> dict[str, Any] | None:
        """run.json of the run with this identity; None if the folder is free, or has all of a run but that file.

        cells: keys of those that are asked for, which no run of another identity has. RequestError if the folder holds
        something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RequestError(f"--out {str(self.path)!r} is a file; give a folder")
        if not self.files.exists(RUN):
            others = [path for path in self.path.iterdir() if not _is_of_beginning(path)] if self.path.is_dir() else []
            if not others or self._has_any(cells):
                return None
            if not self.files.exists(RUN):  # else another process has just begun the run
                raise RequestError(f"--out {str(self.path)!r} is not empty and holds no run; give a new folder")
        old = self.read_run()
        for name, value in identity.items():
            if old["identity"].get(name) != value:
                raise RequestError(
                    f"{str(self.path)!r} holds a run with {name}={old['identity'].get(name)!r}, not {value!r}"
                    f"{OTHERWISE.get(name, '')}; give another --out"
                )
        return old

    def _has_any(self, cells: Sequence[str]) -> bool:
        return any(self.cell(key).path.is_dir() for key in cells)

    def open(
        self,
        spec: dict[str, Any],
        identity: dict[str, Any],
        cells: Sequence[str],
        slots: dict[str, str],
        shown: TaskReport,
    ) -> list[str]:
        """Make the folder this run's, or continue it; returns what the user must know of it. RequestError if it holds
        another run: results never mix.

        slots: cell key -> what it measures (method and rate). A new cell takes the place of an old one with the same
        slot, which a changed reducer source leaves behind. shown: what the reports are to show of the task.
        """
        with suppress(DamagedError):
            self.check(identity, cells)  # before anything is put there
        with self._beginning():
            remove_orphans(self.path)
            notes = []
            try:
                old = self.check(identity, cells)
            except DamagedError as error:
                if not self._has_any(cells):
                    raise RequestError(
                        f"{error.path} is damaged ({error.reason}), and no cell of the folder is one of this request; "
                        "give the request that the folder was made by, or another --out"
                    ) from error
                old, notes = None, [error.put_aside()]
            if old is not None:
                taken = set(slots.values())
                replaced = [key for key, slot in old["slots"].items() if slot in taken and key not in slots]
                if replaced:
                    notes.append(
                        f"cells that are measured again, because code or weights have changed since: {len(replaced)}; "
                        f"what was stored of them stays in {self.path / 'cells'}"
                    )
                slots = {key: slot for key, slot in old["slots"].items() if slot not in taken} | slots
                cells = [*[key for key in old["cells"] if key in slots and key not in cells], *cells]
            elif others := self._others(cells):
                notes.append(
                    f"{self.path / RUN} is made anew, of the cells of this request; {others} more in "
                    f"{self.path / 'cells'} are listed again by the request that they were made by"
                )
            if old is None:
                self.discard_exhibits()  # of whatever was here before
            run = {
                "schema": SCHEMA, "spec": spec, "identity": identity, "cells": list(cells), "slots": slots,
                "shown": shown.as_dict(),
            }  # fmt: skip
            self.files.write_json(RUN, run)
            return notes

    @contextmanager
    def _beginning(self) -> Iterator[None]:
        """Alone among the processes that begin or continue this run. RequestError where nothing can be written."""
        try:
            with self.locked():
                yield
        except OSError as error:
            if what_ran_out(error):
                raise
            raise RequestError(f"--out {str(self.path)!r} cannot be written: {error.strerror}") from error

    def _others(self, cells: Sequence[str]) -> int:
        folder = self.path / "cells"
        return len({path.name for path in folder.iterdir()} - set(cells)) if folder.is_dir() else 0

    def write_manifest(self, ids: Sequence[str], labels: Sequence[Any]) -> list[str]:
        """List the samples of the run; a list of others, which the run's identity rules out, is set aside."""
        table, notes = pa.table({"id": list(ids), "label": list(labels)}), []
        if self.files.exists(MANIFEST):
            if self.files.read_rows(MANIFEST).equals(table):
                return []
            notes = [DamagedError(self.path / MANIFEST, "it lists other samples than the run's").put_aside()]
        self.files.write_rows(MANIFEST, table)
        return notes

    def read_ids(self) -> list[str]:
        """The expected samples, in order; none while the sweep has not listed them."""
        return self.read_manifest("id") if self.files.exists(MANIFEST) else []

    def read_labels(self) -> list[Any]:
        """The labels of the expected samples, in order."""
        return self.read_manifest("label")

    def read_manifest(self, column: str) -> list[Any]:
        table = self.files.read_rows(MANIFEST, ["id", "label"])
        if not pa.types.is_string(table.schema.field("id").type) or table["id"].null_count:
            raise DamagedError(self.path / MANIFEST, "its ids are no texts")
        values: list[Any] = table[column].to_pylist()
        return values

    def read_environment(self) -> dict[str, Any] | None:
        """environment.json, None where there is none."""
        return self.files.read_json(ENVIRONMENT, EnvironmentFile, partial(upgrade, "environment"))

    def write_environment(self, describe: Callable[[], dict[str, Any]]) -> None:
        """environment.json, of the process that writes the run first."""
        if not self.files.exists(ENVIRONMENT):
            self.files.write_json(ENVIRONMENT, describe() | {"schema": SCHEMA})

    def discard_exhibits(self) -> None:
        """Nothing is lost: they are made of the run, its data and its model."""
        shutil.rmtree(self.path / EXHIBITS, ignore_errors=True)

    def locked(self) -> AbstractContextManager[None]:
        """Alone among the processes that work on this run; for moments, not for forwards."""
        return locked(self.path / LOCK)

    def claims(self) -> Claims:
        """Which batches this process does; see `Claims`."""
        return Claims(self.path / CLAIMS)

    def log(self) -> LogWriter:
        """A log for the rows that this process makes; `join_logs` ends it."""
        return LogWriter(self.logs.folder)

    def logged_cells(self) -> list[str]:
        """Keys of the cells that have rows in logs whose writers are gone."""
        with self.logs.left() as paths:
            return [stream.partition("/")[0] for stream in self.logs.streams(paths) if stream != CONTENTS_NAME]

    def join_logs(self, ids: Sequence[str], support: Sequence[str] = (), joined: Collection[str] = ()) -> list[str]:
        """Put what is in logs whose writers are gone into the files of its cells, in the order of the samples `ids` and
        of those in their `support`; a sentence on every log of which a part is damaged.

        joined: streams of which all rows stand in their files already.
        """
        notes = []
        with self.locked(), self.logs.left() as paths:
            for stream in self.logs.streams(paths):
                if stream == CONTENTS_NAME:
                    self.contents.compact([*ids, *support])
                elif stream not in joined:
                    self.shards_of(stream).compact(ids, support)
            for path in {path for path, _ in self.logs.faults(paths)}:
                notes.append(DamagedError(path, "a part of it does not fit its checksum").put_aside())
            self.logs.remove(paths)
        return notes

    def shards_of(self, stream: str) -> Shards:
        return self.contents if stream == CONTENTS_NAME else self.cell(stream.partition("/")[0]).shards

    def write_missing(self, records: Sequence[dict[str, str]]) -> None:
        """Replace the list of unreadable samples; none: the file goes."""
        if records:
            self.files.write_lines(MISSING, records)
        else:
            self.files.remove(MISSING)

    def read_missing(self) -> list[dict[str, str]]:
        return self.files.read_lines(MISSING, MissingLine)


def _is_of_beginning(path: Path) -> bool:
    """Whether it holds nothing that a run could lose: a run whose run.json is gone begins anew then, such as one that
    was removed while its pictures were drawn."""
    if is_passing(path) or path.name in (ENVIRONMENT, MANIFEST, MISSING, EXHIBITS):
        return True
    drawn = REPORTED if path.name == REPORT else ()
    return path.is_dir() and all(inside.name.startswith(drawn) for inside in path.iterdir())


def is_passing(path: Path) -> bool:
    """Whether it is a file of processes at work, in a folder that may be free."""
    return is_temporary(path) or path.name in (LOCK, CLAIMS, PULSE)
