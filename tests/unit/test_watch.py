"""A run is followed from elsewhere by what lies in its folder, and its page renews itself until it is over."""

import json
import shutil
import threading
import time
from dataclasses import replace

import pytest

from suite.api import run
from suite.cli.app import main
from suite.cli.watch import take_look
from suite.store.folder import RunFolder
from suite.store.pulse import PULSE, STALE, Pulse, read_beat
from tests.unit.run_folder import write_run


def watch(capsys, *arguments):
    """The exit code, and the lines that were printed."""
    with pytest.raises(SystemExit) as ended:
        main(["watch", *map(str, arguments)])
    printed = capsys.readouterr()
    return ended.value.code, (printed.out + printed.err).splitlines()


@pytest.fixture
def out(tmp_path):
    return write_run(tmp_path / "run", {"tome": 4.0, "evit": 7.0})


def test_a_run_that_is_over_is_told_at_once_with_its_table(out, capsys):
    code, lines = watch(capsys, out)
    assert code == 0
    assert lines[:2] == ["9 cells: 9 scored, 9 timed, 0 failed, 0 left", "no command works on it"]
    assert any("evit" in line for line in lines)


def test_what_failed_and_what_is_left_are_counted_and_the_exit_code_says_so(out, capsys):
    (out / "cells/tome-flops--50/failed.json").write_text(json.dumps({"reason": "NaN"}))
    (out / "cells/evit-flops--50/samples.parquet").unlink()
    shutil.rmtree(out / "cells/evit-flops--40")
    code, (said, *_) = watch(capsys, out)
    assert code == 1
    assert said == "9 cells: 6 scored, 6 timed, 1 failed, 2 left"


def test_it_is_followed_until_its_command_is_gone(out, capsys):
    pulse = Pulse(out)
    pulse.beat("evaluating 9 cells", 0, 400, "")
    pulse._last = replace(pulse._last, began=time.time() - 30, at=time.time() - 10)
    pulse.beat("evaluating 9 cells", 100, 400, "tome r=4")
    threading.Timer(1.0, pulse.close).start()
    code, lines = watch(capsys, out, "--every", "0.2")
    assert code == 0
    assert lines[1] == "evaluating 9 cells: 100 of 400, about 90 s left tome r=4"
    assert lines[3] == "no command works on it"
    assert not (out / PULSE).exists()


def test_a_command_that_is_silent_is_not_waited_for(out, capsys, monkeypatch):
    Pulse(out).beat("timing cells, 9 variants", 1, 50, "")
    now = time.time()
    monkeypatch.setattr("suite.store.pulse.time.time", lambda: now + STALE + 5)
    _, lines = watch(capsys, out)
    assert lines[1].startswith("the last that was heard of its command, 65 s ago: timing cells")


def test_beats_are_written_once_a_second_and_when_a_stage_begins(tmp_path):
    pulse = Pulse(tmp_path)
    pulse.beat("scoring", 0, 9, "")
    pulse.beat("scoring", 1, 9, "a")
    assert (read_beat(tmp_path).done, read_beat(tmp_path).left) == (0, None)
    pulse.beat("timing", 0, 4, "")
    assert read_beat(tmp_path).stage == "timing"
    assert [path.name for path in tmp_path.iterdir()] == [PULSE]
    Pulse(tmp_path / "not made yet").beat("scoring", 0, 9, "")
    pulse.close()
    assert read_beat(tmp_path) is None
    (tmp_path / PULSE).write_text("{")
    assert read_beat(tmp_path) is None


def test_a_folder_that_holds_no_run_is_one_line(tmp_path, capsys):
    code, lines = watch(capsys, tmp_path)
    assert code == 2
    assert lines == [f"error: '{tmp_path}' is not the folder of a run: it has no run.json; give what --out named"]


def test_a_command_that_has_begun_nothing_yet_is_seen(tmp_path):
    Pulse(tmp_path).beat("resolving rates", 0, 9, "")
    look = take_look(tmp_path)
    assert look.frame is None
    assert list(look.lines())[1] == "resolving rates: 0 of 9"


def test_a_run_shows_its_scores_before_its_times_on_a_page_that_renews_itself(tiny_run):
    seen = []

    def preview(out):
        frame = take_look(out).frame
        page = (out / "report" / "index.html").read_text()
        seen.append(
            (read_beat(out).stage, set(frame.status), frame.agreement.notna().all(), frame.im_s.notna().any(), page)
        )

    results = run({**tiny_run, "speed": True, "speed_rounds": 2}, preview=preview)
    [(stage, status, scored, timed, page)] = seen
    assert stage.startswith("scoring")
    assert (status, bool(scored), bool(timed)) == ({"done"}, True, False)
    assert 'http-equiv="refresh"' in page
    assert "times are not measured yet" in page
    assert results.frame().im_s.notna().all()
    assert 'http-equiv="refresh"' not in (results.out / "report" / "index.html").read_text()
    assert read_beat(results.out) is None
    run({**tiny_run, "speed": True, "speed_rounds": 2}, preview=seen.append)
    assert len(seen) == 1  # nothing is left to be timed
    assert RunFolder(results.out).check(RunFolder(results.out).read_run()["identity"], [])
