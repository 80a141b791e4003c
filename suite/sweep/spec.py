"""What a run is asked to do: validated, frozen, written into the results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from suite.errors import RequestError, unknown
from suite.measure.runtimes import COMPILED, EAGER, make_runtime
from suite.models.registry import default_checkpoint
from suite.models.shipped import EMBEDDED, shipped_weights
from suite.rates.rate import FlopsTarget, Rate, parse_rate, parse_target
from tasks import task_class

DEFAULT_FLOPS = tuple(map(parse_target, ("-20%", "-35%", "-50%", "-60%")))
DEFAULT_REDUCERS = ("dtem", "mctf", "tofu", "tome", "evit", "etps", "topk", "random")
"""A cross-section that answers in minutes; '*' is every registered method."""
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


class RunSpec(BaseModel):
    """One sweep. The same keys are the flags of `run` and the keys of its YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "scenes"
    data: str | None = None
    """Folder or archive of the task's data; None for embedded data."""
    model: str = ""
    """timm name, with or without a tag; empty: the task's default."""
    checkpoint: str = ""
    """'pretrained', 'none' (random weights), a local file, or 'embedded'; empty: what the model comes with."""
    reducers: tuple[str, ...] = ()
    """Names, wildcards, 'training-free' (all that learn nothing), or path/to/file.py:ClassName; empty: a cross-section
    (DEFAULT_REDUCERS). The unreduced model is always measured beside them."""
    rates: tuple[AskedRate, ...] = ()
    flops: tuple[AskedTarget, ...] = ()
    """Changes of total FLOPs, such as -35%. Without rates and flops: -20, -35, -50 and -60 %."""
    reducer_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    reducer_weights: dict[str, str] = Field(default_factory=dict)
    """Reducer name -> file of what it has learned; under '' the file of the only one that learns something."""
    task_options: dict[str, Any] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    """Samples, evenly spaced over the data; None: all."""
    leading: int | None = Field(default=None, ge=1)
    """So many samples, spread over the data, where more of them always hold those that fewer are; None: all."""
    batch_size: int = Field(default=64, ge=1)
    image_size: int | None = Field(default=None, ge=1)
    device: str = "auto"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    workers: int | None = Field(default=None, ge=0)
    """Processes that decode images; None: chosen from the cores."""
    allow_missing: int = Field(default=0, ge=0)
    """Unreadable images that are tolerated; every table then says 'n of N'."""
    speed: bool = True
    speed_rounds: int = Field(default=5, ge=2)
    runtime: str = EAGER
    """How models are run where they are timed: 'eager' or 'compiled'. Outcomes are those of eager ones."""
    out: str = ""

    @field_validator("reducers", "rates", "flops", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = split_list(value)
            if not value:
                raise ValueError("names nothing; leave it out for the default")
        if isinstance(value, list | tuple):
            return tuple(str(item) if isinstance(item, int | float) else item for item in value)
        return str(value) if isinstance(value, int | float) else value

    @field_validator("runtime")
    @classmethod
    def _known(cls, value: str) -> str:
        return make_runtime(value).name

    def completed(self) -> RunSpec:
        """With every default spelled out, so that what is stored says what was run."""
        model = self.model or task_class(self.task).default_model
        checkpoint = self.checkpoint or default_checkpoint(model)
        here = checkpoint == EMBEDDED
        trained = [name for name in TRAINED_REDUCERS if here and shipped_weights(model, name.partition("@")[0])]
        return self.model_copy(
            update={
                "model": model,
                "checkpoint": checkpoint,
                "reducers": self.reducers or (*DEFAULT_REDUCERS, *trained),
                "flops": self.flops or (() if self.rates else DEFAULT_FLOPS),
                "out": self.out or str(Path("results") / f"{self.task}-{model}"),
            }
        )


def split_list(text: str) -> tuple[str, ...]:
    """'r=8,keep=0.7@3,6,9,r=[8,4]' -> its rates: a comma parts two items only where a name or a sign follows."""
    return tuple(part.strip() for part in re.split(r",(?=\s*(?:[^\d\s.]|\.(?!\d)))", text) if part.strip())


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
    """A completed spec from keys and values. RequestError, in one line, for a wrong key or value."""
    values = {key: value for key, value in current_keys(values).items() if value is not None}
    for key in values:
        if key not in RunSpec.model_fields:
            raise unknown("key", key, RunSpec.model_fields)
    try:
        spec = RunSpec(**values).completed()
        json.dumps([spec.reducer_options, spec.task_options])
        return spec
    except TypeError as error:
        raise RequestError(f"an option has a value that is no text, number or truth value: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"{where}={first['input']!r} is not valid: {first['msg'].lower()}") from error


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
