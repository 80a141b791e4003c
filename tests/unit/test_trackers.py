"""Copies of what a run finds, that stop nothing; and what a stored run gives to notebooks and to SQL."""

import importlib.util
import io

import pytest
from rich.console import Console

from suite import load, run
from suite.errors import RequestError
from suite.sweep.progress import Progress
from suite.sweep.trackers import TRACKERS, Tracking


class Sink:
    """Keeps what it is told and raises in one of its methods."""

    def __init__(self, name, raises=""):
        self.name, self.raises, self.told = name, raises, []

    def tell(self, method, *what):
        self.told.append((method, *what))
        if method == self.raises:
            raise OSError("no network")

    def open(self, config, out):
        self.tell("open", config, out)

    def cell(self, key, labels, numbers):
        self.tell("cell", key, labels, numbers)

    def pictures(self, files):
        self.tell("pictures", files)

    def close(self):
        self.tell("close")


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """Two cells of twenty embedded scenes."""
    out = tmp_path_factory.mktemp("tracked") / "plain"
    return {"reducers": ["tome"], "rates": ["r=20"], "limit": 20, "speed": False, "workers": 0, "out": str(out)}


@pytest.fixture(scope="module")
def plain(spec):
    return run(spec, progress=Progress(quiet=True))


def said_by(spec, track):
    said = io.StringIO()
    results = run(spec, track=track, progress=Progress(Console(file=said, width=1000)))
    return results, [line for line in said.getvalue().splitlines() if line.startswith("tracker ")]


def stored(out):
    """Bytes of everything but the report, the machine and the folder's own name."""
    files = [file for file in out.rglob("*") if file.is_file() and file.relative_to(out).parts[0] != "report"]
    return {
        file.relative_to(out): file.read_bytes() for file in files if file.name not in ("run.json", "environment.json")
    }


@pytest.mark.slow
def test_trackers_that_raise_neither_stop_a_run_nor_change_what_it_stores(spec, plain, tmp_path):
    good, methods = Sink("good"), ("open", "cell", "pictures", "close")
    sinks = [Sink(method, raises=method) for method in methods]
    results, notes = said_by({**spec, "out": str(tmp_path / "run")}, [*sinks, good])
    assert notes == [f"tracker {name}: OSError: no network; the run goes on without it" for name in methods]
    assert results.cells == plain.cells
    assert stored(results.out) == stored(plain.out)
    assert [method for method, *_ in sinks[0].told] == ["open"]  # left alone once it has failed
    assert [method for method, *_ in sinks[1].told] == ["open", "cell"]
    assert [method for method, *_ in good.told] == ["open", "cell", "cell", "pictures", "close"]


@pytest.fixture(scope="module")
def tracked(spec, plain):
    """A sink and TensorBoard, told of what is stored already all the same; and what was noted of them."""
    sink = Sink("mine")
    return sink, said_by(spec, [sink, "tensorboard"])[1]


def test_a_tracker_gets_the_spec_a_row_a_cell_and_the_plots(tracked, plain):
    sink, _ = tracked
    (_, config, out), *cells, (_, pictures), _ = sink.told
    assert config["model"] == "scenes_vit"
    assert config["rates"] == '["r=20"]'
    assert out == plain.out
    frame = plain.frame()
    for (_, key, labels, numbers), (wanted, row) in zip(cells, frame.iterrows(), strict=True):
        assert key == wanted
        assert (labels["reducer"], labels["rate"]) == (row.reducer, row.rate)
        assert numbers["top1"] == row.top1
        assert numbers["gmacs"] == row.gmacs
        assert "im_s" not in numbers  # was not measured
        assert "disputed" not in numbers
    assert pictures
    assert all(file.suffix == ".png" and file.is_file() for file in pictures)


def test_tensorboard_can_be_read_back(tracked, plain):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert tracked[1] == []
    (folder,) = (plain.out / "report" / "tensorboard").iterdir()
    whole = EventAccumulator(str(folder)).Reload()
    assert "pareto_flops" in whole.Tags()["images"]
    assert "spec/text_summary" in whole.Tags()["tensors"]
    for key, row in plain.frame().iterrows():
        cell = EventAccumulator(str(folder / key)).Reload()
        (event,) = cell.Scalars("top1")
        assert event.value == pytest.approx(row.top1)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_with_the_remedy(name, tmp_path):
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    notes = []
    Tracking(name, {}, tmp_path, notes.append).close()
    assert notes == [
        f"tracker {name}: {name} is not installed; pip install 'reducerbench[trackers]'; the run goes on without it"
    ]


def test_an_unknown_tracker_is_refused_before_anything_runs(spec, tmp_path):
    with pytest.raises(RequestError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        run({**spec, "out": str(tmp_path / "new")}, track="mlflow,tensorbord", progress=Progress(quiet=True))
    assert not (tmp_path / "new").exists()
    assert set(TRACKERS) == {"tensorboard", "mlflow", "wandb"}


def test_a_stored_run_is_loaded_without_running_it(plain):
    results = load(plain.out)
    assert set(results.cells) == set(plain.cells)
    frame = results.frame()
    for key, row in frame.iterrows():
        samples = results.samples(key)
        assert samples.correct.mean() == row.top1
        assert samples.id.tolist() == results.samples(frame.index[0]).id.tolist()
    with pytest.raises(RequestError, match="not the folder of a run"):
        load(plain.out / "cells")
    with pytest.raises(RequestError, match="cell 'x'"):
        results.samples("x")


def test_duckdb_asks_the_store_in_sql(plain):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    frame = plain.frame()
    found = duckdb.sql(f"""
        SELECT c.key, c.reducer, c.resolved_rate AS rate, count(*) AS n, avg(s.correct::INT) AS top1
        FROM read_parquet('{plain.out}/cells/*/samples.parquet', filename = true, union_by_name = true) AS s
        JOIN read_json('{plain.out}/cells/*/cell.json', union_by_name = true) AS c
          ON c.key = parse_path(s.filename)[-2]
        GROUP BY ALL ORDER BY top1 DESC
    """).df()  # fmt: skip
    assert found.n.tolist() == [20, 20]
    assert dict(zip(found.key, found.top1)) == frame.top1.to_dict()
    cells = frame.reset_index()  # noqa: F841  SQL reads it by its name
    lost = duckdb.sql(f"""
        SELECT b.id, b.label, a.prediction AS unreduced, b.prediction AS reduced, cells.gmacs
        FROM read_parquet('{plain.out}/cells/*/samples.parquet', filename = true) AS b
        JOIN read_parquet('{plain.out}/cells/{frame.index[0]}/samples.parquet') AS a USING (id)
        JOIN cells ON cells.key = parse_path(b.filename)[-2]
        WHERE a.correct AND NOT b.correct
    """).df()  # fmt: skip
    assert len(lost) == (plain.samples(frame.index[0]).correct & ~plain.samples(frame.index[1]).correct).sum() > 0
