"""Runs on a real Ray cluster of this machine: the same tables as of one process, whoever dies meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'reducerbench[ray]'")

from ray.cluster_utils import Cluster  # noqa: E402

import suite  # noqa: E402
from suite.cli.ending import ExitCode  # noqa: E402
from suite.errors import RequestError  # noqa: E402
from suite.store.files import locked  # noqa: E402
from suite.sweep.executors.ray import cluster, driver, worker  # noqa: E402
from suite.sweep.executors.ray.cluster import Joined  # noqa: E402
from suite.sweep.executors.ray.messages import Scored  # noqa: E402
from tests.photos import write_photos  # noqa: E402

METHODS = Path(__file__).parents[1] / "perf" / "sleeper.py"
SLEEPER, DEADLY = f"{METHODS}:Sleeper", f"{METHODS}:Deadly"
NODE = {"object_store_memory": 80 * 2**20}
HEAD = {"num_cpus": 1, "include_dashboard": False, **NODE}


@pytest.fixture(scope="module")
def nodes():
    """A cluster of a head with one core; tests add nodes to it. One at a time on a machine."""
    with locked(Path(tempfile.gettempdir()) / "reducerbench-ray-tests.lock"):
        found = Cluster(initialize_head=True, head_node_args=HEAD)
        ray.init(found.address, log_to_driver=False, logging_level="ERROR")
        yield found
        ray.shutdown()
        found.shutdown()


@pytest.fixture
def more(nodes):
    """Adds a node of so many cores; it is gone after the test."""
    added = []

    def add(cores):
        added.append(nodes.add_node(num_cpus=cores, **NODE))
        return added[-1]

    yield add
    for node in added:
        if node in nodes.worker_nodes:
            nodes.remove_node(node)


@pytest.fixture
def spec(tmp_path):
    """Forty photos in ten batches, of five cells."""
    return {
        "task": "imagenet",
        "data": str(write_photos(tmp_path / "photos", each=10)),
        "model": "test_vit",
        "checkpoint": "none",
        "image_size": 64,
        "batch_size": 4,
        "device": "cpu",
        "workers": 0,
        "reducers": ["tome", "evit"],
        "rates": ["r=1", "r=2"],
        "speed": False,
        "executor_cores": 1,
        "out": str(tmp_path / "run"),
        "report": False,
    }


@pytest.fixture
def local(spec, tmp_path):
    """What one process makes of it."""
    return run(spec, tmp_path / "local", executor="local")


def run(spec, out=None, **values):
    return suite.run(**{**spec, "executor": "ray", "out": str(out or spec["out"]), **values})


def stored(run):
    """Everything that a run stores of its samples and cells, byte for byte."""
    out = Path(run.out)
    files = [*out.glob("*.parquet"), *(file for file in out.glob("cells/*/*") if file.is_file())]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


@pytest.fixture
def when(monkeypatch):
    """Calls something with the round, the worker and the news whenever workers say something."""

    def hook(act):
        hear = driver.Round._hear

        def heard(self, worker, news):
            hear(self, worker, news)
            act(self, worker, news)

        monkeypatch.setattr(driver.Round, "_hear", heard)

    return hook


def kill(round_, worker):
    about = round_.crew.ready().get(worker)
    if about is not None:
        os.kill(about.pid, signal.SIGKILL)


def test_two_workers_store_what_one_process_stores(nodes, more, spec, local):
    more(1)
    assert stored(run(spec)) == stored(local)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3, 7])
def test_any_number_of_workers_stores_what_one_process_stores(nodes, more, spec, local, workers):
    if workers > 1:
        more(workers - 1)
    assert stored(run(spec)) == stored(local)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_workers_that_are_killed_at_any_moment_change_nothing(nodes, more, spec, local, when, seed):
    draw, killed = random.Random(seed), []

    def at_random(round_, worker, news):
        if len(killed) < 4 and draw.random() < 0.3:
            kill(round_, worker)
            killed.append(news)

    more(1)
    when(at_random)
    assert stored(run(spec)) == stored(local)
    assert len(killed) == 4


@pytest.mark.slow
def test_a_node_that_is_removed_changes_nothing(nodes, more, spec, local, when):
    node, removed = more(1), []

    def remove(round_, worker, news):
        there = round_.crew.members.get(worker)
        if isinstance(news, Scored) and not removed and there and there.node == node.node_id:
            nodes.remove_node(node)
            removed.append(node)

    when(remove)
    assert stored(run(spec)) == stored(local)
    assert removed


@pytest.mark.slow
def test_a_node_that_comes_while_a_run_goes_on_works_with_it(nodes, more, spec, when, tmp_path):
    joined, both = [], tmp_path / "both"

    def add(round_, worker, news):
        if isinstance(news, Joined):
            joined.append(worker)
            if len(joined) == 1:
                more(1)
            else:
                both.touch()

    when(add)
    sleeping = {"reducers": [SLEEPER], "reducer_options": {SLEEPER: {"seconds": 0.1, "until": str(both)}}}
    assert not run(spec, **sleeping).failed
    assert len(joined) == 2


@pytest.mark.slow
def test_a_cell_that_kills_its_workers_fails_and_the_others_are_complete(nodes, spec, local):
    found = run(spec, reducers=["tome", DEADLY], rates=["r=1"])
    assert [reason.split(":")[0] for reason in found.failed] == [f"{DEADLY} r=1".split(":")[0]]
    assert "3 workers died that ran it alone" in found.failed[0]
    frame = found.frame()
    assert set(frame.status[frame.reducer != DEADLY]) == {"done"}


@pytest.mark.slow
def test_a_driver_that_is_killed_is_continued_by_the_same_command(nodes, spec, local):
    with started(spec, nodes) as driver_:
        wait_for_rows(spec, driver_)
        driver_.kill()
    assert not list(Path(spec["out"]).glob("cells/*/samples.parquet"))
    with started(spec, nodes) as driver_:
        assert driver_.wait() == 0
    assert stored(suite.load(spec["out"])) == stored(local)


@pytest.mark.slow
def test_a_run_whose_head_is_gone_says_so_and_goes_on_with_another(nodes, spec, local):
    head = Cluster(initialize_head=True, head_node_args=HEAD)
    with started(spec, head) as driver_:
        wait_for_rows(spec, driver_)
        head.shutdown()
        _, said = driver_.communicate(timeout=200)
    assert driver_.returncode == ExitCode.FAILED  # Ray itself ends who has looked for the head for a minute
    assert "Failed to connect to GCS" in said
    assert "Traceback" not in said
    with started(spec, nodes) as driver_:
        assert driver_.wait() == 0
    assert stored(suite.load(spec["out"])) == stored(local)


def started(spec, nodes):
    """The command of a run, begun in a process of its own on a cluster."""
    flags = [f"--{key.replace('_', '-')}={','.join(value) if isinstance(value, list) else value}"
             for key, value in spec.items() if key not in ("speed", "report")]  # fmt: skip
    command = [sys.executable, "run_bench.py", "run", "--no-speed", "--executor=ray", *flags]
    environment = {**os.environ, "RAY_ADDRESS": nodes.address}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for_rows(spec, driver_):
    """Until it has stored some."""
    while not sum(path.stat().st_size for path in (Path(spec["out"]) / "logs").glob("*.log")):
        assert driver_.poll() is None
        time.sleep(0.05)


@pytest.mark.slow
def test_timing_is_one_cell_at_a_time_and_of_one_device(nodes, more, spec):
    more(1)
    found = run(spec, speed=True, speed_rounds=2, latency=True, reducers=["tome"])
    frame = found.frame()
    assert len({frame.attrs["context"][key]["device"] for key in frame.index}) == 1
    assert frame.im_s.notna().all()
    assert run(spec, speed=True, speed_rounds=2, latency=True, reducers=["tome"]).frame().im_s.equals(frame.im_s)


@pytest.mark.slow
def test_a_device_that_no_worker_has_is_refused_by_name(nodes, spec):
    with pytest.raises(RequestError, match="timing_device 'H100': no worker has it; there are 1 of"):
        run(spec, speed=True, timing_device="H100", limit=4)


@pytest.mark.slow
def test_a_node_with_other_sources_is_refused_by_name(nodes, spec, monkeypatch):
    monkeypatch.setattr(cluster, "sources_here", lambda: "0" * 64)
    with pytest.raises(RequestError, match=rf"node '.+': it runs other sources \({worker.sources_here()[:12]}\)"):
        run(spec)


@pytest.mark.slow
def test_data_that_a_node_cannot_read_are_no_missing_samples(nodes, spec, monkeypatch):
    bad = next(Path(spec["data"]).rglob("*.JPEG"))
    whole = bad.read_bytes()
    bad.write_bytes(b"")

    def repaired(plan, records):
        return {}  # as on a machine that has the file

    monkeypatch.setattr(driver, "still_unreadable", repaired)
    with pytest.raises(RequestError, match="cannot read what can be read here"):
        run(spec)
    bad.write_bytes(whole)


@pytest.mark.slow
def test_unreadable_samples_are_missing_as_they_are_for_one_process(nodes, spec, tmp_path):
    for bad in list(Path(spec["data"]).rglob("*.JPEG"))[:4]:
        bad.write_bytes(b"")
    ours = run(spec, allow_missing=4)
    theirs = run(spec, tmp_path / "local", executor="local", allow_missing=4)
    assert stored(ours) == stored(theirs)
    assert (Path(ours.out) / "missing.jsonl").read_bytes() == (Path(theirs.out) / "missing.jsonl").read_bytes()


def test_more_cores_than_a_node_has_are_refused(nodes, spec):
    with pytest.raises(RequestError, match="executor_cores 99: no node of the cluster has so many"):
        run(spec, executor_cores=99)


def test_a_device_by_its_number_is_refused(nodes, spec):
    with pytest.raises(RequestError, match="device 'cuda:1': which device a worker has is Ray's to say"):
        run(spec, device="cuda:1")
