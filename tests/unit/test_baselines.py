"""What runs must share to be compared, what is refused in one line, and what a stored baseline is good for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from suite.errors import RequestError
from suite.gate.baseline import DIGEST, KEY, read_baseline, save_baseline
from suite.gate.check import check
from suite.gate.compare import compare
from suite.gate.render import notes
from suite.gate.select import load_side
from tests.unit.gate_runs import cli, identified
from tests.unit.run_folder import change_all, outcomes, write_run, write_samples


@pytest.fixture
def written(tmp_path) -> Path:
    """ToMe and EViT at four rates, and the unreduced model, on 400 samples."""
    (tmp_path / "run").mkdir()
    return identified(write_run(tmp_path / "run", {"tome": 4.0, "evit": 7.0}))


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [("samples", "50 (def)", "data"), ("weights", "v" * 64, "weights"), ("precision", "bf16", "precision")],
)
def test_other_data_weights_or_precision_are_refused_unless_allowed(written, tmp_path, field, value, name, capsys):
    other = identified(shutil.copytree(written, tmp_path / "other"), **{field: value})
    assert cli("compare", written, other) == 2
    assert f"{name} differs" in capsys.readouterr().err
    report = compare(str(written), str(other), allowed=[name])
    assert any(f"{name} differs" in line for line in notes(report))
    assert "nnn" not in "".join(notes(report))


def test_another_task_is_refused_even_if_allowed(written, tmp_path):
    other = identified(shutil.copytree(written, tmp_path / "other"), task="imagenet")
    with pytest.raises(RequestError, match="task differs"):
        compare(str(written), str(other))
    with pytest.raises(RequestError, match="unknown name in --allow-different 'task'"):
        compare(str(written), str(other), allowed=["task"])


def test_runs_without_a_common_sample_are_refused(written, tmp_path):
    other = identified(shutil.copytree(written, tmp_path / "other"), samples="400 (def)")
    ids = [f"train/{i}" for i in range(400)]
    write_samples(other / "manifest.parquet", pa.table({"id": ids, "label": np.full(400, 3, np.int32)}))
    for folder in (other / "cells").iterdir():
        write_samples(folder / "samples.parquet", outcomes(ids, 300, 0))
    with pytest.raises(RequestError, match="no sample in common"):
        compare(str(written), str(other), allowed=["data"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compare", "nowhere", "RUN"), "'nowhere' is neither the folder of a run nor a baseline"),
        (("compare", "RUN:nothing", "RUN"), "unknown method or cell"),
        (("compare", "RUN#zz", "RUN"), "unknown cell"),
        (("compare", "RUN", "RUN", "--alpha", "1.5"), "--alpha 1.5"),
        (("compare", "RUN", "RUN", "--alpha", "0.5"), "--alpha 0.5"),
        (("compare", "RUN#tome", "RUN"), "'tome' begins the keys of 4 cells"),
        (("check", "RUN:tome", "--against", "RUN:evit", "--margin", "-1"), "--margin -1.0"),
        (("check", "RUN:tome", "--against", "RUN:evit", "--alpha", "0"), "--alpha 0.0"),
        (("check", "RUN:none", "--against", "RUN:evit"), "no cell in which tokens are reduced"),
        (("check", "RUN:tome", "--against", "tome"), "'tome' is a method, and NEW is not"),
        (("check", "tome", "--against", "tome"), "the same method"),
        (("check", "tome", "--against", "RUN", "--no-contract"), "say which one is meant"),
        (("check", "tome", "--against", "nowhere"), "unknown run, baseline or method 'nowhere'"),
        (
            ("check", "tome", "--against", "RUN:tome", "--no-contract", "--reducers", "evit"),
            "No such option",
        ),
        (("baseline", "save", "x", "RUN:nothing"), "unknown method or cell"),
        (("baseline", "show", "nowhere"), "unknown baseline 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_one_line(written, arguments, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli(*(argument.replace("RUN", str(written)) for argument in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error


def test_random_weights_are_refused(written):
    change_all(written, "cell", weights_kind="random")
    with pytest.raises(RequestError, match="random weights"):
        compare(str(written), str(written))


# --- baselines


def test_a_baseline_compares_as_the_run_does_and_is_small(written, tmp_path):
    path = tmp_path / "baselines" / "both.parquet"
    done, _ = save_baseline(load_side(str(written)), path)
    assert len(done) == 9
    assert path.stat().st_size < 40_000
    read = read_baseline(path, "both")
    for kept, own in zip(read.entries, load_side(str(written)).entries, strict=True):
        pd.testing.assert_frame_equal(kept.read(), own.read(), check_dtype=False, check_index_type=False)
        assert kept == own
    direct = check(f"{written}:evit", f"{written}:tome", {})
    stored = check(f"{written}:evit", "both:tome", {}, folder=path.parent)
    assert [row.contrast for row in stored.rows] == [row.contrast for row in direct.rows]


def test_a_baseline_is_not_overwritten_unless_told_and_unfinished_cells_are_left_out(written, tmp_path, capsys):
    (written / "cells" / "tome-flops--50" / "failed.json").write_text('{"reason": "out of memory"}')
    folder = ("--folder", tmp_path)
    assert cli("baseline", "save", "a", written, *folder) == 0
    assert "left out: tome flops=-50% is failed: out of memory" in capsys.readouterr().err
    assert cli("baseline", "save", "a", written, *folder) == 2
    assert "exists" in capsys.readouterr().err
    assert cli("baseline", "save", "a", written, "--force", *folder) == 0
    assert cli("baseline", "list", *folder) == 0
    assert "a: scenes, vit_scenes, evit, tome" in capsys.readouterr().out
    assert cli("baseline", "show", "a", *folder) == 0
    assert "flops=-35%" not in (said := capsys.readouterr().out)
    assert "flops=-40%" in said


def test_a_damaged_baseline_is_refused_by_name_or_reads_as_it_was_written(written, tmp_path):
    path, refused = tmp_path / "base.parquet", 0
    whole = load_side(f"{written}:tome")
    save_baseline(whole, path)
    content = path.read_bytes()
    for at in range(0, len(content), len(content) // 40):
        damaged = bytearray(content)
        damaged[at : at + 16] = bytes(byte ^ 0xFF for byte in damaged[at : at + 16])
        path.write_bytes(damaged)
        try:
            read = read_baseline(path, "base")
        except RequestError as error:
            refused += "base.parquet' is" in str(error)
            continue
        assert read.entries == whole.entries  # Parquet writes some things twice
        for stored, own in zip(read.entries, whole.entries):
            assert stored.read().equals(own.read().astype(stored.read().dtypes))
    assert refused > 20
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RequestError, match=r"baseline '.*base.parquet' is damaged"):
        read_baseline(path, "base")


def test_a_baseline_of_another_format_is_refused_as_such(written, tmp_path):
    path = tmp_path / "base.parquet"
    save_baseline(load_side(f"{written}:tome"), path)
    table = pq.read_table(path)
    about = table.schema.metadata[KEY].replace(b'"format": 2', b'"format": 3')
    pq.write_table(table.replace_schema_metadata({KEY: about, DIGEST: b"made otherwise"}), path)
    with pytest.raises(RequestError, match="has format 3, this version reads 2"):
        read_baseline(path, "base")


def test_a_file_that_is_no_baseline_is_refused(written):
    with pytest.raises(RequestError, match="no baseline"):
        load_side(str(written / "manifest.parquet"))
