"""Machines as users have them: what lies beside their scripts, what their file systems and networks do not give."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import yaml

from reports.frame import load_frame
from reports.groups import groups
from reports.tables.speeds import speeds_of
from reports.text.headings import notes
from suite.api import run
from suite.cli.app import main
from suite.cli.fetch import fetch_command
from suite.errors import RequestError
from suite.store.folder import RunFolder
from suite.sweep.progress import Progress
from tasks.caption_scoring.scorer import try_scorers
from tasks.caption_scoring.spice_jars import JARS, MIRROR
from tasks.imagenet.task import ImageNet
from tasks.reading.user_cache import CACHE
from tests.unit.run_folder import write_run
from tests.wild import classification, machines

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


def test_speeds_of_a_run_that_went_on_on_another_device_stand_in_no_column_together(tmp_path):
    store = RunFolder(write_run(tmp_path / "run", {"tome": 4.0, "evit": 7.0}))
    for cell in map(store.cell, store.read_run()["cells"]):
        if cell.read("cell")["reducer"] == "evit":
            timed = cell.read("speed")
            for speed in timed["runtimes"].values():
                speed |= {"device": "Another GPU", "im_s": 12345.0}
            cell.write("speed", timed)
    frame = load_frame(store.path)
    (group,) = groups(frame)
    assert group.seen("device") == ["Test CPU"]
    assert frame[frame.reducer == "evit"].im_s.isna().all()
    assert frame[frame.reducer == "tome"].im_s.notna().all()
    speeds = speeds_of(frame)
    assert set(speeds[speeds.reducer == "evit"].device) == {"Another GPU"}
    assert "Also timed on Another GPU, which stands apart in speed.md." in notes(group)


@pytest.mark.skipif(not shutil.which("java"), reason="needs Java: the PTB tokenizer is Java's")
def test_captions_are_scored_where_folders_have_other_letters_than_the_locale(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "zwischen é 图"))
    Path(tempfile.gettempdir()).mkdir()
    monkeypatch.setenv("LC_ALL", "C")
    assert try_scorers(("cider", "rouge_l"))[0] == "ok"


def test_another_limit_is_named_as_what_may_differ(tiny_run):
    run({**tiny_run, "limit": 6}, progress=QUIET, report=False)
    with pytest.raises(RequestError, match=r"not '12 \(.*\)' \(other data, or another --limit\); give another --out"):
        run(tiny_run, progress=QUIET, report=False)


@pytest.mark.parametrize("call", ["stat", "lstat", "scandir", "open"])
def test_finding_data_in_a_slow_folder_asks_nothing_of_single_images(tmp_path, monkeypatch, call):
    """A network file system takes milliseconds a question; there are 50,000 images."""
    asked, plain = [], getattr(os, call)
    monkeypatch.setattr(os, call, lambda *args, **options: asked.append(args) or plain(*args, **options))
    counts = []
    for number in (2, 20):
        data = classification.in_folders(tmp_path / f"{number}", classification.FEW[:2], each=number)
        asked.clear()
        assert len(ImageNet(str(data)).samples) == 2 * number
        counts.append(len(asked))
    assert counts[0] == counts[1]


@pytest.fixture
def mounts(tmp_path) -> None:
    done = subprocess.run(machines.read_only(tmp_path, "true"), capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no folder can be mounted here: {done.stderr.strip()}")


@pytest.mark.slow
@pytest.mark.usefixtures("mounts")
def test_data_on_a_read_only_mount_with_odd_letters_are_run_and_results_there_are_refused(tiny_run, tmp_path):
    data, out = tmp_path / "ein Ordner – é 图" / "photos", tmp_path / "aus gabe é"
    shutil.copytree(tiny_run.pop("data"), data)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tiny_run | {"workers": 2}))
    program = f"{sys.executable} -m run_bench"

    def call(command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
        shell = machines.read_only(data, f"{program} {command}")
        return subprocess.run(shell, capture_output=True, text=True, timeout=300, env=environment)

    done = call(f"run '{tmp_path}/sweep.yaml' --data . --out '{out}'")
    assert done.returncode == 0, done.stderr
    assert (out / "report" / "table.csv").is_file()
    for command in (f"run '{tmp_path}/sweep.yaml' --data . --out here", "train dtem --limit 8 --steps 1 --workers 0"):
        done = call(command)
        assert done.returncode == 2, done.stderr
        assert "Read-only file system" in done.stderr.splitlines()[-1]
