"""The child process that scores captions: started, asked under a time limit, and ended with all that it started."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from suite.errors import CellError
from tasks.caption_scoring.spice_jars import CORENLP, SCRIPTING, find_jar, is_complete, java_options
from tasks.caption_scoring.worker import FOLDER, SPICE_JAR, SPICE_OPTIONS

MODULES = "modules"  # within a worker's folder: a JavaScript for SPICE's Java
WORKER = Path(__file__).with_name("worker.py")


class WorkerProcess:
    """A running worker; `ask` it, then `close` it.

    Its pycocoevalcap is a temporary folder of links to the installed one: that package writes into its own folder,
    which may not be writable, and would keep what a killed process leaves there.
    """

    def __init__(self, package: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="caption-scorer-"))
        ignored = shutil.ignore_patterns("__pycache__")
        linked = self.folder / "pycocoevalcap"
        shutil.copytree(package, linked, copy_function=os.symlink, ignore=ignored)
        if is_complete(package):
            link_jars(package, self.folder)
        paths = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        own = {"PYTHONPATH": paths, FOLDER: str(self.folder), SPICE_OPTIONS: java_options(self.folder / MODULES)}
        own["LC_ALL"] = "C.UTF-8"  # else Java cannot name a folder of other letters than a locale's
        with open(self.folder / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-P", str(WORKER)],  # also where the locale knows ASCII alone
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **own},
                start_new_session=True,  # a process group that can be ended as a whole, and no Ctrl-C of its own
            )
        self._input = cast(IO[bytes], self.process.stdin)  # pipes, as was asked
        self._output = cast(IO[bytes], self.process.stdout)
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, request: dict[str, dict[str, Any]], timeout_s: float) -> Any:
        """The answer to {method: arguments}; see `answer`."""
        self.send(request)
        (method,) = request
        return self.answer(method, timeout_s)

    def send(self, request: dict[str, dict[str, Any]]) -> None:
        """Ask {method: arguments} without waiting for the answer."""
        # On a thread: a process that hangs does not read, and a pipe holds little.
        threading.Thread(target=self._write, args=(json.dumps(request) + "\n",), daemon=True).start()

    def answer(self, phase: str, timeout_s: float) -> Any:
        """The answer to what was sent first, a `phase`. CellError if it fails, the process ends, or one phase takes too
        long from now on."""
        while True:
            try:
                line = self._answers.get(timeout=timeout_s)
            except queue.Empty:
                raise CellError(f"{phase} took more than {timeout_s:g} s") from None
            if line is None:
                raise CellError(f"the scoring process {self._end()} during {phase}")
            with suppress(ValueError):  # half a line is the last of a process that was killed
                message = json.loads(line)
                if "failed" in message:
                    raise CellError(message["failed"])
                if "answer" in message:
                    return message["answer"]
                phase = message["phase"]

    def close(self) -> None:
        """Kills the process and everything that it started; there is nothing in it to save."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(OSError):  # a request that was never read
            self._input.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # its end is told by `ask`
            self._input.write(text.encode())
            self._input.flush()

    def _listen(self) -> None:
        with self._output as answers:
            for line in answers:
                self._answers.put(line)
        self._answers.put(None)

    def _end(self) -> str:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        said = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"ended with exit code {code}" + (f" ({said[-1]})" if said else "")


def link_jars(package: Path, folder: Path) -> None:
    """Puts what SPICE needs where it looks for it: of the package of links in a worker's folder."""
    spice = folder / "pycocoevalcap" / "spice"
    # Java looks for a program's libraries beside the file that a link leads to: it has to be one.
    program = spice / SPICE_JAR
    program.unlink(missing_ok=True)
    shutil.copyfile(package / "spice" / SPICE_JAR, program)
    (folder / MODULES).mkdir()
    for jars, place in ((CORENLP, spice / "lib"), (SCRIPTING, folder / MODULES)):
        for jar in jars:
            with suppress(FileExistsError):
                (place / jar.name).symlink_to(Path(str(find_jar(jar, package))).resolve())
