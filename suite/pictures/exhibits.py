"""What a page shows beside numbers: thumbnails of the samples that cells disagree on, and token groups of a few.

Unlike the rest of a report this needs the task's data and the model. What cannot be had is named with its reason and
never keeps a report from being written.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from reports.cells import read_manifest
from reports.frame import load_frame
from reports.groups import groups
from reports.page.exhibits import CellMaps, Exhibits, read_exhibits
from reports.page.outcomes import load_outcomes
from suite.attachment.handle import Handle
from suite.contract.baseline import BASELINE
from suite.contract.task import ReadError, Sample, views_of
from suite.errors import RequestError
from suite.measure.precision import dtype_of
from suite.models.shipped import weights_path
from suite.models.weights_file import file_sha256
from suite.pictures.step_pictures import draw_with_maps, draws, shown_blocks
from suite.pictures.token_maps import token_maps
from suite.rates.rate import stored_rate
from suite.store.files import remove_orphans
from suite.store.folder import RunFolder
from suite.store.sealed import DamagedError
from suite.sweep.changes import look_again, name_samples, read_contents
from suite.sweep.methods import MethodAtRate
from suite.sweep.plan import Plan, make_plan, resolve_device
from suite.sweep.spec import make_spec
from tasks.reading.images import Pictured

THUMBNAIL, VIEW = 128, 256  # pixels, longer side
THUMBNAILS, BYTES = 400, 3_000_000  # at most; base64 makes 4 MB of it
TOKEN_SAMPLES = 4
DRAWN_SAMPLES = 2  # of pictures that are drawn, all steps of them
SAME = ("task", "samples", "weights", "image_size")  # of a run's identity: else its samples are not these


def make_exhibits(out: Path, plan: Plan | None = None) -> list[str]:
    """Make what is missing of a run's exhibits and save it; returns what could not be made, with reasons.

    plan: of the run, with its model where it was run; default: made again from what the run says of itself.
    RequestError only if `out` is not the folder of a run.
    """
    frame, old = load_frame(out), Exhibits()
    remove_orphans(out)
    try:
        old = read_stored(out)
        found = gather_exhibits(out, frame, plan or reopen_plan(RunFolder(out)), old)
        found.save(out)
    except Exception as error:  # whatever it is, a finished run must not end in it, nor lose its tables
        what = "" if isinstance(error, RequestError | OSError) else f"{type(error).__name__}: "
        reason = f"pictures and token maps cannot be made: {what}{' '.join(str(error).split())}"
        found = replace(old, missing={"pictures": reason})
        with suppress(OSError):  # a full disk is what may have been the reason
            found.save(out)
    return list(found.missing.values())


def read_stored(out: Path) -> Exhibits:
    """What was made before; what is damaged of it is set aside and made again."""
    while True:
        try:
            return read_exhibits(out)
        except DamagedError as error:
            error.put_aside()


def gather_exhibits(out: Path, frame: pd.DataFrame, plan: Plan, old: Exhibits) -> Exhibits:
    """All exhibits of a run, those of `old` that are still wanted among them."""
    outcomes, ids, differing = load_outcomes([*groups(frame)]), list(read_manifest(out)), 0
    if outcomes is not None:
        ids = [outcomes.ids[i] for i in np.argsort(-outcomes.interest, kind="stable")]
        differing = int(np.count_nonzero(outcomes.interest))
    found = Exhibits(classes=list(plan.task.class_names))
    samples = {sample.id: sample for sample in plan.task.samples}
    drawn = drawn_pictures(out, frame) if draws(plan) else {}
    take_thumbnails(plan, [samples[id] for id in ids[: min(differing, THUMBNAILS)]], drawn, old, found)
    done = list(frame.index[(frame.status == "done") & (frame.reducer != BASELINE)])
    if draws(plan):
        shown = [samples[id] for id in ids if id in drawn][:DRAWN_SAMPLES]
        found.views = {sample.id: jpeg(pixels(drawn[sample.id]), VIEW) for sample in shown}
        if shown and done:
            take_steps(plan, RunFolder(out), done, shown, old, found)
        return found
    images = take_views(plan, [samples[id] for id in ids[: 2 * TOKEN_SAMPLES]], found)
    if images is not None:
        take_maps(plan, RunFolder(out), done, images, old, found)
    return found


def drawn_pictures(out: Path, frame: pd.DataFrame) -> dict[str, bytes]:
    """What the unreduced model drew, by the ids of samples; nothing where it has not."""
    plain = frame.index[(frame.status == "done") & (frame.reducer == BASELINE)]
    if plain.empty:
        return {}
    outcomes = RunFolder(out).cell(str(plain[0])).shards.outcomes()
    return dict(zip(outcomes["id"], outcomes["picture"], strict=True)) if "picture" in outcomes else {}


def pixels(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 of a picture's file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def reopen_plan(folder: RunFolder) -> Plan:
    """The run's task and model. RequestError where they are no longer what the run was made with."""
    run = folder.read_run()
    if not run.get("identity"):
        raise RequestError("the run does not say what it was made of")
    spec = make_spec(run["spec"]).model_copy(
        update={"cells": (), "reducers": (BASELINE,), "reducer_options": {}, "reducer_weights": {}, "device": "auto"}
    )
    plan = make_plan(spec)
    for name in SAME:
        if plan.identity[name] != run["identity"][name]:
            raise RequestError(f"{name} is {plan.identity[name]!r} now and was {run['identity'][name]!r} in the run")
    _, changed = look_again(plan, read_contents(folder))
    if changed:
        raise RequestError(f"{name_samples(changed)} changed since the run")
    plan.model.to(resolve_device(spec.device), dtype_of(spec.precision))
    return plan


def take_thumbnails(
    plan: Plan, samples: Sequence[Sample], drawn: Mapping[str, bytes], old: Exhibits, into: Exhibits
) -> None:
    """Small pictures of as many of the samples, in order, as there is room for; what was drawn, where it is known."""
    room = BYTES
    for sample in samples:
        try:
            data = old.thumbnails.get(sample.id)
            if data is None:
                shown = pixels(drawn[sample.id]) if sample.id in drawn else picture_of(plan, sample)
                data = jpeg(shown, THUMBNAIL)
        except ReadError as error:
            into.missing.setdefault("thumbnails", f"no picture of {sample.id}: {error}")
            continue
        room -= len(data)
        if room < 0:
            return
        into.thumbnails[sample.id] = data


def take_views(plan: Plan, samples: Sequence[Sample], into: Exhibits) -> dict[str, Tensor] | None:
    """The first view, (3, H, W), of the first readable samples, whose tokens are to be shown."""
    preprocessing = plan.task.preprocessing(plan.model, plan.spec.image_size)
    images: dict[str, Tensor] = {}
    for sample in samples:
        if len(images) == TOKEN_SAMPLES:
            break
        try:
            images[sample.id] = views_of(plan.task.load(sample, preprocessing))[0]
        except ReadError as error:  # perhaps named already: its thumbnail cannot be made either, if there is none yet
            into.missing.setdefault("thumbnails", f"no picture of {sample.id}: {error}")
            continue
        into.views[sample.id] = jpeg(cast(Pictured, preprocessing).picture(images[sample.id]), VIEW)
    return images or None


def take_maps(
    plan: Plan, folder: RunFolder, keys: Sequence[str], images: dict[str, Tensor], old: Exhibits, into: Exhibits
) -> None:
    """Token groups of the images under every cell; cells that have none are named."""
    like = next(plan.model.parameters())
    batch = torch.stack(list(images.values())).to(like.device, like.dtype)
    reasons: dict[str, list[str]] = {}
    for key in keys:
        if key in old.maps and set(old.maps[key].owners) == set(images):
            into.maps[key] = old.maps[key]
            continue
        about = folder.cell(key).read("cell") or {}
        try:
            into.maps[key] = maps_of(plan, about, batch, list(images))
        except Exception as error:  # a method's own code may raise anything, and its page must still be written
            reasons.setdefault(" ".join(str(error).split()), []).append(f"{about['reducer']} {about['rate']}")
    name_missing(reasons, into)


def name_missing(reasons: Mapping[str, Sequence[str]], into: Exhibits) -> None:
    """Say of which cells there are no groups, by the reasons why."""
    for reason, cells in reasons.items():
        into.missing[f"tokens of {cells[0]}"] = f"no token groups of {', '.join(cells)}: {reason}"


def take_steps(
    plan: Plan, folder: RunFolder, keys: Sequence[str], samples: Sequence[Sample], old: Exhibits, into: Exhibits
) -> None:
    """Token groups of pictures, step by step, under every cell; cells that have none are named."""
    blocks, ids = shown_blocks(plan), [sample.id for sample in samples]
    reasons: dict[str, list[str]] = {}
    for key in keys:
        same = old.frames and [block for step, block in old.frames if step == old.frames[0][0]] == blocks
        if same and key in old.maps and set(old.maps[key].owners) == set(ids):
            into.maps[key], into.frames, into.steps = old.maps[key], old.frames, old.steps
            continue
        about = folder.cell(key).read("cell") or {}
        try:
            with cell_handle(plan, about) as handle:
                found = draw_with_maps(plan, handle, samples, blocks)[1]
        except Exception as error:  # as in `take_maps`
            reasons.setdefault(" ".join(str(error).split()), []).append(f"{about['reducer']} {about['rate']}")
            continue
        into.frames, into.steps = found.frames, found.of
        owners = found.owners.reshape(len(found.frames), len(ids), -1).transpose(1, 0, 2)
        tokens = np.array([found.full, *found.tokens.flatten()])
        into.maps[key] = CellMaps(found.grid, dict(zip(ids, owners, strict=True)), dict.fromkeys(ids, tokens))
    name_missing(reasons, into)


def maps_of(plan: Plan, about: dict[str, Any], images: Tensor, ids: Sequence[str]) -> CellMaps:
    """Of one cell, from what its cell.json says."""
    with cell_handle(plan, about) as handle, torch.inference_mode():
        maps = token_maps(handle, images)
        handle.forget()
    if about["planned_counts"] not in (None, maps.counts[1:].tolist()):
        raise RequestError("it leaves other numbers of tokens now than it did in the run")
    owners = np.stack(maps.owners, axis=1).astype(np.int32)
    return CellMaps(maps.grid, dict(zip(ids, owners, strict=True)), dict(zip(ids, maps.present, strict=True)))


def cell_handle(plan: Plan, about: dict[str, Any]) -> Handle:
    """Of a cell's method at its rate, from what its cell.json says. RequestError where its weights have changed."""
    weights = about["reducer_weights"]
    method = MethodAtRate(about["reducer"], stored_rate(about["rate"]), about["options"], named=True,
              weights=(weights["source"], weights["sha256"]) if weights else None)  # fmt: skip
    if weights and file_sha256(weights_path(weights["source"])) != weights["sha256"]:
        raise RequestError(f"weights {weights['source']!r} are not those of the run any more")
    return plan.handle(method, stored_rate(about["resolved_rate"]))


def picture_of(plan: Plan, sample: Sample) -> np.ndarray:
    """(H, W, 3) uint8: the sample's own image where the task has it at hand, else what the model sees."""
    image = getattr(plan.task, "image", None)
    if image is not None:
        return np.asarray(image(sample))
    preprocessing = plan.task.preprocessing(plan.model, plan.spec.image_size)
    return cast(Pictured, preprocessing).picture(views_of(plan.task.load(sample, preprocessing))[0])


def jpeg(pixels: np.ndarray, side: int) -> bytes:
    """The picture, its longer side at most `side` pixels."""
    image, data = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(data, "JPEG", quality=85 if side == THUMBNAIL else 92)
    return data.getvalue()
