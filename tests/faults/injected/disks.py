"""File systems that are full, read-only, another user's or gone; small ones are mounted for it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.faults.injected.command import Acts
from tests.faults.injected.fault import Draw, Fault, draw_moment, draw_stage
from tests.faults.injected.project import Project

NOBODY = 65534
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x00020000, 0x4000, 1 << 18
ROOM = (4, 160)  # KiB
LATE = 0.9  # of what a command takes: its report may be written


def mounts_apart() -> bool:
    """Give this process a view of the file systems of its own, so that no other sees what is mounted."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)


def on_tmpfs(out: Path, options: str) -> None:
    """Move what is in `out` to a file system of its own, which gets these options then."""
    aside = out.with_name("aside")
    shutil.rmtree(aside, ignore_errors=True)
    out.mkdir(exist_ok=True)
    shutil.copytree(out, aside)
    mount("-t", "tmpfs", "tmpfs", str(out))
    shutil.copytree(aside, out, dirs_exist_ok=True)
    shutil.rmtree(aside)
    mount("-o", f"remount,{options}", str(out))


def off_tmpfs(out: Path) -> None:
    """What is in `out` lies in an ordinary folder again."""
    aside = out.with_name("aside")
    shutil.copytree(out, aside)
    unmount(out)
    shutil.rmtree(out)
    aside.rename(out)


def used(out: Path) -> int:
    """KiB of a tmpfs, which gives every file whole pages."""
    return sum(4 * (1 + -(-path.stat().st_size // 4096)) for path in out.rglob("*")) if out.is_dir() else 4


def full(random: Random, project: Project) -> Fault:
    more, stage = random.randint(*ROOM), draw_stage(random)

    def prepare() -> None:
        on_tmpfs(project.out, f"size={used(project.out) + more}k")

    return Fault("output", stage, prepare=prepare, mend=lambda: off_tmpfs(project.out))


def full_of_files(random: Random, project: Project) -> Fault:
    more, stage = random.randint(1, 40), draw_stage(random)

    def prepare() -> None:
        count = len(list(project.out.rglob("*"))) if project.out.is_dir() else 0
        on_tmpfs(project.out, f"nr_inodes={count + 2 + more}")

    return Fault("output", stage, prepare=prepare, mend=lambda: off_tmpfs(project.out))


def read_only(random: Random, project: Project) -> Fault:
    """From the beginning, or from a moment on, as where a disk has a fault."""
    at = random.choice([None, draw_moment(random)])
    begins = "ro" if at is None else "rw"

    def act(process: int) -> None:
        with suppress(subprocess.CalledProcessError):  # busy: files are being written
            mount("-o", "remount,ro", str(project.out))

    def mend() -> None:
        mount("-o", "remount,rw", str(project.out))
        off_tmpfs(project.out)

    acts = Acts(at=at, act=act)
    return Fault("output", draw_stage(random), acts, lambda: on_tmpfs(project.out, begins), mend)


def another_users(random: Random, project: Project) -> Fault:
    """The command is an ordinary user's, who may read the folder, and perhaps not even that."""
    mode = random.choice([0o755, 0o711, 0o700])

    def prepare() -> None:
        project.out.mkdir(exist_ok=True)
        project.out.chmod(mode)

    def inside() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    return Fault("output", draw_stage(random), Acts(inside=inside), prepare, lambda: project.out.chmod(0o755))


def removed(random: Random, project: Project) -> Fault:
    """Somebody clears the folder, or a part of it, while the command runs."""
    part = random.choice(["", "cells", "logs", "report", "run.json"])
    place = project.out / part

    def act(process: int) -> None:
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)

    stage, at = draw_stage(random), draw_moment(random)
    return Fault(part or "output", stage, Acts(at=at, act=act), clears=at > LATE and part in ("", "report"))


def no_temporary(random: Random, project: Project) -> Fault:
    def inside() -> None:
        os.environ["TMPDIR"] = "/nowhere"
        tempfile.tempdir = None

    return Fault("temporary folder", draw_stage(random), Acts(inside=inside))


def data_gone(random: Random, project: Project) -> Fault:
    """A data disk that is taken away, at a moment or before, and is there again afterwards."""
    data, away = project.folder / "data", project.folder / "data.away"
    at = random.choice([None, draw_moment(random)])

    def take(process: int = 0) -> None:
        if data.is_dir():
            data.rename(away)

    def mend() -> None:
        if away.is_dir():
            shutil.rmtree(data, ignore_errors=True)
            away.rename(data)

    acts = Acts() if at is None else Acts(at=at, act=take)
    return Fault("data", draw_stage(random), acts, take if at is None else (lambda: None), mend)


DISKS: dict[str, Draw] = {
    "ENOSPC": full,
    "ENOSPC, no more files": full_of_files,
    "EROFS": read_only,
    "EACCES": another_users,
    "removed": removed,
    "no temporary folder": no_temporary,
    "data gone": data_gone,
}
