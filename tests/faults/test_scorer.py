"""Faults of the caption scorer: each costs the cell it hits, names what ended and how, and leaves nothing behind."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from suite.api import run
from suite.errors import CellError
from suite.sweep.progress import Progress
from tasks.caption_scoring.scorer import METEOR, CaptionScorer, package
from tasks.caption_scoring.spice_jars import JARS, cache_folder
from tasks.reading.user_cache import CACHE

pytestmark = pytest.mark.skipif(not shutil.which("java"), reason="needs Java: its end is what is tested")

ROOT = Path(__file__).parents[2]
REFERENCES = {
    str(i): [f"a {a} dog runs {b}", f"the {a} dog is {b}"]
    for i, (a, b) in enumerate([("red", "fast"), ("big", "home"), ("old", "away")])
}
CAPTIONS = {"0": "a red dog", "1": "a big dog runs", "2": "one old dog is away"}
FAST = ("bleu_4", "rouge_l", "cider")  # no METEOR, which loads for seconds
AGAIN = "run the same command again"


def processes(group: int, word: str = "") -> list[int]:
    """Living processes of a process group whose command line holds `word`."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, pgid, state, args in rows if int(pgid) == group and state[0] != "Z" and word in args]


def until(condition, limit: float = 60.0):
    """What `condition` returns once that is something."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.005)
    pytest.fail(f"nothing after {limit} s")


def group_of(scorer: CaptionScorer) -> int:
    return scorer._process.process.pid


def java_of(scorer: CaptionScorer, word: str) -> int:
    return until(lambda: processes(group_of(scorer), word))[0]


@contextmanager
def leaving_nothing(scorer: CaptionScorer):
    """Notes every process group of the scorer, and fails if one of them or a folder outlives it."""
    groups, started = set(), scorer._start

    def start(metrics):
        try:
            return started(metrics)
        finally:
            groups.add((group_of(scorer), scorer._process.folder))

    scorer._start = start
    with scorer:
        yield scorer
    assert groups
    for group, folder in groups:
        until(lambda group=group: not processes(group), limit=10)
        assert not folder.exists()


def replace(link: Path, content: bytes) -> None:
    """A file in place of a link, and not in place of what it links to."""
    link.unlink(missing_ok=True)
    link.write_bytes(content)


@pytest.fixture
def other_package(tmp_path, monkeypatch) -> Path:
    """A pycocoevalcap of links that comes before the installed one, to break parts of."""
    folder = tmp_path / "pycocoevalcap"
    shutil.copytree(package(), folder, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    assert package() == folder
    return folder


@pytest.fixture
def quick_meteor(other_package) -> Path:
    """A package whose METEOR has no paraphrases, which take most of its start; they lie beside its jar."""
    meteor = other_package / "meteor"
    replace(meteor / METEOR, (meteor / METEOR).read_bytes())
    replace(meteor / "data" / "paraphrase-en.gz", gzip.compress(b""))
    return other_package


@pytest.mark.usefixtures("quick_meteor")
def test_a_meteor_that_hangs_or_is_killed_costs_one_cell_and_the_next_has_its_scores():
    cells = dict.fromkeys(("first", "hangs", "second", "killed", "last"), CAPTIONS)
    # METEOR is asked only for what it has not answered before, and for a while.
    cells["hangs"], cells["killed"] = {"0": "dog"}, {"0": "a b c d e f dog " * 2000}
    with leaving_nothing(CaptionScorer(REFERENCES, timeout_s=120, metrics=("meteor", "cider"))) as scorer:
        outcomes = scorer.score(cells)
        _, first = next(outcomes)
        os.kill(java_of(scorer, METEOR), signal.SIGSTOP)
        scorer.timeout_s = 1
        _, hangs = next(outcomes)
        scorer.timeout_s = 120
        _, second = next(outcomes)
        kill = threading.Timer(0.2, os.kill, (java_of(scorer, METEOR), signal.SIGKILL))
        kill.start()
        _, killed = next(outcomes)
        assert kill.finished.is_set()
        _, last = next(outcomes)
    assert str(hangs) == f"METEOR took more than 1 s; {AGAIN}"
    assert str(killed) == f"METEOR: Java was killed by SIGKILL; {AGAIN}"
    assert isinstance(killed, CellError)
    assert first.overall == second.overall == last.overall


def test_a_tokenizer_that_is_killed_is_named():
    many = {str(i): " ".join(["a red dog runs fast"] * 20) for i in range(5000)}
    with leaving_nothing(
        CaptionScorer({image: [text] for image, text in many.items()}, timeout_s=60, metrics=FAST)
    ) as scorer:
        result = []
        thread = threading.Thread(target=lambda: result.extend(scorer.score({"cell": CAPTIONS})))
        thread.start()
        until(lambda: scorer._process)
        os.kill(java_of(scorer, "PTBTokenizer"), signal.SIGKILL)
        thread.join()
    assert str(result[0][1]) == f"PTB tokenizer: Java was killed by SIGKILL; {AGAIN}"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (signal.SIGKILL, "the scoring process was killed by SIGKILL during score"),
        (signal.SIGSTOP, "score took more than 1 s"),
    ],
)
def test_a_scoring_process_that_is_killed_or_hangs_costs_one_cell(fault, reason):
    with leaving_nothing(CaptionScorer(REFERENCES, timeout_s=60, metrics=FAST)) as scorer:
        cells = scorer.score(dict.fromkeys(("first", "hit", "next"), CAPTIONS))
        _, first = next(cells)
        os.kill(group_of(scorer), fault)
        scorer.timeout_s = 1
        _, hit = next(cells)
        scorer.timeout_s = 60
        _, following = next(cells)
    assert str(hit) == f"{reason}; {AGAIN}"
    assert following.overall == first.overall


def test_a_process_that_started_early_and_ended_before_it_was_asked_costs_one_cell():
    with leaving_nothing(CaptionScorer(REFERENCES, timeout_s=60, metrics=FAST)) as scorer:
        scorer.start()
        os.kill(group_of(scorer), signal.SIGKILL)
        (_, hit), (_, following) = scorer.score(dict.fromkeys(("hit", "next"), CAPTIONS))
    assert re.fullmatch(f"the scoring process was killed by SIGKILL during .*; {AGAIN}", str(hit))
    assert set(following.overall) == set(FAST)


def test_a_process_that_started_early_and_was_never_asked_leaves_nothing():
    with leaving_nothing(CaptionScorer(REFERENCES, metrics=FAST)) as scorer:
        scorer.start()
        until(lambda: processes(group_of(scorer)))


@pytest.mark.slow
def test_when_the_run_is_killed_its_scorer_ends_too(quick_meteor, tmp_path):
    script = (
        "from tasks.caption_scoring.scorer import CaptionScorer\n"
        f"scorer = CaptionScorer({REFERENCES!r}, metrics=('meteor',))\n"
        f"for cell in scorer.score({{str(n): {CAPTIONS!r} for n in range(10 ** 5)}}):\n    pass\n"
    )
    (temporary := tmp_path / "temporary").mkdir()
    env = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(quick_meteor.parent)}
    run = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=env)
    try:

        def meteor() -> list[int]:
            listed = subprocess.run(
                ["ps", "-ww", "-eo", "ppid=,pid=,args="], capture_output=True, text=True, check=True
            )
            rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
            workers = [int(pid) for parent, pid, _ in rows if int(parent) == run.pid]
            return [worker for worker in workers if processes(worker, METEOR)]

        (group,) = until(meteor)
    finally:
        run.kill()
        run.wait()
    until(lambda: not processes(group), limit=10)
    until(lambda: not list(temporary.iterdir()), limit=10)


def test_a_meteor_that_cannot_start_fails_every_cell_after_two_tries(other_package):
    replace(other_package / "meteor" / METEOR, b"no jar")
    with leaving_nothing(CaptionScorer(REFERENCES, timeout_s=60)) as scorer:
        found = [str(error) for _, error in scorer.score(dict.fromkeys("abc", CAPTIONS))]
    reason = "canary: METEOR: Java ended with exit code 1: Error: Invalid or corrupt jarfile meteor-1.5.jar"
    assert found == [f"{reason}; {AGAIN}"] * 2 + [f"{reason} (at 2 starts in a row); {AGAIN}"]


@pytest.fixture
def hollow_jars(tmp_path, monkeypatch) -> None:
    """All that SPICE needs is there, and holds nothing."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    cache_folder().mkdir(parents=True)
    for jar in JARS:
        (cache_folder() / jar.name).write_bytes(b"PK\5\6" + bytes(18))  # an archive without files


@pytest.mark.usefixtures("hollow_jars")
def test_a_spice_that_does_not_run_is_missing_and_the_rest_is_scored():
    with leaving_nothing(CaptionScorer(REFERENCES, timeout_s=60, metrics=("cider", "spice"))) as scorer:
        ((_, found),) = scorer.score({"cell": CAPTIONS})
    assert set(found.overall) == {"cider"}
    assert "spice" not in found.per_image
    assert found.missing["spice"].startswith("does not run here: SPICE: Java ended with exit code 1: ")


def test_what_the_installed_package_holds_is_never_changed():
    before = sorted(path for path in package().rglob("*") if "__pycache__" not in path.parts)
    with CaptionScorer(REFERENCES, metrics=FAST) as scorer:
        list(scorer.score({"cell": CAPTIONS}))
        assert scorer._process.folder.is_relative_to(tempfile.gettempdir())
    assert sorted(path for path in package().rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.slow
@pytest.mark.usefixtures("quick_meteor")
def test_a_run_whose_java_is_killed_names_it_keeps_the_captions_and_is_completed_by_the_same_command(
    tmp_path, monkeypatch
):
    shim, killed = tmp_path / "bin" / "java", tmp_path / "killed"
    shim.parent.mkdir()
    real = shutil.which("java")
    shim.write_text(
        f'#!/bin/sh\ncase "$*" in *{METEOR}*) [ -e {killed} ] || {{ touch {killed}; kill -9 $$; }};; esac\n'
        f'exec {real} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    spec = {"task": "scenes-caption", "limit": 6, "reducers": ["tome"], "rates": ["r=8"], "speed": False}
    spec |= {"device": "cpu", "workers": 0, "out": str(tmp_path / "run")}
    (reason,) = run(spec, progress=Progress(quiet=True)).failed
    assert "METEOR" in reason
    assert "SIGKILL" in reason
    assert AGAIN in reason
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("cells/*/samples.parquet")}
    assert len(kept) == 2
    frame = run(spec, progress=Progress(quiet=True)).frame()
    assert set(frame.status) == {"done"}
    assert frame.meteor.notna().all()
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
