"""A run's folder: where each thing lies, and the rule that a folder holds one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from suite.errors import RequestError
from suite.metric import Shown
from suite.store.files import atomic_path, read_json, write_json
from suite.store.schema import SCHEMA
from suite.store.shards import Shards, read_rows, write_rows


class CellFolder:
    """One cell of a run."""

    def __init__(self, path: Path) -> None:
        self.path, self.shards = path, Shards(path)

    def read(self, name: str) -> Any | None:
        return read_json(self.path / f"{name}.json")

    def write(self, name: str, value: Any) -> None:
        write_json(self.path / f"{name}.json", value)

    def remove(self, name: str) -> None:
        (self.path / f"{name}.json").unlink(missing_ok=True)

    def remove_scores(self) -> None:
        """Those of outcomes that are about to change."""
        self.remove("scores")
        (self.path / "scores.parquet").unlink(missing_ok=True)

    def write_scores(self, samples: pd.DataFrame) -> None:
        """scores.parquet: a number per metric and sample."""
        write_rows(self.path / "scores.parquet", pa.Table.from_pandas(samples, preserve_index=False))

    def fail(self, reason: str) -> None:
        self.write("failed", {"reason": reason})


class RunFolder:
    """The folder of one run. Everything in it is written atomically."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def cell(self, key: str) -> CellFolder:
        return CellFolder(self.path / "cells" / key)

    def read_run(self) -> dict[str, Any]:
        """run.json. RequestError if this is no run's folder, or one of another schema."""
        run = read_json(self.path / "run.json")
        if run is None:
            raise RequestError(
                f"{str(self.path)!r} is not the folder of a run: it has no run.json; give what --out named"
            )
        if run.get("schema") != SCHEMA:
            raise RequestError(
                f"{self.path / 'run.json'} has schema {run.get('schema')}, this version reads {SCHEMA}; "
                "give another --out"
            )
        return run

    def check(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """run.json of the run with this identity, None if the folder is free. RequestError if it is not."""
        if self.path.exists() and not self.path.is_dir():
            raise RequestError(f"--out {str(self.path)!r} is a file; give a folder")
        if not (self.path / "run.json").exists():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise RequestError(f"--out {str(self.path)!r} is not empty and holds no run; give a new folder")
            return None
        old = self.read_run()
        for name, value in identity.items():
            if old["identity"].get(name) != value:
                raise RequestError(
                    f"{str(self.path)!r} holds a run with {name}={old['identity'].get(name)!r}, not {value!r}; "
                    "give another --out"
                )
        return old

    def open(
        self,
        spec: dict[str, Any],
        identity: dict[str, Any],
        cells: Sequence[str],
        slots: dict[str, str],
        shown: Shown,
    ) -> None:
        """Make the folder this run's, or continue it. RequestError if it holds another run: results never mix.

        slots: cell key -> what it measures (method and rate). A new cell takes the place of an old one with the same
        slot, which a changed reducer source leaves behind. shown: what the reports are to show of the task.
        """
        old = self.check(identity)
        if old is not None:
            taken = set(slots.values())
            slots = {key: slot for key, slot in old["slots"].items() if slot not in taken} | slots
            cells = [*[key for key in old["cells"] if key in slots and key not in cells], *cells]
        try:
            write_json(
                self.path / "run.json",
                {
                    "schema": SCHEMA,
                    "spec": spec,
                    "identity": identity,
                    "cells": list(cells),
                    "slots": slots,
                    "shown": shown.as_dict(),
                },
            )
        except OSError as error:
            raise RequestError(f"--out {str(self.path)!r} cannot be written: {error.strerror}") from error

    def write_manifest(self, ids: Sequence[str], labels: Sequence[Any]) -> None:
        path = self.path / "manifest.parquet"
        if not path.exists():
            write_rows(path, pa.table({"id": list(ids), "label": list(labels)}))

    def read_ids(self) -> list[str]:
        """The expected samples, in order; none while the sweep has not listed them."""
        path = self.path / "manifest.parquet"
        return read_rows(path, ["id"])["id"].to_pylist() if path.exists() else []

    def write_missing(self, records: Sequence[dict[str, str]]) -> None:
        """Replace the list of unreadable samples; none: the file goes."""
        path = self.path / "missing.jsonl"
        if not records:
            path.unlink(missing_ok=True)
            return
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(record, sort_keys=True) + "\n" for record in records))

    def read_missing(self) -> list[dict[str, str]]:
        path = self.path / "missing.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
