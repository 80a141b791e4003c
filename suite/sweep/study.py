"""One run or several, as they are asked for: which there are, what they come to, and how they are executed.

The runs of a study lie in a folder of its own (`suite.store.study`), and each is what it would be if it had been asked
for by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from suite.errors import RequestError, UnavailableError, describe_error
from suite.models.load import check_model_name
from suite.store.folder import RUN, RunFolder
from suite.store.sealed import DamagedError
from suite.store.study import StudyFolder
from suite.sweep.cells import expand
from suite.sweep.engine import execute
from suite.sweep.executors.base import Executor
from suite.sweep.lane import decoded_alike
from suite.sweep.plan import Plan, make_plan
from suite.sweep.progress import Progress
from suite.sweep.requests import by_model, folder_name, requests_of
from suite.sweep.spec import SEVERAL, RunSpec, current_keys, make_spec

Found = TypeVar("Found")
OF_A_COMMAND = ("executor", "executor_cores", "timing_device")
"""Keys that are one for all runs of a command."""


@dataclass(frozen=True)
class Member:
    """One of the runs. name: of its folder in the study's, "" where it is the only run, and no study's.

    named: its model outright, not by a wildcard: what cannot be done with it is refused, not left out.
    """

    name: str
    spec: RunSpec
    named: bool = True


@dataclass(frozen=True)
class Study:
    """The runs that are asked for, and the folder that they go to."""

    out: Path
    members: tuple[Member, ...]

    @property
    def several(self) -> bool:
        return self.members[0].name != ""

    @property
    def spec(self) -> RunSpec:
        """One for what is the same in all: who does the work."""
        return self.members[0].spec

    @property
    def config(self) -> dict[str, Any]:
        """Keys and values of the specs; a list of what is not the same in all."""
        dumps = [member.spec.model_dump(mode="json") for member in self.members]
        columns = {key: [dump[key] for dump in dumps] for key in RunSpec.model_fields}
        return {key: found[0] if found.count(found[0]) == len(found) else found for key, found in columns.items()}


@dataclass
class Plans:
    """What a study comes to: a plan for every member that can be run, by the members' names.

    notes: what the weights are, and what the tasks say; skipped: what was left out; failed: members whose weights
    cannot be had, and why.
    """

    by_name: dict[str, Plan] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[str, ...]:
        """Keys of all that are asked for."""
        return tuple(key for plan in self.by_name.values() for key in plan.methods)


def make_study(values: Mapping[str, Any]) -> Study:
    """The runs that keys and values ask for: those of a RunSpec, `models` in place of `model`, and `runs`.

    RequestError, in one line, for a wrong key or value, and for runs that would lie in one folder.
    """
    values = {key: value for key, value in current_keys(dict(values)).items() if value is not None}
    if not values.keys() & set(SEVERAL):
        spec = make_spec(values)
        return Study(Path(spec.out), (Member("", spec),))
    asked = []
    for number, request in enumerate(requests_of(values)):
        try:
            asked += [(one, make_spec({**one.values, "out": ""})) for one in by_model(request)]
        except RequestError as error:
            raise RequestError(f"runs.{number}: {error}" if "runs" in values else str(error)) from error
    for key in OF_A_COMMAND:
        if len(values_of := {str(getattr(spec, key)) for _, spec in asked}) > 1:
            raise RequestError(
                f"runs are of several values of {key} ({', '.join(sorted(values_of))}); one command has one"
            )
    tasks = dict.fromkeys(spec.task for _, spec in asked)
    out = Path(values.get("out") or Path("results") / "+".join(tasks))
    members: dict[str, Member] = {}
    for one, spec in asked:
        if one.values.get("model") not in (None, "", spec.model):
            raise RequestError(f"cells are of model {spec.model!r} beside model={one.values['model']!r}; leave one out")
        usual = folder_name(f"{spec.task}-{spec.model}" if len(tasks) > 1 else spec.model)
        name = (one.values.get("out") or usual) + one.suffix
        if name in members:
            raise RequestError(
                f"two runs would lie in {str(out / name)!r}; give each of them an out, the name of a folder in "
                f"{str(out)!r}"
            )
        members[name] = Member(name, spec.model_copy(update={"out": str(out / name)}), one.named)
    return Study(out, tuple(members.values()))


def make_plans(study: Study, kind: str | None = None) -> Plans:
    """Plan every member. RequestError for whatever cannot be done, but that a model's weights cannot be had, or one
    that a wildcard names cannot be used: that costs the others nothing.

    kind: see `make_plan`.
    """
    found = Plans()
    members = [member for member in study.members if _attempt(member, found, _check)]
    if study.several:
        StudyFolder(study.out).check()
    for member in members:
        if (plan := _attempt(member, found, partial(_plan, kind=kind))) is None:
            continue
        found.by_name[member.name] = plan
        found.notes += [note for note in plan.notes if note not in found.notes]
        found.skipped += [f"{member.name}: {line}".removeprefix(": ") for line in plan.skipped]
    if not found.by_name:
        reasons = [*found.skipped, *(f"{name}: {why}" for name, why in found.failed.items())]
        raise RequestError(f"none of the models can be run: {'; '.join(reasons)}")
    if study.several:
        _check_distinct(study.out, found.by_name)
    return found


def _attempt(member: Member, found: Plans, what: Callable[[Member], Found]) -> Found | None:
    """What comes of it; None where that is among what was left out, or failed."""
    try:
        return what(member)
    except RequestError as error:
        if not member.name:
            raise
        if isinstance(error, UnavailableError):
            found.failed[member.name] = str(error)
        elif member.named:
            raise RequestError(f"{member.name}: {error}") from error
        else:
            found.skipped.append(f"{member.name}: {error}")
    return None


def _check(member: Member) -> Member:
    """RequestError for what is wrong whatever the weights are."""
    check_model_name(member.spec.model)
    expand(member.spec)
    return member


def _plan(member: Member, kind: str | None) -> Plan:
    plan = make_plan(member.spec, kind)
    if member.name:
        with suppress(DamagedError):  # made again when it is opened
            RunFolder(plan.spec.out).check(plan.identity, list(plan.methods))
    return plan


def _check_distinct(out: Path, plans: Mapping[str, Plan]) -> None:
    """RequestError for runs that are the same but for what is asked of them."""
    held = [(name, list(plan.methods)) for name, plan in plans.items()]
    for file in sorted(out.glob(f"*/{RUN}")):
        with suppress(DamagedError):  # made again when it is opened
            held.append((file.parent.name, RunFolder(file.parent).read_run()["cells"]))
    holder: dict[str, str] = {}
    for name, keys in held:
        twins = {holder.setdefault(key, name) for key in keys} - {name}
        if twins:
            raise RequestError(
                f"{name!r} and {twins.pop()!r} are the same run, of one task, data, model and precision; ask for the "
                "cells of both in one"
            )


def execute_plans(
    plans: Mapping[str, Plan], progress: Progress, executor: Executor, preview: Callable[[Path], None] | None = None
) -> Iterator[tuple[str, Plan, str]]:
    """Run every plan, and give it back with its name and, where it could not be run to its end, why.

    preview: see `execute`.

    Those whose images are prepared alike are run together, so that these are decoded once. What one raises costs no
    other its results, unless it is the only one.
    """
    for together in _alike(plans):
        at_once = len(together) > 1 and _execute_at_once(together, progress, executor, preview)
        for name, plan in together.items():
            yield name, plan, "" if at_once else _execute_one(name, plan, progress, executor, preview)
            plan.model.to("cpu")  # the next one has the device to itself


def _alike(plans: Mapping[str, Plan]) -> list[dict[str, Plan]]:
    """Those that are run together."""
    found: dict[object, dict[str, Plan]] = {}
    for name, plan in plans.items():
        # on CUDA, peak memory is what the whole process holds
        apart = name if plan.device.type == "cuda" and plan.spec.speed else ""
        found.setdefault((plan.device, decoded_alike(plan), apart), {})[name] = plan
    return list(found.values())


def _execute_at_once(
    plans: Mapping[str, Plan], progress: Progress, executor: Executor, preview: Callable[[Path], None] | None
) -> bool:
    """Whether they could be run to their end."""
    progress.note(f"together, as their images are prepared alike: {', '.join(plans)}")
    try:
        execute(list(plans.values()), progress, executor, preview)
    except Exception as error:  # whose it is shows when they are run one by one; what is stored is not done again
        progress.note(f"{', '.join(plans)} cannot be run together: {describe_error(error)}; now one by one")
        for plan in plans.values():
            plan.model.to("cpu")
        return False
    return True


def _execute_one(
    name: str, plan: Plan, progress: Progress, executor: Executor, preview: Callable[[Path], None] | None
) -> str:
    """Why it could not be run to its end, "" if it was."""
    if name:
        progress.note(f"{name}: {len(plan.methods)} cells into {plan.spec.out}")
    try:
        execute(plan, progress, executor, preview)
    except Exception as error:
        if not name:
            raise
        progress.failed(name, describe_error(error))
        return describe_error(error)
    return ""
