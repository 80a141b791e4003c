"""Promises of reports.frame: one honest row per cell, whatever a sweep has left on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folder import (
    ATS_FLOPS,
    BASE_GMACS,
    NEWER_FIELDS,
    N,
    change_all,
    make_captions,
    outcomes,
    rewrite,
    sample_ids,
    score_cell,
    start_run,
    write_cell,
    write_json,
    write_run,
    write_samples,
)

from reports.frame import columns_of, load_frame, load_samples
from reports.groups import groups
from suite.errors import RequestError
from suite.stats import wilson_interval
from tasks.classification import ClassificationTask


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished sweep: the unreduced model, tome and random at four rates each."""
    return write_run(tmp_path / "run", {"tome": 4.0, "random": 24.0})


def only(frame: pd.DataFrame, **values: str) -> pd.Series:
    rows = frame[np.logical_and.reduce([frame[name] == value for name, value in values.items()])]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_the_frame_has_one_row_per_cell_and_the_agreed_columns(run):
    frame = load_frame(run)
    assert len(frame) == 9
    assert " ".join(frame.columns) == (
        "task model weights weights_kind restore reducer training options rate resolved_rate precision batch_size "
        "samples expected missing top1 top1_low top1_high top5 top5_low top5_high ece ece_low ece_high "
        "agreement agreement_low agreement_high chance "
        "gmacs reduction overhead_gmacs gmacs_p5 gmacs_p95 disputed uncounted formulation "
        "tokens_left tokens_p5 tokens_p95 launches extra_launches moved_mb host_reads traced_peak_mib "
        "im_s im_s_low im_s_high speedup speedup_low speedup_high peak_memory_mib "
        "speedup_fastest speedup_fastest_low speedup_fastest_high "
        "latency_p50_ms latency_p90_ms latency_p99_ms single_p50_ms single_p90_ms single_p99_ms energy_j compile_s "
        "runtime fastest_runtime attention seeds seeds_mean seeds_low seeds_high repeat_of "
        "dominated_flops dominated_time oracle oracle_gmacs speed_note status reason"
    )


def test_the_unreduced_model_comes_first_then_reducers_by_name_each_from_its_highest_cost_down(run):
    frame = load_frame(run)
    assert list(dict.fromkeys(frame.reducer)) == ["none", "random", "tome"]
    assert all(part.gmacs.is_monotonic_decreasing for _, part in frame.groupby("reducer"))


def test_a_row_says_what_was_measured(run):
    row = only(load_frame(run), reducer="tome", rate="flops=-50%")
    right = round(0.89 * N)
    assert (row.samples, row.expected, row.missing, row.status, row.reason) == (N, N, 0, "done", "")
    assert row.top1 == right / N
    assert (row.top1_low, row.top1_high) == wilson_interval(right, N)
    assert row.reduction == pytest.approx(-0.512)
    assert row.gmacs == pytest.approx(BASE_GMACS * 0.488)
    assert row.overhead_gmacs == 0.004
    assert row.tokens_left == 197 - 12 * 7
    assert row.speedup_low < row.speedup < row.speedup_high


def test_agreement_is_paired_with_the_unreduced_model_on_the_same_ids(run):
    folder = run / "cells" / "tome-flops--50"
    baseline = pq.read_table(run / "cells" / "none-full" / "samples.parquet")["prediction"].to_pylist()
    mine = pq.read_table(folder / "samples.parquet")
    write_samples(folder / "samples.parquet", mine.take(list(reversed(range(N)))))  # the order must not matter
    expected = sum(a == b for a, b in zip(baseline, mine["prediction"].to_pylist(), strict=True))
    frame = load_frame(run)
    assert only(frame, reducer="tome", rate="flops=-50%").agreement == expected / N
    assert only(frame, reducer="none").agreement == 1.0


def test_without_a_finished_unreduced_model_there_is_no_agreement(run):
    write_json(run / "cells" / "none-full" / "failed.json", {"reason": "out of memory"})
    assert load_frame(run).agreement.isna().all()


def test_random_weights_have_an_agreement_and_no_accuracy(run):
    change_all(run, "cell", weights_kind="random")
    frame = load_frame(run)
    assert frame[["top1", "top1_low", "top5", "top5_high"]].isna().all(axis=None)
    assert frame.agreement.notna().all()


def test_a_cell_with_no_sample_yet_is_running_and_has_no_accuracy(run):
    (run / "cells" / "tome-flops--50" / "samples.parquet").unlink()
    row = only(load_frame(run), reducer="tome", rate="flops=-50%")
    assert (row.status, row.samples) == ("running", 0)
    assert row[["top1", "top5", "agreement"]].isna().all()


def test_a_cell_in_the_middle_of_its_batches_is_running(run):
    folder = run / "cells" / "tome-flops--50"
    whole = pq.read_table(folder / "samples.parquet")
    (folder / "samples.parquet").unlink()
    write_samples(folder / "samples" / "batch-00000.parquet", whole.slice(0, 100))
    write_samples(folder / "samples" / "batch-00001.parquet", whole.slice(100, 100))
    row = only(load_frame(run), reducer="tome", rate="flops=-50%")
    assert (row.status, row.samples) == ("running", 200)
    assert np.isnan(row.top1)


def test_batches_and_the_compacted_file_give_the_same_row(run):
    before, folder = load_frame(run), run / "cells" / "tome-flops--50"
    whole = pq.read_table(folder / "samples.parquet")
    (folder / "samples.parquet").unlink()
    for i in range(4):
        write_samples(folder / "samples" / f"batch-{i:05d}.parquet", whole.slice(100 * i, 100))
    pd.testing.assert_frame_equal(load_frame(run), before)


def test_left_over_shards_repeated_ids_and_unknown_ids_change_nothing(run):
    before, folder = load_frame(run), run / "cells" / "tome-flops--50"
    other = outcomes(["stranger", *sample_ids(60)], right=0, seed=9)
    write_samples(folder / "samples" / "batch-00000.parquet", other)
    pd.testing.assert_frame_equal(load_frame(run), before)
    assert len(load_samples(run, "tome-flops--50")) == N


def test_a_torn_shard_leaves_its_samples_unscored_and_is_named(run):
    folder = run / "cells" / "tome-flops--50"
    whole = pq.read_table(folder / "samples.parquet")
    (folder / "samples.parquet").unlink()
    write_samples(folder / "samples" / "batch-00000.parquet", whole.slice(0, 300))
    write_samples(folder / "samples" / "batch-00001.parquet", whole.slice(300))
    path = folder / "samples" / "batch-00001.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    row = only(load_frame(run), reducer="tome", rate="flops=-50%")
    assert (row.status, row.samples) == ("failed", 300)
    assert f"{path} is damaged" in row.reason


def test_a_failed_cell_stays_a_row_with_its_reason_and_without_accuracy(run):
    write_json(run / "cells" / "tome-flops--50" / "failed.json", {"reason": "NaN logits in batch 3"})
    row = only(load_frame(run), reducer="tome", rate="flops=-50%")
    assert (row.status, row.reason) == ("failed", "NaN logits in batch 3")
    assert row[["top1", "top5", "agreement"]].isna().all()


def test_missing_images_are_counted_and_the_rest_is_scored(run):
    lost = [{"id": i, "path": i, "reason": "truncated"} for i in ("val/00001", "val/00005", "not-of-this-run")]
    (run / "missing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lost))
    for folder in (run / "cells").iterdir():
        table = pq.read_table(folder / "samples.parquet")
        keep = [i for i in range(N) if i not in (1, 5)]
        write_samples(folder / "samples.parquet", table.take(keep))
        score_cell(folder)
    frame = load_frame(run)
    assert set(zip(frame.samples, frame.missing, frame.expected)) == {(N - 2, 2, N)}
    assert set(frame.status) == {"done"}
    assert only(frame, reducer="none").top1 == (round(0.93 * N) - 2) / (N - 2)


def test_cost_and_speed_that_were_not_measured_are_no_data(run):
    for name in ("flops.json", "speed.json"):
        (run / "cells" / "tome-flops--50" / name).unlink()
    row = only(load_frame(run), reducer="tome", rate="flops=-50%")
    assert row[["gmacs", "reduction", "overhead_gmacs", "im_s", "speedup", "disputed"]].isna().all()
    assert row.status == "done"


def test_a_method_that_has_something_to_learn_says_whether_it_has_it(run):
    write_cell(run, "dtem", "r=5", cut=0.2)
    weights = {"source": "/data/runs/dtem_scenes.safetensors", "sha256": "00"}
    write_cell(run, "dynamicvit", "keep=0.7", cut=0.2, about={"reducer_weights": weights})
    frame = load_frame(run)
    assert only(frame, reducer="dtem").training == "untrained embedding"
    assert only(frame, reducer="dynamicvit").training == "trained: dtem_scenes.safetensors"
    assert set(frame[frame.reducer == "tome"].training) == {""}


def test_a_run_of_before_methods_could_learn_reads_as_training_free(run):
    for path in run.glob("cells/*/cell.json"):
        about = json.loads(path.read_text())
        write_json(path, {name: about[name] for name in about if name not in NEWER_FIELDS})
    frame = load_frame(run)
    assert set(frame.training) | set(frame.formulation) == {""}
    assert frame[["gmacs_p5", "tokens_p95"]].isna().all(axis=None)
    assert frame.tokens_left.notna().all()


def test_a_cost_that_depends_on_the_image_comes_as_mean_and_percentiles(run):
    write_cell(run, "ats", "keep=0.7", cut=0.4, about={"planned_counts": None}, flops=ATS_FLOPS)
    frame = load_frame(run)
    row = only(frame, reducer="ats")
    assert (row.gmacs_p5, row.gmacs_p95) == (0.7, 0.8)
    assert (row.tokens_left, row.tokens_p5, row.tokens_p95) == (61.5, 50.0, 72.0)
    assert frame[frame.reducer != "ats"][["gmacs_p5", "gmacs_p95", "tokens_p5", "tokens_p95"]].isna().all(axis=None)


def test_a_speed_taken_at_another_batch_size_says_so(run):
    rewrite(run / "cells" / "tome-flops--50" / "speed.json", batch_size=16, note="out of memory at 32")
    row = only(load_frame(run), reducer="tome", rate="flops=-50%")
    assert row.speed_note == "out of memory at 32; timed at batch size 16"


def test_cells_that_the_run_no_longer_lists_are_left_out(run):
    keys = [path.name for path in (run / "cells").iterdir() if path.name != "tome-flops--50"]
    rewrite(run / "run.json", cells=keys)
    assert sorted(load_frame(run).index) == sorted(keys)


def test_a_run_without_cells_gives_an_empty_frame_with_all_columns(tmp_path):
    frame = load_frame(start_run(tmp_path / "run"))
    assert frame.empty
    assert list(frame.columns) == list(columns_of(ClassificationTask.shown))


def test_a_run_that_has_not_listed_its_samples_has_no_finished_cell(run):
    (run / "manifest.parquet").unlink()
    assert set(load_frame(run).status) == {"running"}


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(RequestError, match="not the folder of a run"):
        load_frame(tmp_path)


def test_another_schema_is_refused_by_name(run):
    write_json(run / "run.json", {"schema": 99, "spec": {}})
    with pytest.raises(RequestError, match="schema 99"):
        load_frame(run)


@pytest.mark.parametrize("name", ["cell", "flops", "scores", "speed"])
def test_a_cell_with_damaged_json_fails_with_its_path_and_no_other(run, name):
    path = run / "cells" / "tome-flops--50" / f"{name}.json"
    path.write_text('{"total": 1')
    frame = load_frame(run)
    (failed,) = frame[frame.status == "failed"].index
    assert failed == "tome-flops--50"
    assert f"{path} is damaged" in frame.reason[failed]
    assert (frame.status == "done").sum() == len(frame) - 1


def test_a_cell_that_lost_what_says_what_it_is_stays_a_row(run):
    (run / "cells" / "tome-flops--50" / "cell.json").unlink()
    frame = load_frame(run)
    assert frame.status["tome-flops--50"] == "failed"
    assert "cell.json is damaged (it is not there)" in frame.reason["tome-flops--50"]


@pytest.mark.parametrize("text", ["[]", "null", "3", "{}", '{"schema": 3}', '{"schema": 3, "spec": [], "cells": 1}'])
def test_a_run_json_of_the_wrong_shape_is_refused_by_name(run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(RequestError, match=r"run\.json is damaged"):
        load_frame(run)


def test_samples_come_in_the_order_of_the_manifest(run):
    samples = load_samples(run, "none-full")
    assert list(samples.id) == sample_ids(N)
    assert list(samples.columns) == ["id", "label", "prediction", "correct", "correct5", "top5", "confidence"]


def test_samples_of_an_unknown_cell_are_refused(run):
    with pytest.raises(RequestError, match="cell 'nonsense'"):
        load_samples(run, "nonsense")


def test_cells_of_different_precision_do_not_share_a_table_or_a_baseline(run):
    write_cell(run, "tome", "r=5", cut=0.2, about={"precision": "fp16"})
    frame = load_frame(run)
    assert [len(group.frame) for group in groups(frame)] == [1, 9]
    assert np.isnan(only(frame, precision="fp16").agreement)


def test_a_frame_has_the_columns_of_its_task(run):
    frame = load_frame(make_captions(run))
    assert "top1" not in frame
    row = only(frame, reducer="none")
    assert (row.cider, row.meteor, row.bleu_1) == pytest.approx((1.4 * 0.93, 0.281, 0.7))
    assert row.cider_low < row.cider < row.cider_high
    assert np.isnan(row.meteor_low)
    assert row.prefill_gmacs == pytest.approx(BASE_GMACS / 4)
    assert (row.whole_s_low, row.whole_s, row.whole_s_high) == (30.5, 31.5, 32.5)
    assert row.im_s == 210


def test_the_first_batch_of_the_whole_model_is_told_by_the_sample_and_older_runs_do_not_know_it(run):
    make_captions(run)
    assert load_frame(run).whole_first_s.isna().all()
    rewrite(run / "cells" / "none-full" / "whole_speed.json", first_s=8.0)
    frame = load_frame(run)
    assert only(frame, reducer="none").whole_first_s == 8 / 32
    assert frame.whole_first_s.notna().sum() == 1


def test_a_score_that_could_not_be_made_is_no_number_and_says_why(run):
    frame = load_frame(make_captions(run))
    assert frame.spice.isna().all()
    assert frame.attrs["context"]["none-full"]["reasons"] == {"spice": "needs CoreNLP"}


def test_a_cell_with_all_predictions_and_no_scores_is_not_done(run):
    (run / "cells" / "tome-flops--50" / "scores.json").unlink()
    row = only(load_frame(run), reducer="tome", rate="flops=-50%")
    assert (row.status, row.samples) == ("running", N)
    assert np.isnan(row.top1)
    assert "not scored yet" in row.reason


def test_scores_of_samples_stand_beside_their_outcomes(run):
    ids = sample_ids(N)
    write_samples(
        run / "cells" / "none-full" / "scores.parquet", pa.table({"id": ids[::-1], "cider": np.arange(N) / N})
    )
    samples = load_samples(run, "none-full")
    assert list(samples.id) == ids
    assert samples.cider.iloc[-1] == 0


def test_looking_at_a_frame_copies_nothing_of_what_goes_with_it(run):
    frame = load_frame(run)
    for part in (frame.iloc[0], frame.top1 + 1, frame[frame.reducer == "tome"]):
        assert all(part.attrs[name] is frame.attrs[name] for name in ("runs", "context"))
    assert next(groups(frame)).frame.attrs["context"] is frame.attrs["context"]
