"""A run under several runtimes: what is stored, shown, timed again and never lost."""

from functools import partial

import pytest
import torch
from run_folder import rewrite, write_cell, write_run

from suite import load, run
from suite.errors import RequestError
from suite.measure.runtimes import list_runtimes, make_runtime
from suite.measure.runtimes.base import Prepared
from suite.store.folder import RunFolder
from suite.sweep.answers import Answers
from suite.sweep.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture
def spec(tiny_run, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # no kernels are built
    return {**tiny_run, "reducers": ["tome"], "speed": True, "speed_rounds": 2}


def stored(results, name="speed"):
    return {key: RunFolder(results.out).cell(key).read(name)["runtimes"] for key in results.cells}


def test_a_run_that_is_asked_for_another_runtime_keeps_its_outcomes_and_times_all_in_the_same_rounds(spec):
    first = run(**spec, progress=QUIET)
    frame = first.frame()
    assert set(frame.runtime) == set(frame.fastest_runtime) == {"eager"}
    assert (frame.speedup == frame.speedup_fastest).all()
    outcomes = {path: path.stat().st_mtime_ns for path in first.out.glob("cells/*/samples.parquet")}
    assert len(outcomes) == 2
    second = run(**spec, runtime="compiled", progress=QUIET)
    assert second.cells == first.cells
    assert {path: path.stat().st_mtime_ns for path in outcomes} == outcomes
    for runtimes in stored(second).values():
        assert list(runtimes) == ["compiled", "eager"]
        assert runtimes["compiled"]["compile_s"] > 0
        best = [[r["fastest_im_s"] for r in one["rounds"]] for one in runtimes.values()]
        assert best[0] == best[1]
        assert len({one["fastest_runtime"] for one in runtimes.values()}) == 1
    frame = second.frame()
    assert set(frame.runtime) == {"compiled"}
    assert frame.compile_s.notna().all()
    speeds = second.speeds()
    assert set(speeds.index) == {(key, runtime) for key in second.cells for runtime in ("compiled", "eager")}
    assert (speeds.xs("compiled", level="runtime").im_s.sort_index() == frame.im_s.sort_index()).all()
    times = stored(second)
    run(**spec, runtime="compiled,eager", progress=QUIET)
    assert stored(second) == times  # nothing is timed twice


def test_a_runtime_whose_code_has_changed_is_timed_again(spec):
    results = run(**spec, progress=QUIET)
    key = results.cells[1]
    cell = RunFolder(results.out).cell(key)
    for source, again in (("of before", True), (None, False)):
        runtimes = cell.read("speed")["runtimes"]
        runtimes["eager"] |= {"source": source, "im_s": -1.0}
        if source is None:
            del runtimes["eager"]["source"]  # stored by an earlier version, under a key that has not changed
        cell.write("speed", {"runtimes": runtimes})
        run(**spec, progress=QUIET)
        assert (cell.read("speed")["runtimes"]["eager"]["im_s"] > 0) == again


def test_single_images_are_timed_where_their_latency_is_asked_for(spec):
    frame = run(**spec, progress=QUIET).frame()
    assert frame.single_p50_ms.isna().all()
    assert frame.latency_p50_ms.notna().all()
    results = run(**spec, latency=True, progress=QUIET)
    for runtimes in stored(results, "single_speed").values():
        assert runtimes["eager"]["batch_size"] == 1
        assert runtimes["eager"]["forwards"] >= 100
    frame = results.frame()
    assert (frame.single_p50_ms <= frame.single_p99_ms).all()


def test_what_needs_a_gpu_is_refused_before_anything_is_made(spec, tmp_path):
    for key, value in (("runtime", "eager,graphs"), ("precision", "tf32")):
        with pytest.raises(RequestError, match=rf"{value.rpartition(',')[2]}' (does not run on cpu|needs a CUDA)"):
            run(**spec, **{key: value}, progress=QUIET)
    assert not (tmp_path / "run").exists()


def test_a_frame_shows_the_runtime_that_was_asked_for_last_and_no_other(tmp_path):
    out = write_run(tmp_path / "run")
    write_cell(out, "tofu", "r=8", cut=0.3, speed={"compile": True})
    assert set(load(out).frame().runtime) == {"eager", ""}  # nothing says what was asked for: what stands first
    rewrite(out / "run.json", spec={"runtime": ["compiled"]})
    frame = load(out).frame().set_index("reducer")
    assert (frame.runtime["tofu"], frame.im_s["tofu"] > 0) == ("compiled", True)
    assert frame.im_s[frame.index != "tofu"].isna().all()


def test_runtimes_are_found_by_their_files():
    assert {"compiled", "eager", "graphs"} <= set(list_runtimes())


def test_outcomes_can_be_those_of_what_a_runtime_made_of_the_model(spec, tmp_path):
    eager, other = (
        run(**{**spec, "speed": False, "batch_size": 5, "out": str(tmp_path / name)}, scored_in=name, progress=QUIET)
        for name in ("eager", "torch-export")
    )
    assert RunFolder(other.out).read_run()["identity"]["scored_in"] == "torch-export"
    assert "scored_in" not in RunFolder(eager.out).read_run()["identity"]
    assert not set(eager.cells) & set(other.cells)
    assert not other.failed
    for mine, theirs in zip(other.cells, eager.cells, strict=True):
        assert other.samples(mine).prediction.tolist() == eager.samples(theirs).prediction.tolist()


def test_a_runtime_that_answers_otherwise_is_not_scored_as_the_model_and_small_batches_are_filled_up(monkeypatch):
    runtime, seen = make_runtime("torch-export"), []

    def wrong(images):
        seen.append(len(images))
        return -images

    monkeypatch.setattr(type(runtime), "prepare", lambda self, model, example: Prepared(wrong))
    answers = Answers(torch.nn.Identity(), "torch-export")
    images = torch.arange(6.0).view(3, 2, 1, 1)
    assert torch.equal(answers.of("key")(images), -images)
    assert torch.equal(answers.of("key")(images[:1]), -images[:1])
    assert seen == [3, 3]
