"""A stored file says when it is damaged; other programs read it as ever; nobody's temporary files are removed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from suite.store.files import atomic_path, remove_orphans
from suite.store.schema import CELL_FILES, AccuracyFile, FlopsFile, MissingLine
from suite.store.sealed import DamagedError, SealedFiles
from tests.faults.damage import empty, flip, truncate, zero

FLOPS = {"total": 12345, "reducer": 2.5, "disputed": False, "uncounted": {"aten::sin": 2}, "further": {}, "x": [None]}
LINES = [{"id": f"val/{i}", "path": "näme", "reason": "it's \n broken"} for i in range(3)]
TABLE = pa.table({"id": [f"val/{i}" for i in range(40)], "correct": [i % 3 > 0 for i in range(40)]})


@pytest.fixture
def files(tmp_path) -> SealedFiles:
    return SealedFiles(tmp_path / "run")


FORMS: dict[str, tuple[Callable[[SealedFiles], None], Callable[[SealedFiles], object], object]] = {
    "cells/a/flops.json": (
        lambda files: files.write_json("cells/a/flops.json", FLOPS),
        lambda files: files.read_json("cells/a/flops.json", FlopsFile),
        FLOPS,
    ),
    "missing.jsonl": (
        lambda files: files.write_lines("missing.jsonl", LINES),
        lambda files: files.read_lines("missing.jsonl", MissingLine),
        LINES,
    ),
    "samples.parquet": (
        lambda files: files.write_rows("samples.parquet", TABLE),
        lambda files: files.read_rows("samples.parquet", ["id", "correct"]).to_pylist(),
        TABLE.to_pylist(),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_damaged_file_is_never_read_as_another_value(files, name):
    write, read, value = FORMS[name]
    write(files)
    assert read(files) == value
    whole, random, said = files.path(name).read_bytes(), Random(0), []
    for damage in [flip] * 150 + [truncate] * 40 + [zero] * 10 + [empty]:
        files.path(name).write_bytes(whole)
        damage(files.path(name), random)
        try:
            again = read(files)  # a space became another, or the word that says that there is a checksum
            assert ({key: again[key] for key in value} if isinstance(value, dict) else again) == value
        except DamagedError as error:
            said.append(str(error))
    assert len(said) > 180
    assert all(f"{name} is damaged" in line and "\n" not in line for line in said)


def test_files_that_changed_places_are_damaged_both(files):
    for key, total in (("a", 1), ("b", 2)):
        files.write_json(f"{key}/flops.json", FLOPS | {"total": total})
        files.write_rows(f"{key}/samples.parquet", TABLE.slice(total))
    for name in ("flops.json", "samples.parquet"):
        one, other = files.path(f"a/{name}"), files.path(f"b/{name}")
        one.rename(one.with_suffix(".aside"))
        other.rename(one)
        one.with_suffix(".aside").rename(other)
    for key in ("a", "b"):
        with pytest.raises(DamagedError):
            files.read_json(f"{key}/flops.json")
        with pytest.raises(DamagedError):
            files.read_rows(f"{key}/samples.parquet")


def test_other_programs_pass_over_the_checksum(files):
    files.write_rows("samples.parquet", TABLE)
    files.write_json("flops.json", FLOPS)
    path = files.path("samples.parquet")
    assert pd.read_parquet(path).equals(TABLE.to_pandas())
    assert duckdb.sql(f"SELECT count(*), sum(correct::int) FROM read_parquet('{path}')").fetchall() == [(40, 26)]
    assert json.loads(files.path("flops.json").read_text()).items() >= FLOPS.items()


def test_what_is_no_text_as_a_key_is_read_as_json_has_it(files):
    files.write_json("a.json", {"by": {10: 0.1, 9: 1e-300}})
    assert files.read_json("a.json") == {"by": {"10": 0.1, "9": 1e-300}}


def test_a_file_of_before_there_were_checksums_is_read(files):
    files.path("").mkdir()
    files.path("accuracy.json").write_text('{"batch_size": 8}')
    assert files.read_json("accuracy.json", AccuracyFile) == {"batch_size": 8}


@pytest.mark.parametrize("text", ["[]", "3", "null", '"a"', "true", "{}", '{"batch_size": "many"}', "NaN", "{'a': 1}"])
@pytest.mark.parametrize("kind", CELL_FILES)
def test_json_of_the_wrong_shape_is_damaged_and_says_what_is_wrong(files, kind, text):
    files.path("").mkdir()
    files.path(f"{kind}.json").write_text(text)
    with pytest.raises(DamagedError, match=rf"{kind}\.json is damaged \(.+\); give the command"):
        files.read_json(f"{kind}.json", CELL_FILES[kind])


def test_what_is_set_aside_is_kept_each_time(files):
    for content in (b"one", b"two"):
        files.write_json("a.json", {})
        files.path("a.json").write_bytes(content)
        with pytest.raises(DamagedError) as found:
            files.read_json("a.json")
        found.value.put_aside()
    kept = {path.name: path.read_bytes() for path in files.root.iterdir()}
    assert kept == {"a.json.damaged-1": b"one", "a.json.damaged-2": b"two"}


def killed_while_writing(path: Path) -> None:
    child = os.fork()
    if child == 0:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_temporary_files_of_the_killed_are_removed_and_those_of_the_living_stay(tmp_path):
    killed_while_writing(tmp_path / "cells" / "a" / "flops.json")
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    with atomic_path(tmp_path / "run.json") as mine:
        mine.write_text("{}")
        remove_orphans(tmp_path)
        assert list(tmp_path.rglob("*.tmp")) == [mine]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.json"]
