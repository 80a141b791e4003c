"""Which cells are timed in which order, and how the minutes are spent on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from suite.contract.baseline import BASELINE
from suite.measure.runtimes import COMPILED, EAGER
from suite.reducers import list_reducers, reducer_class

GRAPHS = "graphs"
SMALL, BASE = "deit_small_patch16_224", "deit_base_patch16_224"
FIRST = ("tome", "evit", "topk", "dtem", "pitome", "mctf", "tofu", "diffrate")
"""Methods that others are compared with most: what there is time for begins with them."""


@dataclass(frozen=True)
class Stage:
    """A model under a runtime. until: share of the time after which the next stage begins, done or not."""

    model: str
    runtime: str
    until: float


STAGES = (
    # Of ten minutes. A cell takes 1 to 2 s of one processor to find its rate and follow its kernels, once a model, and
    # about 1.5 s of the GPU: warm-up, three blocks of 0.1 s, memory, and asking nvidia-smi after every block. Compiling
    # takes 20 to 60 s a cell, so that there is time for a few; what a stage leaves undone is gone on with at the end.
    Stage(SMALL, EAGER, 0.44),  # 264 s: 76 cells and their kernels
    Stage(SMALL, GRAPHS, 0.64),  # 120 s: 68 cells
    Stage(SMALL, COMPILED, 0.86),  # 132 s: 2 or more
    Stage(BASE, EAGER, 0.95),  # 54 s, and what compiling leaves: as many as that is enough for, and their kernels
    Stage(BASE, GRAPHS, 1.0),
    Stage(BASE, COMPILED, 1.0),
)
GROUP = {COMPILED: 2}
"""Cells that are timed in the same rounds, with the unreduced model among them; of other runtimes OTHERS."""
OTHERS = 7
ROUGH_S = {COMPILED: 45.0}
"""Seconds that a cell, or the unreduced model, takes in all; what it took is gone by as soon as it is known."""
ROUGHLY_S = 3.0


@dataclass(frozen=True)
class Ask:
    """A cell of a stage. target: such as 'flops=-35%'."""

    method: str
    target: str


@dataclass(frozen=True)
class Trial:
    """What is timed and how: see `suite.measure.speed`. Blocks are short, for the time is."""

    stages: Sequence[Stage] = STAGES
    methods: Sequence[str] = ()
    targets: Sequence[str] = ("flops=-35%", "flops=-50%")
    batch_size: int = 256
    precision: str = "bf16"
    rounds: int = 3
    block_s: float = 0.1
    warmup_s: float = 0.3

    def cells(self, stage: Stage) -> list[Ask]:
        """The most informative first. A graph is of one shape: no method is of it whose counts follow the image."""
        methods = [
            method
            for method in self.methods or ordered_methods()
            if not (stage.runtime == GRAPHS and reducer_class(method).input_dependent)
        ]
        return [Ask(method, target) for target in self.targets for method in methods]


def ordered_methods() -> list[str]:
    """All that are registered, `FIRST` first."""
    every = [name for name in list_reducers() if name != BASELINE]
    return sorted(every, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


@dataclass
class Schedule:
    """Groups of cells of one stage, one after the other while there is time. left: what nobody has been given yet."""

    trial: Trial
    seconds: float
    now: Callable[[], float] = time.monotonic
    left: dict[Stage, list[Ask]] = field(init=False)

    def __post_init__(self) -> None:
        self.left = {stage: self.trial.cells(stage) for stage in self.trial.stages}

    def groups(self) -> Iterator[tuple[Stage, list[Ask]]]:
        """Whoever takes a group has been busy with it until the next is asked for. None is begun that is not expected
        to be done in time, by how long the stage's last one took."""
        start, took = self.now(), dict.fromkeys(self.trial.stages, 0.0)
        for share in ("the stage's", "all"):
            for stage, waiting in self.left.items():
                end = start + self.seconds * (stage.until if share == "the stage's" else 1)
                while waiting:
                    group, began = waiting[: GROUP.get(stage.runtime, OTHERS)], self.now()
                    variants = len(group) + 1  # the unreduced model
                    if began + variants * (took[stage] or ROUGH_S.get(stage.runtime, ROUGHLY_S)) > end:
                        break
                    del waiting[: len(group)]
                    yield stage, group
                    took[stage] = (self.now() - began) / variants
