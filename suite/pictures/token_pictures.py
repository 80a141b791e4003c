"""Pictures of what methods make of an image's tokens, block by block: of any image file, or of a task's samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from reports.pictures.token_sheet import TokenImage, TokenPanel, write_tokens
from suite.attachment.attach import attach
from suite.backbones import backbone_of, family_of
from suite.backbones.branched import DenoiserFamily
from suite.contract.baseline import BASELINE
from suite.contract.task import ReadError, views_of
from suite.errors import RequestError, unknown
from suite.measure.flops_target import solve_rate
from suite.measure.precision import dtype_of
from suite.models.load import load_model
from suite.models.weights_file import WeightsInfo
from suite.pictures.blocks import blocks_of
from suite.pictures.mask_pictures import FIRST, KINDS
from suite.pictures.step_pictures import write_step_pictures
from suite.pictures.token_maps import TokenMaps, token_maps
from suite.rates.rate import FlopsTarget, Rate, rate_text
from suite.reducers.base import Reducer
from suite.sweep.cells import expand
from suite.sweep.methods import MethodAtRate
from suite.sweep.plan import check_base, make_task, resolve_device
from suite.sweep.spec import RunSpec, make_spec
from tasks import task_class
from tasks.generation.task import GenerationTask
from tasks.reading.images import Pictured, TimmPreprocessing, UnreadableImage, decode
from tasks.windows import SlidingWindows

DRAWING = "--task scenes-generation"
DEFAULTS = {"reducers": "tome,dtem,mctf,evit", "flops": "-50%"}


@dataclass(frozen=True)
class Seen:
    """An image as the model sees it: its name, the picture (H, W, 3) uint8, and the model's input (3, H, W)."""

    name: str
    picture: np.ndarray
    view: Tensor


def write_token_pictures(
    values: dict[str, Any],
    file: Path,
    *,
    images: Sequence[Path] = (),
    samples: Sequence[str] = (),
    blocks: str = "",
) -> list[str]:
    """Write `file`: every image under every method at every rate that `values` (the keys of RunSpec) ask for.

    images: picture files; without them, samples of the task, by id, or its first. blocks: '3,6,9,12' (from 1), 'all';
    empty: after each quarter of the depth. Returns notes, such as methods that were left out. RequestError for what
    cannot be read or drawn: methods whose tokens are mixtures, models that give tokens back after every block.
    """
    if file.suffix not in KINDS:
        raise RequestError(f"{str(file)!r}: pictures are written as {', '.join(KINDS)}; give the file such an ending")
    if images and samples:
        raise RequestError("name image files or samples of the task, not both")
    if issubclass(task_class(make_spec(values).task), GenerationTask):
        if images:
            raise RequestError("a denoiser draws its own pictures; name samples of the task in place of image files")
        return write_step_pictures(values, file, samples=samples, blocks=blocks)
    if not (values.get("reducers") or values.get("cells")):
        values = {**values, "reducers": DEFAULTS["reducers"]}
    if not (values.get("rates") or values.get("flops") or values.get("cells")):
        values = {**values, "flops": DEFAULTS["flops"]}
    spec = make_spec(values)
    methods, notes = expand(spec)
    model, weights = load_model(spec.model, spec.checkpoint, image_size=spec.image_size)
    if isinstance(family_of(model), DenoiserFamily):
        raise RequestError(f"model {spec.model!r} draws pictures; name a task that has it draw, as in {DRAWING}")
    chosen = blocks_of(blocks, family_of(model).layout(backbone_of(model)).depth)
    seen = from_files(images, model, spec) if images else from_task(samples, model, spec)
    device, dtype = resolve_device(spec.device), dtype_of(spec.precision)
    views = torch.stack([one.view for one in seen])
    model.to(device)
    maps: dict[tuple[str, ...], TokenMaps] = {}
    for method in (method for method in methods if method.reducer != BASELINE):
        check_base(method, spec, weights)
        try:
            name, found = maps_of(model, method, views.to(device), dtype)
        except RequestError as error:
            if method.named:
                raise
            notes.append(str(error))
            continue
        maps[name] = found
    if not maps:
        raise RequestError("; ".join(notes) or "no method is left to draw; name one with --reducers")
    drawn = [
        TokenImage(one.name, one.picture, [[panel(found, i, block) for block in chosen] for found in maps.values()])
        for i, one in enumerate(seen)
    ]
    write_tokens(drawn, list(maps), [f"after block {block}" for block in chosen], heading(spec, weights), file)
    return notes


def heading(spec: RunSpec, weights: WeightsInfo) -> str:
    if weights.kind == "random":
        return f"{spec.model}, random weights: groups by what an untrained model finds similar or attends to"
    return f"{spec.model}, weights: {weights.source}"


def from_files(files: Sequence[Path], model: nn.Module, spec: RunSpec) -> list[Seen]:
    """Image files, prepared as the model's own evaluation does. RequestError for one that cannot be read."""
    windows = hasattr(model, "grid_logits")
    preprocessing = (SlidingWindows if windows else TimmPreprocessing).of(model, spec.image_size)
    seen = []
    for file in files:
        try:
            views = views_of(preprocessing(decode(file.read_bytes())))
        except OSError as error:
            raise RequestError(f"image {str(file)!r} cannot be read: {error.strerror}") from error
        except UnreadableImage as error:
            raise RequestError(f"image {str(file)!r} cannot be read: {error}") from error
        seen += as_seen(file.name, views, preprocessing)
    return seen


def from_task(ids: Sequence[str], model: nn.Module, spec: RunSpec) -> list[Seen]:
    """Samples of the spec's task: those named, else the first. RequestError for one that cannot be read."""
    task = make_task(spec)
    task.check_model(model)
    task.configure(model)
    preprocessing = task.preprocessing(model, spec.image_size)
    known = {sample.id: sample for sample in task.samples}
    for id in ids:
        if id not in known:
            raise unknown(f"sample of task {spec.task!r}:", id, known)
    seen = []
    for sample in [known[id] for id in ids] or list(task.samples[:FIRST]):
        try:
            views = views_of(task.load(sample, preprocessing))
        except ReadError as error:
            raise RequestError(f"sample {sample.id!r} cannot be shown: {error}") from error
        seen += as_seen(sample.id, views, cast(Pictured, preprocessing))
    return seen


def as_seen(name: str, views: Tensor, preprocessing: Pictured) -> list[Seen]:
    """Views (V, 3, H, W) of one image; where there are several, its windows, each is shown by itself."""
    names = [name] if len(views) == 1 else [f"window {i} of {len(views)} of {name}" for i in range(1, len(views) + 1)]
    return [Seen(name, preprocessing.picture(view), view) for name, view in zip(names, views, strict=True)]


def maps_of(
    model: nn.Module, method: MethodAtRate, views: Tensor, dtype: torch.dtype
) -> tuple[tuple[str, ...], TokenMaps]:
    """A method's title, and the groups that it makes of views (B, 3, H, W), in precision `dtype`."""
    reducer, rate = method.make(), method.rate
    file = method.weights[0] if method.weights else None
    model.float()
    if isinstance(rate, FlopsTarget):
        rate = solve_rate(model, reducer, flops=rate, images=views if reducer.input_dependent else None).rate
        reducer = method.make()
    with attach(model, reducer, rate, weights=file) as handle:
        handle.detach()
        model.to(dtype)
        handle.attach()
        found = token_maps(handle, views.to(dtype))
    return title(method, reducer, rate), found


def title(method: MethodAtRate, reducer: Reducer, rate: Rate | None) -> tuple[str, ...]:
    """A method's name, what it has learned, and its rate, as asked and as it came to."""
    learned = "" if reducer.trained else f"untrained {reducer.learned}"
    if method.weights:
        source = method.weights[0]
        learned = "trained: " + ("embedded" if source.startswith("embedded:") else "/".join(Path(source).parts[-2:]))
    rates = dict.fromkeys(filter(None, map(rate_text, (method.rate, rate))))
    return tuple(filter(None, (method.reducer, learned, " → ".join(rates))))


def panel(maps: TokenMaps, image: int, block: int) -> TokenPanel:
    """Of one image after one block, from 1."""
    return TokenPanel(maps.groups(image, block - 1), int(maps.present[image, block]))
