"""Machines as users have them: what lies beside their scripts, what their file systems and networks do not give."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from suite.api import run
from suite.cli.app import main
from suite.cli.fetch import fetch_command
from suite.errors import RequestError
from suite.sweep.progress import Progress
from tasks.caption_scoring.spice_jars import CACHE, JARS, MIRROR
from tests.wild import machines

ROOT = Path(__file__).parents[2]
QUIET = Progress(quiet=True)
NAMES = {jar.name for jar in JARS}


def run_script(folder: Path, code: str, **environment: str) -> str:
    """What a script in a user's folder prints, with the suite on the path as a checkout is."""
    (folder / "evaluate.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "evaluate.py"], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed_tasks(folder: Path) -> list[str]:
    command = [sys.executable, "-m", "run_bench", "list", "tasks"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return [line.partition(":")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("beside", [machines.user_tasks_module, machines.user_packages, machines.output_folders])
def test_tasks_are_listed_in_a_folder_with_tasks_and_reports_of_a_users_own(beside, tmp_path):
    beside(tmp_path)
    assert {"imagenet", "scenes"} <= {*listed_tasks(tmp_path)}


@pytest.mark.slow
def test_the_suite_is_imported_beside_a_users_tasks_module(tmp_path):
    machines.user_tasks_module(tmp_path)
    printed = run_script(tmp_path, "from suite import run\nfrom tasks import clean, task_class\nprint(run, clean())")
    assert printed.split()[-1] == "cleaned"
    assert printed.startswith("<function run ")


USES = {
    "imported after the suite": "import suite; import {name} as own; import {name}.nightly as nightly",
    "imported before the suite": "import {name} as own; import {name}.nightly as nightly; import suite",
    "half and half": "import {name} as own; import suite; import {name}.nightly as nightly",
}


@pytest.mark.parametrize("name", ["tasks", "reports"])
@pytest.mark.parametrize("order", USES)
def test_a_users_package_keeps_its_names_and_modules_and_the_suite_has_its_own(order, name, tmp_path):
    machines.user_packages(tmp_path)
    printed = run_script(
        tmp_path,
        f"{USES[order].format(name=name)}\n"
        "import pickle, tasks, reports.tables.console\n"
        "assert pickle.loads(pickle.dumps(own.clean)) is own.clean\n"
        "print(own.OWN, own.clean(), nightly.SCHEDULE, 'imagenet' in tasks.list_tasks(), sep='|')",
    )
    assert printed == "mine|cleaned|mine at 3|True\n"


def test_a_name_that_neither_has_is_an_attribute_error(tmp_path):
    machines.user_tasks_module(tmp_path)
    assert run_script(tmp_path, "import suite, tasks\nprint(hasattr(tasks, 'nothing'))") == "False\n"


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A Maven repository whose files stand for those that SPICE needs, and an empty cache."""
    contents = {jar: jar.name.encode() * 99_999 for jar in JARS}
    standing_in = tuple(jar._replace(sha256=hashlib.sha256(held).hexdigest()) for jar, held in contents.items())
    monkeypatch.setattr("tasks.caption_scoring.spice_jars.JARS", standing_in)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    machines.maven_repository(tmp_path / "m2", {jar.path: held for jar, held in contents.items()})
    return tmp_path / "m2"


def fetch(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["fetch", "spice", *arguments])
    return ended.value.code


def kept(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}


def test_what_spice_needs_is_fetched_once_from_a_server(repository, tmp_path, capsys, monkeypatch):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=repository)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(MIRROR, f"http://127.0.0.1:{server.server_port}/")
        assert fetch() == 0
        server.shutdown()
    assert kept(tmp_path) == NAMES
    assert fetch() == 0  # nothing is asked for any more
    assert str(tmp_path / "cache" / "spice") in capsys.readouterr().out


def test_what_spice_needs_is_fetched_from_a_folder_too(repository, tmp_path):
    assert fetch("--from", str(repository)) == 0
    assert kept(tmp_path) == NAMES


def test_a_file_that_is_another_is_refused_and_not_kept(repository, tmp_path, capsys):
    damaged = next(repository.rglob("*-models.jar"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert fetch("--from", str(repository)) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"is not Maven Central's {damaged.name}: {damaged.stat().st_size} bytes of SHA-256" in line
    assert kept(tmp_path) == NAMES - {damaged.name}  # what came before it is whole


@pytest.mark.parametrize("source", ["http://127.0.0.1:9", "nowhere", "odd://host"])
def test_a_repository_that_cannot_be_reached_is_named_with_the_remedy(source, repository, tmp_path, capsys):
    assert fetch("--from", source) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert JARS[0].name in line
    assert "give a mirror of Maven Central, or the folder of a Maven repository, with --from" in line
    assert not kept(tmp_path)


def test_what_cannot_be_fetched_is_named():
    with pytest.raises(RequestError, match="there is no 'meteor' to fetch; known: spice"):
        fetch_command("meteor")


def test_a_further_process_of_torchrun_evaluates_and_leaves_the_rest_to_the_first(tiny_run, monkeypatch):
    folder = Path(tiny_run["out"])
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    run({**tiny_run, "speed": True}, progress=QUIET)
    made = {path.name for path in folder.glob("cells/*/*")}
    assert "samples.parquet" in made
    assert not {"scores.json", "speed.json"} & made
    assert not (folder / "report").exists()
    monkeypatch.setenv("RANK", "0")
    assert set(run(tiny_run, progress=QUIET).frame().status) == {"done"}
    assert (folder / "report" / "table.csv").is_file()


def test_ray_under_torchrun_is_refused(tiny_run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        RequestError, match=r"executor 'ray' has workers of its own; start the command without torchrun"
    ):
        run({**tiny_run, "executor": "ray"}, progress=QUIET)


@pytest.mark.slow
def test_processes_of_torchrun_share_a_run_and_one_of_them_speaks(tiny_run, tmp_path):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tiny_run))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "run_bench.py", "run"]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "sweep.yaml")], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("page, tables and plots") == 1
    assert done.stderr.count("2 processes of torchrun share the evaluation; this one, the first, scores") == 1
