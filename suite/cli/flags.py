"""The flags of a run, which several verbs share, and how they become keys and values of a request."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from copy import copy
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from suite.cli.help import RARE
from suite.cli.values import put_option
from suite.errors import RequestError

WHAT, METHODS, HOW = "What is run", "Methods and rates", "How"


Config = Annotated[Path | None, typer.Argument(help="YAML file of flags, which flags override.", rich_help_panel=WHAT)]


def option(group: str, help: str, *names: str) -> Any:
    """A flag of a group of `--help`."""
    return typer.Option(*names, help=help, rich_help_panel=group)


def rarely(annotation: Any) -> Any:
    """The same flag, told by its name alone unless `--help-all` asks."""
    kind, told = get_args(annotation)
    made = copy(told)
    made.rich_help_panel = RARE
    return Annotated[kind, made]


FLAGS: dict[str, Any] = {
    "task": Annotated[str | None, option(WHAT, "See `list tasks`. [scenes]")],
    "data": Annotated[str | None, option(WHAT, "Folder, zip, tar or shards of the task's data.")],
    "model": Annotated[str | None, option(WHAT, "See `list models`. [the task's own]")],
    "checkpoint": Annotated[str | None, option(WHAT, "pretrained, none (random), FILE, or FILE::MODEL_IN_IT.")],
    "limit": Annotated[int | None, option(WHAT, "Samples, evenly spaced over the data. [all]")],
    "reducers": Annotated[str | None, option(METHODS, "Names, NAME@FILE, wildcards, FILE.py:Name. [several]")],
    "rates": Annotated[str | None, option(METHODS, "r=13, r=16:-1, r=[16,8], keep=0.7, keep=0.7@3,6,9.")],
    "flops": Annotated[str | None, option(METHODS, "Changes of total FLOPs: --flops=-35%,-50%.")],
    "reducer_file": Annotated[list[str] | None, option(RARE, "path/to/file.py:Name, beside --reducers.")],
    "reducer_weights": Annotated[
        list[str] | None, option(RARE, "FILE, FILE::MODEL_IN_IT or NAME=…: what a reducer learned.")
    ],
    "reducer_option": Annotated[list[str] | None, option(METHODS, "NAME.OPTION=VALUE, repeatable.")],
    "draw_seeds": Annotated[int | None, option(RARE, "Seeds of methods that draw at random, as random does. [1]")],
    "task_option": Annotated[list[str] | None, option(WHAT, "OPTION=VALUE, repeatable.")],
    "classes": Annotated[str | None, option(RARE, "all: of --task-option classes=all (imagenet).")],
    "batch_size": Annotated[int | None, option(HOW, "Images in a batch. [64; 16 drawn]")],
    "image_size": Annotated[int | None, option(RARE, "Side in pixels. [the model's own]")],
    "device": Annotated[str | None, option(HOW, "cpu, cuda, cuda:1 or auto. [auto]")],
    "precision": Annotated[str | None, option(HOW, "fp32, fp16, bf16, or tf32 (CUDA). [fp32]")],
    "workers": Annotated[int | None, option(RARE, "Processes that decode images.")],
    "cache": Annotated[str | None, option(RARE, "Folder on a local disk that keeps decoded pictures. [none]")],
    "cache_size": Annotated[float | None, option(RARE, "Gigabytes that it may come to. [50]")],
    "allow_missing": Annotated[int | None, option(RARE, "Unreadable images to tolerate. [0]")],
    "kernels": Annotated[
        bool | None, option(RARE, "Trace launches and bytes of a GPU. [kernels]", "--kernels/--no-kernels")
    ],
    "speed": Annotated[bool | None, option(HOW, "Measure im/s and memory. [speed]", "--speed/--no-speed")],
    "speed_rounds": Annotated[int | None, option(RARE, "Rounds that interleave all cells. [5]")],
    "runtime": Annotated[str | None, option(HOW, "How it is timed: eager,compiled,onnxruntime. [eager]")],
    "scored_in": Annotated[str | None, option(RARE, "The runtime that outcomes are made in. [eager]")],
    "compile": Annotated[bool | None, option(RARE, "Like --runtime compiled, eager.", "--compile/--eager")],
    "latency": Annotated[bool | None, option(RARE, "Time single images, too. [no]", "--latency/--no-latency")],
    "executor": Annotated[str | None, option(RARE, "local, ray or ray://HOST:PORT. [local]")],
    "executor_cores": Annotated[int | None, option(RARE, "Threads of a Ray worker. [as here]")],
    "timing_device": Annotated[str | None, option(RARE, "Kind of device that Ray times on. [of most workers]")],
    "out": Annotated[str | None, option(HOW, "Folder of the results. [results/TASK-MODEL]")],
}
MODELS = Annotated[str | None, option(WHAT, "Several, with wildcards: 'deit_*'. A run each.")]
FLOOR_MODELS = Annotated[str | None, option(RARE, "Smaller models to see beside, unreduced: deit_tiny_patch16_224.")]
FLOOR_SIDES = Annotated[str | None, option(RARE, "Smaller sides that images are decoded at, to see beside: 176,160.")]
APART = {"model", "models"}  # a flag for one of them takes the place of the configuration's other


def asked(config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Keys and values of a request: the YAML file's, overridden by the flags that were given."""
    from suite.sweep.requests import requests_of
    from suite.sweep.spec import current_keys, read_yaml

    values = current_keys(read_yaml(str(config)) if config else {})
    if values.get("runs") is None:
        return overridden(values, flags)
    own = {key: value for key, value in flags.items() if key != "out"}
    return {"runs": [overridden(run, own) for run in requests_of(values)], "out": flags.get("out") or values.get("out")}


def overridden(values: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Keys and values of one entry of a configuration, with the flags."""
    from suite.sweep.spec import DEFAULT_REDUCERS, current_keys, split_list

    if isinstance(values.get("reducer_weights"), str):
        values["reducer_weights"] = {"": values["reducer_weights"]}
    for key in ("reducer_options", "task_options", "reducer_weights"):
        if not isinstance(values.get(key) or {}, dict):
            raise RequestError(f"{key}: {values[key]!r} in the configuration holds no keys; write NAME: VALUE below it")
    given = current_keys({key: value for key, value in flags.items() if value is not None})
    values = {key: value for key, value in values.items() if key not in APART or not given.keys() & APART}
    if classes := given.pop("classes", None):
        given["task_option"] = [*given.get("task_option", ()), f"classes={classes}"]
    for flag, key, depth in (("reducer_option", "reducer_options", 2), ("task_option", "task_options", 1)):
        for text in given.pop(flag, None) or []:
            values[key] = values.get(key) or {}
            put_option(values[key], text, depth, f"--{flag.replace('_', '-')}")
    for text in given.pop("reducer_weights", None) or []:
        name, _, file = text.rpartition("=")
        values["reducer_weights"] = {**(values.get("reducer_weights") or {}), name: file}
    if files := given.pop("reducer_file", None):
        listed = given.get("reducers") or values.get("reducers") or DEFAULT_REDUCERS
        given["reducers"] = [*(split_list(listed) if isinstance(listed, str) else listed), *files]
    return {**values, **given}


def with_flags(frequent: Collection[str] = (), **own: Any) -> Any:
    """Gives a command the flags of a run, and its own, so that commands cannot drift apart.

    frequent: those of a run that its `--help` describes, if not the usual ones.
    """
    run = {name: told if not frequent or name in frequent else rarely(told) for name, told in FLAGS.items()}
    parameters = [inspect.Parameter("config", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Config)]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (run | own).items()
    ]

    def decorate(command: Any) -> Any:
        command.__signature__ = inspect.Signature(parameters)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate
