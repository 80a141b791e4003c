"""Sessions of several machines: one file a kind of GPU, or speeds of a run's cells on GPUs that the run never saw."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.analyse.gpu.session import read_session
from suite.contract.baseline import BASELINE
from suite.errors import RequestError
from suite.store.merging.runs import Further
from suite.store.merging.timings import Timed
from suite.store.sealed import SealedFiles

Content = Mapping[str, Any]


def merge_sessions(files: Sequence[Path], out: Path, allowed: Collection[str] = ()) -> list[tuple[str, int]]:
    """Write what was measured on each kind of GPU into one file of folder `out`; their names, and of how many each is.

    allowed: 'torch' where its release may differ. RequestError for sessions of one GPU that were timed differently.
    """
    by_device: dict[str, list[tuple[Path, Content]]] = {}
    for file in files:
        content = read_session(file)
        by_device.setdefault(content["device"], []).append((file, content))
    joined = [(sessions, join_sessions(sessions, allowed)) for sessions in by_device.values()]
    for sessions, content in joined:
        SealedFiles(out).write_json(sessions[0][0].name, content)
    return [(sessions[0][0].name, len(sessions)) for sessions, _ in joined]


def join_sessions(sessions: Sequence[tuple[Path, Content]], allowed: Collection[str]) -> dict[str, Any]:
    """Of one GPU: every cell once, from the first session that could time it, with the unreduced model beside it."""
    (file, first), *others = sessions
    for other, content in others:
        for name, of in circumstances(first).items():
            if circumstances(content)[name] != of and name not in allowed:
                allow = "; allow it with --allow-different torch" if name == "torch" else ""
                raise RequestError(f"{name} is {of} in {file} and {circumstances(content)[name]} in {other}{allow}")
    timed: dict[tuple[str, ...], tuple[int, Any]] = {}
    for number, (_, content) in enumerate(sessions):
        for cell in content["cells"]:
            known = timed.get(which(cell))
            if cell["method"] != BASELINE and (known is None or (known[1]["reason"] and not cell["reason"])):
                timed[which(cell)] = (number, cell)
    groups = {(number, cell["group"]) for number, cell in timed.values()}
    places = {group: place for place, group in enumerate(sorted(groups))}
    cells = [
        {**cell, "group": places[number, cell["group"]]}
        for number, (_, content) in enumerate(sessions)
        for cell in content["cells"]
        if (number, cell["group"]) in places
        if cell["method"] == BASELINE or timed[which(cell)] == (number, cell)
    ]
    spent = {name: sum(content[name] for _, content in sessions) for name in ("took", "seconds")}
    return {**first, **spent, "cells": cells, "left_out": left_out([content for _, content in sessions], timed)}


def circumstances(content: Content) -> dict[str, Any]:
    """What has to be equal for two sessions of one GPU to stand in one table."""
    trial = content["trial"]
    return {
        "precision": trial["precision"],
        "batch size": trial["batch_size"],
        "torch": content["machine"]["packages"].get("torch"),
    }


def which(cell: Content) -> tuple[str, ...]:
    return cell["model"], cell["runtime"], cell["method"], cell["target"]


def left_out(contents: Sequence[Content], timed: Collection[tuple[str, ...]]) -> list[dict[str, Any]]:
    """What no session had time for, by stage."""
    stages: dict[tuple[str, str], dict[tuple[str, ...], Any]] = {}
    for stage in (stage for content in contents for stage in content["left_out"]):
        of = stages.setdefault((stage["model"], stage["runtime"]), {})
        for ask in stage["cells"]:
            cell = (stage["model"], stage["runtime"], ask["method"], ask["target"])
            if cell not in timed:
                of[cell] = ask
    return [
        {"model": model, "runtime": runtime, "cells": list(asks.values())}
        for (model, runtime), asks in stages.items()
        if asks
    ]


def speeds_from(content: Content) -> Further:
    """What a session knows of the speed of a run's cells: of the same model, method and rate, with random weights.

    Nothing of what is not the same forward: another image size, a method with options or with rates that it learned,
    and one whose forward depends on the image.
    """

    def known(about: dict[str, Any]) -> Timed:
        if about.get("options") or about.get("image_size") or about.get("learned") == "rates":
            return {}
        found: dict[str, list[Any]] = {}
        for cell in content["cells"]:
            same = (cell["model"], cell["method"]) == (str(about.get("model")).partition(".")[0], about.get("reducer"))
            if same and cell["trace"] and not cell["reason"] and (cell["rate"] or "") == about.get("resolved_rate"):
                found.setdefault(cell["runtime"], []).append(cell["measured"])
        runtimes = {name: middle(speeds) for name, speeds in found.items()}
        return {content["device"]: {"speed": runtimes}} if runtimes else {}

    return known


def middle(speeds: list[Any]) -> Any:
    """Of the unreduced model, which was timed in every group, that of the middle one."""
    return sorted(speeds, key=lambda speed: speed["im_s"])[len(speeds) // 2]
