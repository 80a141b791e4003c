"""Whatever ends the program, it says so in a line and by an exit code, and what it prints to may go away."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from suite.cli.ending import ExitCode, explain
from suite.contract.printable import printable
from suite.errors import MachineError, RequestError, what_ran_out

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LISTS = [sys.executable, str(ROOT / "run_bench.py"), "list", "tasks"]
WAITS = "import time; import suite.cli.app; suite.cli.app.main = lambda: time.sleep(60)\n"
WAITS += "import sys; print('ready', flush=True); from suite.cli.program import main; main()"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/run.json"), "room on a disk"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "quota"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (ImportError("libc10.so: cannot open shared object file: Too many open files"), "ulimit -n"),
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (raised(ValueError("no batch"), MemoryError()), "memory"),
    ],
)
def test_what_the_machine_is_out_of_is_named_and_no_defect(error, what):
    code, said = explain(error)
    assert code == ExitCode.MACHINE
    assert what in said
    assert said.endswith("the same command continues where this one stopped")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR])
def test_a_place_that_cannot_be_written_to_is_a_bad_request(number):
    code, said = explain(OSError(number, os.strerror(number), "out"))
    assert (code, said) == (ExitCode.BAD_REQUEST, f"error: 'out': {os.strerror(number)}; give another place or file")


def test_other_errors_are_what_they_were():
    assert explain(RequestError("no such\n model"))[0] == ExitCode.BAD_REQUEST
    assert explain(MachineError("a process was killed"))[0] == ExitCode.MACHINE
    assert explain(OSError(errno.EIO, os.strerror(errno.EIO), "data/1.jpg"))[0] == ExitCode.MACHINE
    assert explain(KeyError("rate"))[0] == ExitCode.DEFECT
    assert explain(KeyboardInterrupt())[0] == ExitCode.INTERRUPTED
    assert what_ran_out(KeyError("rate")) == ""


def test_an_output_that_is_full_is_told_by_line_and_exit_code():
    with open("/dev/full", "w") as full:
        done = subprocess.run(LISTS, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == ExitCode.MACHINE
    assert done.stderr == "error: standard output is not whole: No space left on device\n"


def test_an_output_that_nobody_reads_ends_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(LISTS, stdout=writing, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_streams_may_be_closed(closed):
    command = f'"{sys.executable}" "{ROOT / "run_bench.py"}" list tasks {closed}'
    assert subprocess.run(["sh", "-c", command], env=ENVIRONMENT, timeout=60, capture_output=True).returncode == 0


def test_an_output_of_few_letters_has_marks_for_the_others():
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*LISTS[:2], "doctor", "--help"], capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0
    assert done.stdout.isascii()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_program_with_a_line_and_its_number(number):
    process = start([sys.executable, "-c", WAITS])
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (out, err) == ("", "interrupted; the same command continues where this one stopped\n")


@pytest.mark.parametrize("imported", ["importlib.abc", "suite.cli.signals", "typer", "suite.cli.app", "numpy"])
def test_a_signal_while_the_program_imports_leaves_no_traceback(imported, tmp_path):
    process = start([sys.executable, "-X", "importtime", *LISTS[1:2], "plan", "--out", str(tmp_path)])
    for line in process.stderr:
        if line.split("|")[-1].strip() == imported:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def start(command: list[str]) -> subprocess.Popen:
    """Where SIGINT and SIGHUP are heard, as they are not of jobs in the background or under nohup."""

    def hear():
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        preexec_fn=hear,
    )  # fmt: skip


def test_names_cannot_steer_a_terminal():
    assert printable("Käse \x1b[31m\x9b2J\u202e\n\tred \ud800") == "Käse \\x1b[31m\\x9b2J\\u202e\n\tred \\ud800"
