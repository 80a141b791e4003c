"""Machines and folders as users have them, written into a folder."""

from __future__ import annotations

import shlex
from pathlib import Path


def user_tasks_module(folder: Path) -> None:
    """invoke and celery keep a project's commands in `tasks.py` beside the scripts that it has."""
    (folder / "tasks.py").write_text("OWN = 'mine'\ndef clean(): return 'cleaned'\n")


def user_packages(folder: Path) -> None:
    """A project with packages `tasks` and `reports` of its own, as Airflow's and Django's users have them."""
    for name in ("tasks", "reports"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("OWN = 'mine'\ndef clean(): return 'cleaned'\n")
        (folder / name / "nightly.py").write_text("from . import OWN\nSCHEDULE = f'{OWN} at 3'\n")


def output_folders(folder: Path) -> None:
    """Folders `tasks` and `reports` that hold no code, such as the output of a test runner."""
    for name in ("tasks", "reports"):
        (folder / name).mkdir()
        (folder / name / "junit.xml").write_text("<testsuites/>")


def maven_repository(folder: Path, files: dict[str, bytes]) -> None:
    """A mirror of Maven Central, or somebody's ~/.m2/repository, with files by their paths."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def read_only(folder: Path, command: str) -> list[str]:
    """The command for a shell in which the folder is mounted read-only, as data sets often are."""
    mount = f"mount --bind {shlex.quote(str(folder))} {shlex.quote(str(folder))}"
    again = f"mount -o remount,ro,bind {shlex.quote(str(folder))}"
    inside = f"{mount} && {again} && cd {shlex.quote(str(folder))} && {command}"
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside]
