"""From a spec to cells: names, wildcards, rates and FLOPs targets resolved before anything runs."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.attachment.attach import attach
from suite.attachment.checks import check_class_token
from suite.attachment.handle import Handle
from suite.attachment.reducer_weights import about
from suite.backbones import backbone_of, family_of
from suite.contract.choice import spread
from suite.contract.task import Sample, Task
from suite.errors import RequestError, describe_error, unknown
from suite.measure.flops_target import search_of
from suite.measure.precision import check_precision, tf32_setting
from suite.measure.rate_search import Search, Solved
from suite.measure.runtimes import EAGER, make_runtime, make_runtimes
from suite.models.load import load_model, sources_of
from suite.models.shipped import weights_path
from suite.models.weights_file import WeightsInfo
from suite.rates.rate import FlopsTarget, Rate, rate_text
from suite.reducers import reducer_class
from suite.reducers.base import Reducer
from suite.store.folder import RunFolder
from suite.store.repair import set_aside_damaged
from suite.store.sources import digest_sources
from suite.sweep.answers import check_scored_in
from suite.sweep.cached import check_cache
from suite.sweep.cells import expand
from suite.sweep.launch import launched
from suite.sweep.methods import MethodAtRate
from suite.sweep.spec import RunSpec
from tasks import task_class

VERSIONS = ("torch", "timm")
RUNNING = ("suite.sweep.engine", "suite.sweep.timing")  # what runs a cell; by name, as they stand above this module


@dataclass
class Plan:
    """What a spec comes to.

    device: this process' own; the CPU where only others have the kind that the run is on. methods: by the keys of their
    cells. skipped: pairs that were left out, and why. notes: what the weights are, and what the task says.
    """

    spec: RunSpec
    task: Task
    model: nn.Module
    weights: WeightsInfo
    identity: dict[str, Any]
    device: torch.device
    notes: list[str] = field(default_factory=list)
    methods: dict[str, MethodAtRate] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    searches: dict[str, Search] = field(default_factory=dict)

    def describe(self, key: str) -> dict[str, Any]:
        """The content of the cell's cell.json before its rate is resolved."""
        method, spec, layout = self.methods[key], self.spec, family_of(self.backbone).layout(self.backbone)
        reducer = method.make()
        return {
            "key": key,
            "task": spec.task,
            "model": spec.model,
            "weights": self.weights.source,
            "weights_kind": self.weights.kind,
            "reducer": method.reducer,
            "options": method.options,
            "learned": reducer.learned if method.weights or not reducer.trained else None,
            "reducer_weights": method.weights and described(*method.weights),
            "formulation": reducer.formulation,
            "restore": getattr(self.model, "restore", None),
            "rate": rate_text(method.rate),
            "resolved_rate": None,
            "solved_reduction": None,
            "neighbours": [],
            "precision": spec.precision,
            "batch_size": spec.batch_size,
            "image_size": spec.image_size,
            "depth": layout.depth,
            "tokens_in": layout.tokens,
            "planned_counts": None,
        }

    def resolve(self, key: str, images: Callable[[], Tensor]) -> dict[str, Any]:
        """What cell.json says once the rate is resolved. RequestError if a FLOPs target cannot be reached.

        `images` gives (B, 3, H, W) preprocessed samples, for methods whose cost depends on the image.
        """
        method = self.methods[key]
        rate = method.rate
        found: dict[str, Any] = {}
        if isinstance(rate, FlopsTarget):
            solved = self.solve(method, rate, images)
            rate = solved.rate
            found["solved_reduction"] = solved.reduction
            found["neighbours"] = [[str(neighbour), reduction] for neighbour, reduction in solved.neighbours]
        planned = self.handle(method, rate).planned_counts
        return {"resolved_rate": rate_text(rate), **found, "planned_counts": planned}

    def rate_of(self, key: str, images: Callable[[], Tensor]) -> Rate | None:
        """The rate that a cell runs at. `images` and errors as in `resolve`."""
        rate = self.methods[key].rate
        return self.solve(self.methods[key], rate, images).rate if isinstance(rate, FlopsTarget) else rate

    def solve(self, method: MethodAtRate, target: FlopsTarget, images: Callable[[], Tensor]) -> Solved:
        """What a target comes to with a method. `images` and errors as in `resolve`."""
        return self.search(method, images).solve(target.change)

    def search(self, method: MethodAtRate, images: Callable[[], Tensor]) -> Search:
        """One search serves all FLOPs targets of a method, and counts no rate twice."""
        whose = json.dumps([method.reducer, method.options, method.weights], sort_keys=True)
        if whose not in self.searches:
            reducer = method.make()
            self.searches[whose] = search_of(self.model, reducer, images() if reducer.input_dependent else None)
        return self.searches[whose]

    def handle(self, method: MethodAtRate, rate: Rate | None) -> Handle:
        """A detached handle of the plan's model. rate: the method's own, or what that came to."""
        weights = method.weights[0] if method.weights else None
        handle = attach(self.model, method.make(), rate, weights=weights)
        handle.detach()
        return handle

    @property
    def batches(self) -> list[Sequence[Sample]]:
        """The samples, then what supports them, as many at a time as one forward sees."""
        size = self.spec.batch_size
        kinds = (self.task.samples, self.task.support)
        return [kind[i : i + size] for kind in kinds for i in range(0, len(kind), size)]

    @property
    def backbone(self) -> nn.Module:
        """What reducers are attached to: the model itself, or its encoder."""
        return backbone_of(self.model)

    def open_folder(self) -> tuple[RunFolder, list[str]]:
        """The run's folder, made or continued, with its manifest, and what was wrong with it and is set aside.

        RequestError if it holds another run.
        """
        folder, samples = RunFolder(self.spec.out), self.task.samples
        slots = {key: method.slot for key, method in self.methods.items()}
        notes = folder.open(
            self.spec.model_dump(mode="json"), self.identity, list(self.methods), slots, self.task.shown
        )
        ids = [sample.id for sample in samples]
        cells = dict.fromkeys([*self.methods, *folder.logged_cells()])
        notes += set_aside_damaged(folder, list(cells), self.task.outcomes)
        notes += folder.write_manifest(ids, [sample.label for sample in samples])
        notes += folder.join_logs(ids, [sample.id for sample in self.task.support])
        return folder, notes


def make_plan(spec: RunSpec, kind: str | None = None, scored: bool = True) -> Plan:
    """Load the task and the model, and resolve what is asked of them. RequestError for whatever cannot be done.

    kind: of the devices that the cells run on ('cpu' or 'cuda'), where these are others than this process' own.
    scored: False of what is only timed: the task lends its pictures to models whose outputs are not its classes, too.
    """
    methods, skipped = expand(spec)
    device = torch.device(kind) if kind else resolve_device(spec.device)
    if device.type != "cuda" or torch.cuda.is_available():  # else those who have one say what it cannot do
        make_runtimes([*spec.runtime, spec.scored_in], device)
        check_precision(spec.precision, device)
    task = make_task(spec)
    model, weights = load_model(spec.model, spec.checkpoint, image_size=spec.image_size)
    check_scored_in(spec.scored_in, model)
    try:
        task.check_model(model)
    except RequestError:
        if scored:
            raise
    else:
        task.configure(model)
    backbone = backbone_of(model)
    family = family_of(backbone)
    identity = {
        "task": spec.task,
        "task_options": spec.task_options,
        "protocol": task.protocol(),
        "data": str(Path(spec.data).resolve()) if spec.data else None,
        "samples": f"{len(task.samples)} ({digest([[s.id, s.label] for s in task.forwarded])[:12]})",
        "model": spec.model,
        "weights": weights.sha256,
        "image_size": spec.image_size,
        "precision": spec.precision,
        "batch_size": spec.batch_size,
        "device": device.type,
        # torch's own setting goes without saying: earlier runs say nothing
        **({} if spec.scored_in == EAGER else {"scored_in": spec.scored_in}),
        "tf32": tf32_setting() if device.type == "cuda" and tf32_setting() != "convolutions" else None,
        **{name: version(name) for name in VERSIONS},
    }
    parts = [type(task).__module__, *sources_of(spec.model, model)]
    if spec.scored_in != EAGER:
        parts.append(type(make_runtime(spec.scored_in)).__module__)
    shared = digest_sources([*RUNNING, *parts])
    # wherever the data lie: runs of several machines can be merged, and what the files hold is known sample by sample
    decisive = {name: value for name, value in identity.items() if name != "data"}
    notes = [*weights.notes, *task.notes, *check_cache(spec, task, task.preprocessing(model, spec.image_size))]
    here = device if device.type != "cuda" or torch.cuda.is_available() else torch.device("cpu")
    plan = Plan(spec, task, model, weights, identity, here, notes=notes, skipped=skipped)
    for method in methods:
        check_base(method, spec, weights)
        try:  # what the model cannot do is a bad request, said before the run
            if isinstance(method.rate, FlopsTarget):
                reducer = method.make()
                check_class_token(reducer, family.layout(backbone))
                if method.weights:  # a file that does not fit is refused before the run
                    search = search_of(model, reducer)
                    plan.handle(method, search.rate(search.strongest()))
            else:
                plan.handle(method, method.rate)
        except RequestError as error:
            if method.named:
                raise
            plan.skipped.append(str(error))
            continue
        except Exception as error:  # whatever the method's own code raises is reported against it
            raise RequestError(
                f"reducer {method.reducer!r} cannot be planned at {rate_text(method.rate)}: {describe_error(error)}"
            ) from error
        learned = [method.weights[1]] if method.weights else []
        key = digest([decisive, method.slot, *learned, shared, source_of(method.reducer)])[:16]
        plan.methods[key] = method
    if len(plan.methods) == 1 and len(methods) > 1:
        raise RequestError(plan.skipped[-1])
    return plan


def check_base(method: MethodAtRate, spec: RunSpec, weights: WeightsInfo) -> None:
    """RequestError for what was trained with another model, or brings tensors of one with other weights."""
    if not method.weights:
        return
    of = about(weights_path(method.weights[0]))
    if of.get("model", spec.model) != spec.model:
        raise RequestError(
            f"weights {method.weights[0]!r} of {method.reducer!r} were trained with model {of['model']!r}, "
            f"not {spec.model!r}"
        )
    if of.get("recipe", {}).get("backbone") and of.get("weights_sha256") != weights.sha256:
        raise RequestError(
            f"weights {method.weights[0]!r} of {method.reducer!r} bring parts of the backbone, trained from "
            f"{of.get('weights', 'other weights')}; here it has {weights.source}: give that checkpoint, or train again"
        )


def described(source: str, sha256: str) -> dict[str, str]:
    """What a cell says of weights: from where they are and, of a training by the suite, a digest of all that decided it
    but the seed, and that."""
    found, of = {"source": source, "sha256": sha256}, about(weights_path(source))
    recipe = dict(of.get("recipe", {}))
    if (seed := recipe.pop("seed", None)) is not None:
        found |= {"training": digest({**of, "recipe": recipe})[:12], "seed": str(seed)}
    return found


def resolve_device(name: str) -> torch.device:
    """'auto', 'cpu', 'cuda', 'cuda:1', ... RequestError for a device that is not here.

    Of several processes that torchrun starts, each has a GPU of its own, as far as there are.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and launched().world > 1 and torch.cuda.is_available():
        name = f"cuda:{launched().local % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RequestError(f"device {name!r} cannot be used here; use cpu, cuda or auto") from error
    return device


def make_task(spec: RunSpec) -> Task:
    """The spec's task on the spec's data. RequestError for unknown options and unusable data."""
    cls = task_class(spec.task)
    known = set(inspect.signature(cls).parameters) - {"data", "limit"}
    for option in spec.task_options:
        if option not in known:
            raise unknown(f"option of task {spec.task!r}:", option, known or {"none"})
    task = cls(spec.data, spec.limit, **spec.task_options)
    if spec.leading is not None:
        task.samples = spread(task.samples)[: spec.leading]
    return task


def source_of(reducer: str) -> str:
    """Hash of the code that decides a method's numbers beside what all methods of a run share.

    A method that has changed since is another cell.
    """
    return digest_sources({cls.__module__ for cls in reducer_class(reducer).__mro__ if issubclass(cls, Reducer)})


def source_of_runtime(name: str) -> str:
    """Hash of the code that decides how models are run under a runtime."""
    return digest_sources([type(make_runtime(name)).__module__])


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
