"""Bytes that are not what they were: of stored files, images, weights and the request."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.damage import DAMAGES
from tests.faults.injected.command import Acts
from tests.faults.injected.fault import Draw, Fault, draw_moment
from tests.faults.injected.project import Project

OF_ONE_FILE = ("flip", "truncate", "empty", "zero", "remove", "shape")


def kind_of_file(path: Path) -> str:
    return "log" if path.suffix == ".log" else path.name


def damage(path: Path, random: Random, how: str, unseen: bool) -> None:
    """unseen: size and times say nothing of it where they can, as where bits of a disk rot."""
    about = path.stat()
    DAMAGES[how](path, random)
    if unseen and path.exists():
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def stored(how: str) -> Draw:
    def draw(random: Random, project: Project) -> Fault:
        stage = random.choice(["begun", "whole"])
        files = sorted((project.folder / f"{stage}.kept").rglob("*"))
        kept = [path for path in files if path.is_file() and "report" not in path.parts and path.name[0] != "."]
        by_kind: dict[str, list[Path]] = {}
        for path in kept:
            by_kind.setdefault(kind_of_file(path), []).append(path)
        kind = random.choice(sorted(by_kind))
        name = random.choice(by_kind[kind]).relative_to(project.folder / f"{stage}.kept")
        seed = random.random()

        def prepare() -> None:
            DAMAGES[how](project.out / name, Random(seed))

        return Fault(kind, stage, prepare=prepare)

    return draw


def stored_meanwhile(random: Random, project: Project) -> Fault:
    """A file of the run is damaged while the command runs."""
    how, seed = random.choice(OF_ONE_FILE), random.random()

    def act(process: int) -> None:
        files = [path for path in project.files() if path.stat().st_size and path.suffix != ".tmp"]
        if files:
            DAMAGES[how](Random(seed).choice(files), Random(seed))

    return Fault(f"any, {how}", "begun", Acts(at=draw_moment(random), act=act))


def given(folder: str, pattern: str, stage: str = "begun") -> Draw:
    """An image or a weights file that is another than when the run began. stage: one that has made use of it."""

    def draw(random: Random, project: Project) -> Fault:
        how, seed, unseen = random.choice(OF_ONE_FILE), random.random(), random.random() < 0.5
        path = random.choice(sorted((project.folder / folder).rglob(pattern)))
        kept = project.folder / f"{folder}.kept" / path.relative_to(project.folder / folder)

        def mend() -> None:
            path.write_bytes(kept.read_bytes())
            about = kept.stat()
            if unseen:
                os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))

        prepare = partial(damage, path, Random(seed), how, unseen)
        return Fault(f"{path.suffix}, {how}", stage, prepare=prepare, mend=mend)

    return draw


def request(random: Random, project: Project) -> Fault:
    """What is left of it can be a request for something else, which is no error; it goes elsewhere then."""
    how, seed = random.choice([*OF_ONE_FILE, "flip", "flip"]), random.random()
    text = project.request.read_bytes()

    def prepare() -> None:
        DAMAGES[how](project.request, Random(seed))

    mend = partial(_write, project.request, text)
    return Fault(f"request, {how}", "whole", prepare=prepare, mend=mend, asks_else=True)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


CONTENT: dict[str, Draw] = {
    **{f"stored: {how}": stored(how) for how in (*OF_ONE_FILE, "swap")},
    "stored, meanwhile": stored_meanwhile,
    "image": given("data", "*.JPEG"),
    "weights": given("weights", "model.safetensors"),
    "learned weights": given("weights", "dtem.safetensors", "whole"),
    "request": request,
}
