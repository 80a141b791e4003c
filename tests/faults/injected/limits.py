"""Memory, files and file sizes that end."""

from __future__ import annotations

import resource
from pathlib import Path
from random import Random

from tests.faults.injected.command import Acts
from tests.faults.injected.fault import Draw, Fault, draw_stage
from tests.faults.injected.project import Project

MEMORY = (0, 6000)  # KiB more than the process has when the command begins
FILES = (6, 40)
SIZE = (0, 40_000)  # bytes of a file


def limit(kind: int, most: int) -> None:
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def memory(random: Random, project: Project) -> Fault:
    more = random.randint(*MEMORY) << 10

    def inside() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit(resource.RLIMIT_AS, pages * resource.getpagesize() + more)

    return Fault("address space", draw_stage(random), Acts(inside=inside))


def within(place: str, kind: int, bounds: tuple[int, int]) -> Draw:
    def draw(random: Random, project: Project) -> Fault:
        most = random.randint(*bounds)
        return Fault(place, draw_stage(random), Acts(inside=lambda: limit(kind, most)))

    return draw


LIMITS: dict[str, Draw] = {
    "memory": memory,
    "open files": within("process", resource.RLIMIT_NOFILE, FILES),
    "file size": within("process", resource.RLIMIT_FSIZE, SIZE),
}
