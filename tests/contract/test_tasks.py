"""What every task owes, by being listed: samples, how they are read, what outputs are worth, what they add up to."""

from __future__ import annotations

import inspect
import json
import pickle
import shutil
from itertools import accumulate
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
from example_tasks import TaskOnExample, make_few, read_batch, with_tensors, write_data
from tiny_models import CHECKED, make_model
from torch import nn
from torch.utils.data import DataLoader

from suite.backbones import backbone_of, family_of
from suite.contract.choice import evenly_spaced
from suite.contract.metric import TaskReport
from suite.contract.task import Reader, ReadError, Summary, collate, views_of
from suite.errors import CellError, RequestError
from suite.measure.flops import count_module
from suite.models.load import check_model_name
from tasks import list_tasks, task_class
from tasks.features.task import FeatureTask

pytestmark = pytest.mark.skipif(bool(CHECKED), reason="a reducer is checked, and no task knows of any")
tasks = pytest.mark.parametrize("name", list_tasks())
ROUNDING = 1e-6  # of scorers that are not ours


@pytest.fixture(scope="module", params=list_tasks())
def example(request, tmp_path_factory) -> TaskOnExample:
    return TaskOnExample(request.param, write_data(request.param, tmp_path_factory.mktemp("data")))


def assert_one_line(error: pytest.ExceptionInfo) -> None:
    assert str(error.value).strip()
    assert "\n" not in str(error.value)


def names(error: pytest.ExceptionInfo, id: str) -> bool:
    return f"'{id}'" in str(error.value)


@tasks
def test_what_is_declared_has_names_of_its_own_and_can_be_read_back(name):
    cls = task_class(name)
    shown = cls.shown
    assert cls.name == name
    assert cls.__doc__.strip().splitlines()[0]
    check_model_name(cls.default_model)
    for declared in (shown.metrics, shown.costs):
        for what in ("name", "label"):
            assert len({getattr(one, what) for one in declared}) == len(declared)
    assert all(one.name.isidentifier() for one in (*shown.metrics, *shown.costs))
    assert not shown.metrics[0].hidden, "methods are compared by the first metric"
    assert all(metric.scale > 0 and metric.decimals >= 0 for metric in shown.metrics)
    assert all(metric.largest is None or metric.largest > 0 for metric in shown.metrics)
    assert TaskReport.from_dict(json.loads(json.dumps(shown.as_dict()))) == shown
    assert cls.outcomes.field("id").type == pa.string()
    assert "prediction" in cls.outcomes.names
    assert len(set(cls.outcomes.names)) == len(cls.outcomes.names)


@tasks
def test_options_are_keywords_with_defaults_and_others_are_refused(name):
    parameters = inspect.signature(task_class(name)).parameters
    options = {key: one for key, one in parameters.items() if key not in ("data", "limit")}
    assert {"data", "limit"} < {*parameters}
    assert all(parameters[key].default is None for key in ("data", "limit"))
    for one in options.values():
        assert one.kind is one.KEYWORD_ONLY
        assert one.default is not one.empty
    assert {*task_class(name).training, *filter(None, [task_class(name).drawn])} <= {*options}
    with pytest.raises(RequestError, match="no_such_option") as caught:
        make_few(name, None, no_such_option=1)
    assert_one_line(caught)


@tasks
def test_data_that_cannot_be_used_are_refused_in_one_line(name, tmp_path):
    with pytest.raises(RequestError, match="absent") as caught:
        make_few(name, str(tmp_path / "absent"))
    assert_one_line(caught)


def test_samples_have_ids_of_their_own_in_a_fixed_order(example):
    assert example.ids
    assert len({*example.ids}) == len(example.ids)
    assert all(isinstance(id, str) and id.isprintable() and id for id in example.ids)
    assert list(make_few(example.name, example.data).samples) == list(example.task.samples)


def test_a_limit_takes_samples_that_are_evenly_spaced_and_one_of_none_is_refused(example):
    total = len(example.ids)
    for limit in {1, 2, total - 1, total, total + 3}:
        few = make_few(example.name, example.data, limit).samples
        assert list(few) == evenly_spaced(example.task.samples, limit)
    for limit in (0, -1):
        with pytest.raises(RequestError, match=f"limit {limit}") as caught:
            type(example.task)(example.data, limit)
        assert_one_line(caught)


def test_what_is_told_of_it_can_be_stored_and_stays(example):
    task = example.task
    assert json.loads(json.dumps(task.protocol())) == make_few(example.name, example.data).protocol()
    assert isinstance(task.scoring_version(), str)
    assert task.scoring_version() == task.scoring_version()
    assert {*task.scorable()} <= {metric.name for metric in task.shown.metrics}
    assert all(isinstance(note, str) and "\n" not in note for note in task.notes)


def test_a_sample_is_read_as_the_same_float32_images_in_any_order(example):
    task, preprocessing = example.task, example.preprocessing
    channels = family_of(example.model).channels(backbone_of(example.model))
    read = [task.load(sample, preprocessing) for sample in task.samples]
    assert all(image.dtype == torch.float32 and torch.isfinite(image).all() for image in read)
    assert all(image.dim() in (3, 4) and image.shape[-3] == channels and len(views_of(image)) for image in read)
    again = [make_few(example.name, example.data).load(sample, preprocessing) for sample in reversed(task.samples)]
    assert all(map(torch.equal, reversed(again), read))
    assert any(not torch.equal(image, read[0]) for image in read)
    assert example.batch.views == [len(views_of(image)) for image in read]


def test_a_task_and_its_preprocessing_pickle_and_read_the_same(example):
    task, preprocessing = pickle.loads(pickle.dumps((example.task, example.preprocessing)))
    assert preprocessing == example.preprocessing == example.task.preprocessing(example.model)
    assert hash(preprocessing) == hash(example.preprocessing)
    assert list(task.samples) == list(example.task.samples)
    assert torch.equal(read_batch(task, preprocessing).images, example.batch.images)


def test_a_worker_process_reads_the_same(example):
    reader = Reader(example.task, example.task.samples, example.preprocessing)
    [batch] = DataLoader(reader, batch_size=len(reader), collate_fn=collate, num_workers=1)
    assert batch.samples == example.batch.samples
    assert [sample.content for sample in batch.samples] == [sample.content for sample in example.batch.samples]
    assert batch.views == example.batch.views
    assert torch.equal(batch.images, example.batch.images)


def test_the_files_of_a_sample_are_those_that_are_read(example):
    task = example.task
    for sample in task.samples:
        files = task.files(sample)
        if task.tree is None:
            assert not files
            assert not sample.path
            continue
        assert files
        assert all(file in task.tree for file in files)
        with task.tree.noting() as digests:
            task.load(sample, example.preprocessing)
        assert {*digests} == {*files}
    assert all((sample.content is None) == (task.tree is None) for sample in example.batch.samples)


@pytest.mark.parametrize("fault", ["cut", "gone"])
def test_a_file_that_cannot_be_read_is_an_error_with_id_and_path_and_the_others_are_read(example, tmp_path, fault):
    if example.task.tree is None or not Path(example.data).is_dir():
        pytest.skip("its samples are in no folder of files")
    task = make_few(example.name, str(shutil.copytree(example.data, tmp_path / "data")))
    bad, others = task.samples[1], [sample for sample in task.samples if sample != task.samples[1]]
    for name in task.files(bad):
        file = Path(task.tree.where(name))
        sound = file.read_bytes()
        if fault == "cut":
            file.write_bytes(sound[: len(sound) // 2])
        else:
            file.unlink()
        with pytest.raises(ReadError) as caught:
            task.load(bad, example.preprocessing)
        assert (caught.value.id, caught.value.path) == (bad.id, str(file))
        assert_one_line(caught)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        batch = read_batch(task, example.preprocessing)
        assert [error.id for error in batch.errors] == [bad.id]
        assert [sample.id for sample in batch.samples] == [sample.id for sample in others]
        file.write_bytes(sound)
    assert torch.equal(read_batch(task, example.preprocessing).images, example.batch.images)


@pytest.mark.parametrize("model", [nn.Identity(), make_model(num_classes=7919)], ids=["no model", "other classes"])
def test_a_model_that_cannot_be_scored_is_refused_in_one_line(example, model):
    if isinstance(example.task, FeatureTask) and hasattr(model, "num_classes"):
        pytest.skip("it reads no classes of a model, so that one of others can be scored")
    with pytest.raises(RequestError) as caught:
        example.task.check_model(model)
    assert_one_line(caught)
    assert repr(example.name) in str(caught.value)


def test_outputs_become_a_row_a_sample_that_fits_what_is_stored(example):
    rows = example.rows_of(example.batch.images)
    assert [row["id"] for row in rows] == example.ids
    assert all({*row} == {*example.task.outcomes.names} for row in rows)
    assert example.rows.columns.to_list() == example.task.outcomes.names
    assert not example.rows[["id", "prediction"]].isna().any(axis=None)
    assert example.rows["prediction"].to_list() == [row["prediction"] for row in rows]


def test_too_few_or_too_many_outputs_are_an_error_that_names_a_sample(example):
    task, samples = example.task, example.batch.samples
    with torch.inference_mode():
        fewer = task.predict(example.model, example.batch.images[: -example.batch.views[-1]])
    assert len(task.score(fewer, samples[:-1])) == len(samples) - 1
    for made, of in ((fewer, samples), (example.outputs, samples[:-1])):
        with pytest.raises(CellError) as caught:
            task.score(made, of)
        assert_one_line(caught)
        assert any(names(caught, sample.id) for sample in of)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_no_numbers_are_an_error_that_names_the_first_sample(example, value):
    samples, images = example.batch.samples, example.batch.images.clone()
    first = [0, *accumulate(example.batch.views)][1]
    outputs = with_tensors(
        example.outputs, lambda rows: torch.cat([rows[:first], torch.full_like(rows[first:], value)])
    )
    images[first:] = value
    with pytest.raises(CellError) as through_the_model:
        example.rows_of(images)
    caught = [through_the_model]
    if outputs is not None:
        with pytest.raises(CellError) as of_outputs:
            example.task.score(outputs, samples)
        caught.append(of_outputs)
    for error in caught:
        assert_one_line(error)
        assert [names(error, sample.id) for sample in samples] == [place == 1 for place in range(len(samples))]


def test_costs_are_those_that_are_declared(example):
    costs = example.task.further_costs(example.model, example.batch.images, 10**6, count_module)
    assert {*costs} == {cost.name for cost in example.task.shown.costs}
    assert all(cost > 0 for cost in costs.values())


def test_every_metric_has_a_value_within_its_interval_or_a_reason(example):
    metrics = example.task.shown.metrics
    assert list(example.summaries) == list(example.cells)
    for key, summary in example.summaries.items():
        assert isinstance(summary, Summary), summary
        assert {*summary.scores} == {metric.name for metric in metrics}
        for metric in metrics:
            score = summary.scores[metric.name]
            assert (score.value is None) == bool(score.reason), metric.name
            assert (score.low is None) == (score.high is None), metric.name
            if score.value is None:
                assert score.low is None
                continue
            assert score.value <= (torch.inf if metric.largest is None else metric.largest) + ROUNDING, metric.name
            if score.low is not None:
                assert score.low - ROUNDING <= score.value <= score.high + ROUNDING, metric.name
            elif metric.aggregate is not None:
                assert len(example.choices[key]) == 1, f"{metric.name} has no interval"
    assert any(score.value is not None for score in example.summaries["all"].scores.values())


def test_metrics_follow_from_stored_columns_as_they_declare(example):
    for key, rows in example.choices.items():
        stored, summary = rows, example.summaries[key]
        if summary.samples is not None:
            assert sorted(summary.samples["id"]) == sorted(rows["id"])
            assert {*summary.samples} & {*rows} == {"id"}
            stored = rows.merge(summary.samples, on="id")
        for metric in example.task.shown.metrics:
            value = summary.scores[metric.name].value
            if metric.aggregate is None or value is None:
                continue
            assert {*metric.aggregate.columns} <= {*stored}, metric.name
            [addends] = metric.aggregate.addends(stored)
            assert len(addends) == len(rows)
            assert metric.aggregate.score(addends) == pytest.approx(value, abs=ROUNDING), metric.name


def numbers(summary: Summary) -> tuple[dict[str, list[float]], list[str]]:
    scores = summary.scores.items()
    known = {name: [n for n in (one.value, one.low, one.high) if n is not None] for name, one in scores}
    return {name: values for name, values in known.items() if values}, [one.reason for _, one in scores]


def by_id(samples: pd.DataFrame | None) -> pd.DataFrame:
    return pd.DataFrame() if samples is None else samples.set_index("id").sort_index()


def test_a_summary_does_not_depend_on_the_order_of_rows(example):
    expected, found = example.summaries["all"], example.summaries["backwards"]
    (values, reasons), (others, other_reasons) = numbers(expected), numbers(found)
    assert others.keys() == values.keys()
    assert other_reasons == reasons
    for name, value in values.items():
        assert others[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=False), name
    pd.testing.assert_frame_equal(by_id(found.samples), by_id(expected.samples))


@pytest.mark.slow  # a scorer of captions takes seconds to start
def test_a_cell_has_the_same_summary_alone_as_among_others(example):
    [(key, alone)] = example.task.summaries({"rest": example.cells["rest"]})
    among = example.summaries["rest"]
    assert key == "rest"
    assert (alone.scores, alone.notes) == (among.scores, among.notes)
    pd.testing.assert_frame_equal(by_id(alone.samples), by_id(among.samples))
    assert list(example.task.summaries({})) == []
