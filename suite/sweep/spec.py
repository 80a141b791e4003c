"""What a run is asked to do: validated, frozen, written into the results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from suite.errors import RequestError, unknown
from suite.measure.runtimes import COMPILED, EAGER, make_runtime
from suite.models.registry import default_checkpoint
from suite.models.shipped import EMBEDDED, shipped_weights
from suite.rates.rate import FlopsTarget, Rate, parse_rate, parse_target
from tasks import task_class

DEFAULT_FLOPS = tuple(map(parse_target, ("-20%", "-35%", "-50%", "-60%")))
QUICK_FLOPS = DEFAULT_FLOPS[1::2]
"""What `--quick` takes of them: on the same samples, in half the time."""
DEFAULT_REDUCERS = ("dtem", "mctf", "tofu", "tome", "evit", "etps", "topk", "random")
"""A cross-section that answers in minutes; '*' is every registered method."""
LISTS = ("reducers", "rates", "flops")
"""Keys of which all combinations are cells."""
SEVERAL = ("models", "floor_models", "floor_sides", "runs")
"""Keys of which each asks for several runs (`suite.sweep.requests`)."""
TRAINED_REDUCERS = ("mctf@embedded", "dtps", "diffrate")
"""Beside it, where the model comes with weights for them."""


def _asked(read: Callable[[str], Rate]) -> PlainValidator:
    """A field's value: a rate, or its text, which `read` reads. Raises what `read` raises."""

    def validate(value: object) -> Rate:
        if isinstance(value, Rate):
            return value
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "Input should be a valid string")
        return read(value)

    return PlainValidator(validate)


AskedRate = Annotated[Rate, _asked(parse_rate), PlainSerializer(str)]
AskedTarget = Annotated[FlopsTarget, _asked(parse_target), PlainSerializer(lambda target: target.amount)]
RuntimeName = Annotated[str, AfterValidator(lambda name: make_runtime(name).name)]
Precision = Literal["fp32", "fp16", "bf16", "tf32"]
OF_A_RUN = ("model", "precision", "runtime")
"""Keys of a cell that are one for all cells of a run."""


def listed(value: Any) -> Any:
    """A list's items, of a text 'a,b' or of what a YAML file holds."""
    if isinstance(value, str):
        value = split_list(value)
        if not value:
            raise ValueError("names nothing; leave it out for the default")
    if isinstance(value, list | tuple):
        return tuple(str(item) if isinstance(item, int | float) else item for item in value)
    return str(value) if isinstance(value, int | float) else value


class CellSpec(BaseModel):
    """One cell, asked for by itself.

    What it leaves out is the spec's own `model`, `precision` and `runtime`, and what the spec's `reducer_options` and
    `reducer_weights` say of its reducer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = ""
    reducer: str
    """A name or path/to/file.py:ClassName; 'none' is the unreduced model."""
    weights: str = ""
    """What was trained with the reducer: a file, 'embedded' or 'none'; empty: the spec's, else the model's own."""
    options: dict[str, Any] = Field(default_factory=dict)
    rate: AskedRate | None = None
    """None of the unreduced model, and of a reducer that has a schedule of its own."""
    precision: Precision | None = None
    runtime: tuple[RuntimeName, ...] = ()
    timed: bool = True
    """Whether its speed is measured where the run's is: no need of it in a cell that repeats another's work."""
    optional: bool = False
    """Left out where the reducer or the model cannot do it, as what a wildcard names is; else that is refused."""

    _listed = field_validator("runtime", mode="before")(listed)


class RunSpec(BaseModel):
    """One sweep. The same keys are the flags of `run` and the keys of its YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "scenes"
    data: str | None = None
    """Folder or archive of the task's data; None for embedded data."""
    model: str = ""
    """timm name, with or without a tag; empty: the task's default."""
    checkpoint: str = ""
    """'pretrained', 'none' (random weights), 'embedded', or a local file, of several models in it 'FILE::NAME'; empty:
    what the model comes with."""
    reducers: tuple[str, ...] = ()
    """Names, wildcards, 'training-free' (all that learn nothing), or path/to/file.py:ClassName; empty: a cross-section
    (DEFAULT_REDUCERS). The unreduced model is always measured beside them."""
    rates: tuple[AskedRate, ...] = ()
    flops: tuple[AskedTarget, ...] = ()
    """Changes of total FLOPs, such as -35%. Without rates and flops: -20, -35, -50 and -60 %."""
    reducer_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    reducer_weights: dict[str, str] = Field(default_factory=dict)
    """Reducer name -> file of what it has learned; under '' the file of the only one that learns something."""
    draw_seeds: int = Field(default=1, ge=1)
    """Seeds that a method which draws at random is scored with; all but the first are not timed."""
    task_options: dict[str, Any] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    """Samples, evenly spaced over the data; None: all."""
    leading: int | None = Field(default=None, ge=1)
    """So many samples, spread over the data, where more of them always hold those that fewer are; None: all."""
    batch_size: int = Field(default=64, ge=1)
    """Samples of a forward; where nobody says, the task's own."""
    image_size: int | None = Field(default=None, ge=1)
    cells: tuple[CellSpec, ...] = ()
    """The cells one by one, in place of what `reducers`, `rates` and `flops` come to. The unreduced model is always
    measured beside them."""
    device: str = "auto"
    precision: Precision = "fp32"
    workers: int | None = Field(default=None, ge=0)
    """Processes that decode images; None: chosen from the cores."""
    cache: str | None = None
    """Folder on a local disk where decoded pictures are kept, for later runs and other models; None: nowhere."""
    cache_size: float = Field(default=50, gt=0)
    """Gigabytes that it may come to; what came first stays."""
    allow_missing: int = Field(default=0, ge=0)
    """Unreadable images that are tolerated; every table then says 'n of N'."""
    kernels: bool = True
    """Trace what every cell would launch on a GPU, and how many bytes it would move."""
    speed: bool = True
    speed_rounds: int = Field(default=5, ge=2)
    runtime: tuple[RuntimeName, ...] = Field(default=(EAGER,), min_length=1)
    """How models are run where they are timed: 'eager', 'compiled', 'graphs'; of several, tables show the first.
    Outcomes are those of `scored_in`."""
    scored_in: RuntimeName = EAGER
    """How models are run where they are scored: of another runtime, the outcomes are those of what it made of them."""
    latency: bool = False
    """Time single images as well, in at least 100 forwards of each cell."""
    executor: str = "local"
    """Who does the work: 'local', this process; 'ray', the cluster that this machine belongs to, else one that is begun
    here; 'ray://HOST:PORT', the cluster there."""
    executor_cores: int | None = Field(default=None, ge=1)
    """Threads of a worker of a cluster, and on a CPU the cores of its node; None: as many as this process has."""
    timing_device: str | None = None
    """Part of the name of the kind of device that a cluster times on; None: the kind that most of its workers have."""
    out: str = ""

    @field_validator("executor")
    @classmethod
    def _check_executor(cls, value: str) -> str:
        if not re.fullmatch(r"local|ray|ray://[^\s/]+:\d+", value):
            raise ValueError("write local, ray or ray://HOST:PORT")
        return value

    _listed = field_validator("reducers", "rates", "flops", "runtime", mode="before")(listed)

    def completed(self) -> RunSpec:
        """With every default spelled out, so that what is stored says what was run."""
        cells = tuple(self._completed_cell(cell) for cell in self.cells)
        named = {key: {getattr(cell, key) for cell in cells} for key in OF_A_RUN}
        own = {key: values.pop() for key, values in named.items() if len(values) == 1}  # of several, a plan says it
        model = own.setdefault("model", self._model())
        checkpoint = self.checkpoint or default_checkpoint(model)
        here = checkpoint == EMBEDDED
        task = task_class(self.task)
        rates = self.rates or (() if cells or self.flops else tuple(map(parse_rate, task.default_rates)))
        trained = [name for name in TRAINED_REDUCERS if here and shipped_weights(model, name.partition("@")[0])]
        return self.model_copy(
            update={
                **own,
                "checkpoint": checkpoint,
                "cells": cells,
                "reducers": self.reducers or (() if cells else task.default_reducers or (*DEFAULT_REDUCERS, *trained)),
                "rates": rates,
                "batch_size": self.batch_size if "batch_size" in self.model_fields_set else task.default_batch_size,
                "flops": self.flops or (() if cells or rates else DEFAULT_FLOPS),
                "out": self.out
                or str(Path("results") / f"{self.task}-{Path(model).name if Path(model).is_dir() else model}"),
            }
        )

    def _model(self) -> str:
        return self.model or task_class(self.task).default_model

    def _completed_cell(self, cell: CellSpec) -> CellSpec:
        return cell.model_copy(
            update={
                "model": cell.model or self._model(),
                "options": {**self.reducer_options.get(cell.reducer, {}), **cell.options},
                "precision": cell.precision or self.precision,
                "runtime": cell.runtime or self.runtime,
            }
        )


def split_list(text: str) -> tuple[str, ...]:
    """'r=8,keep=0.7@3,6,9,r=[8,4]' -> its rates: a comma parts two items only where a name or a sign follows."""
    return tuple(part.strip() for part in re.split(r",(?=\s*(?:[^\d\s.]|\.(?!\d)))", text) if part.strip())


def is_wildcard(name: str) -> bool:
    """Whether it stands for all names that match it."""
    return any(mark in name for mark in "*?[")


def current_keys(values: dict[str, Any]) -> dict[str, Any]:
    """With the keys of today: '_' for '-', and `runtime` for what was `compile: true` or `false`. RequestError for a
    `compile` that is neither, or stands beside a runtime."""
    values = {key.replace("-", "_"): value for key, value in values.items()}
    if (flag := values.pop("compile", None)) is None:
        return values
    if not isinstance(flag, bool):
        raise RequestError(f"compile={flag!r} is not valid: write true or false, or name a runtime")
    if values.get("runtime") is not None:
        raise RequestError(f"compile={flag} stands beside runtime={values['runtime']!r}; leave compile out")
    return {**values, "runtime": COMPILED if flag else EAGER}


def make_spec(values: dict[str, Any]) -> RunSpec:
    """A completed spec from keys and values; a path may be a `pathlib.Path`. RequestError, in one line, for a wrong key
    or value."""
    values = {key: value for key, value in current_keys(values).items() if value is not None}
    values |= {key: fspath(value) for key, value in values.items() if isinstance(value, PathLike)}
    for key in SEVERAL:
        if key in values:
            raise RequestError(f"{key}={values[key]!r} are several runs, and here one is asked for; name one model")
    for key in values:
        if key not in RunSpec.model_fields:
            raise unknown("key", key, RunSpec.model_fields)
    check_cells(values)
    try:
        spec = RunSpec(**values).completed()
        json.dumps([spec.reducer_options, spec.task_options, [cell.options for cell in spec.cells]])
        return spec
    except TypeError as error:
        raise RequestError(f"an option has a value that is no text, number or truth value: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"{where}={first['input']!r} is not valid: {first['msg'].lower()}") from error


def check_cells(values: dict[str, Any]) -> None:
    """RequestError for cells beside the lists that they take the place of, and for one with a wrong key or no
    reducer."""
    cells = values.get("cells")
    if not cells or not isinstance(cells, list | tuple):
        return
    for key in LISTS:
        if values.get(key):
            raise RequestError(
                f"cells stand beside {key}={values[key]!r}; write these as cells too, or leave cells out"
            )
    for number, cell in enumerate(cells):
        if not isinstance(cell, dict):
            continue
        for key in cell:
            if key not in CellSpec.model_fields:
                raise unknown(f"key of cells.{number}:", key, CellSpec.model_fields)
        if "reducer" not in cell:
            raise RequestError(f"cells.{number}={cell!r} names no reducer; add one, such as reducer: tome")


def read_yaml(path: str) -> dict[str, Any]:
    """Keys and values of a YAML file. RequestError if it is missing or is no mapping."""
    file = Path(path)
    if not file.is_file():
        raise RequestError(f"configuration file {path!r} does not exist")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path!r} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RequestError(f"{path!r} holds no keys; write for example 'task: imagenet'")
    return {str(key): value for key, value in values.items()}
