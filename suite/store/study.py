"""A study: a folder of several runs, such as one task with several models, each of which is an ordinary run.

study.json   which runs, in order, and which of them could not be run (StudyFile)
<member>/    a run (`suite.store.schema`)
report/      page, tables and plots of all of them, made from the rest and safe to delete
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from suite.errors import RequestError, what_ran_out
from suite.store.files import locked
from suite.store.folder import LOCK, RUN, is_passing
from suite.store.sealed import DamagedError, SealedFiles

STUDY = "study.json"


class StudyFile(TypedDict):
    """study.json"""

    members: list[str]  # names of the runs' folders
    failed: dict[str, str]  # of those that could not be run, or not to their end: why


class StudyFolder:
    """The folder of a study, or one that may become it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = SealedFiles(self.path)

    def read(self) -> StudyFile | None:
        """None where there is no study. DamagedError for what cannot be believed."""
        stored = self.files.read_json(STUDY, StudyFile)
        return None if stored is None else StudyFile(members=stored["members"], failed=stored["failed"])

    def check(self) -> None:
        """RequestError if the folder holds something else than a study."""
        if self.path.exists() and not self.path.is_dir():
            raise RequestError(f"--out {str(self.path)!r} is a file; give a folder")
        if self.files.exists(STUDY) or not self.path.is_dir():
            return
        if self.files.exists(RUN):
            raise RequestError(f"--out {str(self.path)!r} holds one run; give another folder for several")
        if any(not is_passing(path) for path in self.path.iterdir()):
            raise RequestError(f"--out {str(self.path)!r} is not empty and holds no {STUDY}; give a new folder")

    def add(self, members: Sequence[str], failed: Mapping[str, str] = MappingProxyType({})) -> list[str]:
        """Take these runs for members, beside those that are already; returns what the user must know.

        failed: those of them that could not be run, and why.
        """
        try:
            with locked(self.path / LOCK):
                return self._add(members, failed)
        except OSError as error:
            if what_ran_out(error):
                raise
            raise RequestError(f"--out {str(self.path)!r} cannot be written: {error.strerror}") from error

    def _add(self, members: Sequence[str], failed: Mapping[str, str]) -> list[str]:
        notes = []
        try:
            old = self.read() or StudyFile(members=[], failed={})
        except DamagedError as error:
            old = StudyFile(members=sorted(run.parent.name for run in self.path.glob(f"*/{RUN}")), failed={})
            notes.append(error.put_aside())
        kept = {name: why for name, why in old["failed"].items() if name not in members}
        listed = list(dict.fromkeys([*old["members"], *members]))
        self.files.write_json(STUDY, {"members": listed, "failed": {**kept, **failed}})
        return notes


def members_of(out: str | Path) -> list[Path]:
    """The folders of the runs of a study, begun or not; none where `out` is no study."""
    study = StudyFolder(out).read()
    return [] if study is None else [Path(out) / name for name in study["members"]]


def failures_in(out: str | Path) -> dict[str, str]:
    """Names of the runs of a study that could not be run, or not to their end, and why; {} where `out` is no study."""
    study = StudyFolder(out).read()
    return {} if study is None else study["failed"]


def runs_in(out: str | Path) -> list[Path]:
    """The folders of the runs in `out`: itself, or, of a study, those that have begun. RequestError where none has."""
    if not (members := members_of(out)):
        return [Path(out)]
    begun = [run for run in members if (run / RUN).is_file()]
    if not begun:
        said = "; ".join(f"{name}: {why}" for name, why in failures_in(out).items())
        raise RequestError(f"no run of {str(out)!r} has begun: {said or 'give the command that made it again'}")
    return begun


def one_run(out: str | Path) -> Path:
    """The folder of a run. RequestError, with the names of its runs, for a study."""
    if members := members_of(out):
        raise RequestError(f"{str(out)!r} holds several runs; name one of them: {', '.join(map(str, members))}")
    return Path(out)
