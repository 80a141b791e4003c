"""`analyse drift`: a method in a lower precision beside itself in float32, the same samples, nothing run twice."""

import json

import pytest
import torch

from suite.analyse.drift import measure_drift
from suite.analyse.sheet import write_sheet
from suite.errors import RequestError
from suite.stats import wilson_interval
from suite.store.folder import RunFolder
from suite.sweep.progress import Progress

QUIET = Progress(quiet=True)
SPEC = {"task": "scenes", "limit": 8, "reducers": ["tome"], "rates": ["r=16"], "device": "cpu", "workers": 0}


@pytest.fixture(scope="module")
def drift(tmp_path_factory):
    out = tmp_path_factory.mktemp("drift")
    return out, measure_drift(SPEC, ["bf16", "tf32"], out, QUIET)


def answers(out, precision):
    """Cell's reducer -> its answers, in the samples' order."""
    folder = RunFolder(out / precision)
    cells = {folder.cell(key).read("cell")["reducer"]: key for key in folder.read_run()["cells"]}
    return {name: folder.cell(key).shards.outcomes() for name, key in cells.items()}


def test_every_method_and_the_unreduced_model_stand_beside_themselves(drift):
    out, sheet = drift
    assert [line[:3] for line in sheet.lines] == [
        ["none", "–", "bf16"], ["none", "–", "tf32"], ["tome", "r=16", "bf16"], ["tome", "r=16", "tf32"]
    ]  # fmt: skip
    exact, rounded = answers(out, "fp32"), answers(out, "bf16")
    for record in sheet.records[::2]:
        one, other = exact[record["method"]], rounded[record["method"]]
        assert (one.id == other.id).all()
        assert not torch.equal(*(torch.tensor(rows.confidence.to_numpy()) for rows in (one, other)))
        changed = int((one.prediction != other.prediction).sum())
        assert record["changed"] == pytest.approx(changed / 8)
        assert (record["changed_low"], record["changed_high"]) == wilson_interval(changed, 8)
        assert record["difference"] == pytest.approx(other.correct.mean() - one.correct.mean())
        assert record["low"] <= record["difference"] <= record["high"]


def test_a_precision_that_is_not_here_is_no_number_and_says_why(drift):
    _, sheet = drift
    for line, record in zip(sheet.lines[1::2], sheet.records[1::2], strict=True):
        assert set(line[3:]) == {"n/a"}
        assert record["changed"] is record["difference"] is None
    assert any("tf32 is n/a: precision 'tf32' needs a CUDA device" in note for note in sheet.notes)


def test_a_second_request_runs_nothing_again_and_what_is_written_is_the_same(drift, tmp_path):
    out, sheet = drift
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/cells/*/samples.parquet")}
    assert len(times) == 4
    again = measure_drift(SPEC, ["bf16", "tf32"], out, QUIET)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert again.records == sheet.records
    files = write_sheet(again, tmp_path)
    assert {file.suffix for file in files} == {".json", ".csv", ".md", ".png"}
    assert json.loads(files[0].read_text())["lacking"].keys() == {"tf32"}


def test_what_is_no_lower_precision_is_refused_in_one_line(tmp_path):
    with pytest.raises(RequestError, match="unknown precision to compare with float32 'fp8'; known: bf16, fp16, tf32"):
        measure_drift(SPEC, ["fp8"], tmp_path, QUIET)
    assert not any(tmp_path.iterdir())
