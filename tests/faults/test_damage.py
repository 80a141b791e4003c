"""A finished run whose files are damaged says so, and the same command makes it whole again."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

import reports.write
from suite.store.sealed import SealedFiles
from tests.faults.damage import FinishedRun, call, tally


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    drawn = reports.write.write_pareto
    yield FinishedRun(tmp_path_factory.mktemp("damage"))
    reports.write.write_pareto = drawn


def test_no_damage_changes_a_number_in_silence_or_stays(finished):
    bad = [one for one in tally(finished, 4, Random(2)) if one.bad]
    assert not bad


@pytest.mark.slow
def test_no_damage_of_many_changes_a_number_in_silence_or_stays(finished):
    bad = [one for one in tally(finished, 30, Random(1)) if one.bad]
    assert not bad


@pytest.mark.parametrize("name", ["run.json", "environment.json", "manifest.parquet", "missing.jsonl"])
def test_what_all_cells_share_is_refused_by_name_and_the_page_stays(finished, name):
    path, page = finished.whole / name, finished.whole / "report" / "index.html"
    data, before = path.read_bytes(), page.read_bytes()
    try:
        for wrong in (b"[]", b"null", b"7", data[:-9], b""):
            path.write_bytes(wrong)
            for verb in ("report", "compare"):
                code, said = call(verb, *[str(finished.whole)] * (1 + (verb == "compare")))
                assert code == 2 or (name == "environment.json" and verb == "compare"), said
                assert f"{name} is damaged" in said or code != 2
            assert page.read_bytes() == before
    finally:
        path.write_bytes(data)


def test_a_damaged_cell_is_a_failed_row_beside_the_others(finished):
    path = next((finished.whole / "cells").glob("*/flops.json"))
    data = path.read_bytes()
    try:
        path.write_bytes(data.replace(b'"total": ', b'"total": 1'))
        code, said = call("report", str(finished.whole))
    finally:
        path.write_bytes(data)
    assert code == 2
    assert f"{path} is damaged" in said
    assert "2 done" in said or said.count("failed") >= 1
    assert (finished.whole / "report" / "index.html").is_file()


def test_a_run_of_before_there_were_checksums_is_read_and_continued(finished, tmp_path):
    """What an earlier version left behind has no checksums, and no contents."""
    out = tmp_path / "old"
    assert finished.run(out)[0] == 0
    for path in [*out.rglob("*.json"), *out.rglob("*.jsonl"), *out.rglob("*.parquet")]:
        unseal(path)
    (out / "contents.parquet").unlink()
    code, said = finished.run(out)
    assert code == 0
    assert "damaged" not in said
    assert "is not stored; they are taken" in said
    assert finished.report_of(out) == finished.report
    assert SealedFiles(out).read_rows("contents.parquet").num_rows == 7


def unseal(path: Path) -> None:
    """Take the checksum out of a file, as it was written before there were any."""
    if path.suffix == ".parquet":
        pq.write_table(pq.read_table(path), path)
        return
    records = [json.loads(text) for text in ([path.read_text()] if path.suffix == ".json" else path.open())]
    for record in records:
        del record["checksum"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
