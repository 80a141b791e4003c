"""A Ray cluster: what its nodes have room for, and the workers that run there."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from suite.errors import RequestError
from suite.sweep.executors.ray.messages import About, Assignment, Broken, Event, Opened, Refused, TimeOrder
from suite.sweep.executors.ray.units import Pair, Piece
from suite.sweep.executors.ray.worker import Worker, sources_here
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec

LOOK, PATIENCE = 5.0, 60.0  # seconds between looks at the nodes; before it is said that no worker has begun
MOST_SAID = 300  # characters of a reason
TRIES = 3  # workers in a row that may die on a node before they have begun anything


@dataclass(frozen=True)
class Joined:
    """A worker is ready."""

    about: About


@dataclass(frozen=True)
class Lost:
    """A worker is dead. opened: the plans that it had made."""

    reason: str
    opened: set[int]


News = Joined | Lost | Event


@dataclass
class Member:
    """A worker as the driver knows it. told: the plans that it has heard of; opened: those of them that it has made.
    unread: events to acknowledge."""

    node: str
    actor: Any
    about: About | None = None
    told: set[int] = field(default_factory=set)
    opened: set[int] = field(default_factory=set)
    unread: int = 0


class Crew:
    """The workers of a run, as many as the nodes have room for; where one dies, or a node comes, another is started."""

    def __init__(self, spec: RunSpec, progress: Progress) -> None:
        self.progress = progress
        self.ours, self.dashboard = connect(spec.executor)
        self.kind = kind_of(spec.device)
        self.cores = cores_of(self.kind, spec.executor_cores)
        self.members: dict[int, Member] = {}
        self.refused: dict[str, str] = {}
        self._calls: dict[Any, int] = {}
        self._ids, self._failures = count(), Counter[str]()
        self._looked, self._waits_since, self._said = 0.0, time.monotonic(), False
        self.fill()

    def ready(self) -> dict[int, About]:
        """The workers that have joined."""
        return {id: member.about for id, member in self.members.items() if member.about}

    def forget(self) -> None:
        """What workers were told so far: other plans follow."""
        for member in self.members.values():
            member.told, member.opened = set(), set()

    def wait(self) -> None:
        """Until all workers that there is room for have joined, or some have and others take long."""
        since = time.monotonic()
        while not self.ready() or (len(self.ready()) < len(self.members) and time.monotonic() - since < PATIENCE):
            self.news()

    def pace(self, worker: int, spec: RunSpec) -> float:
        """Seconds that the unreduced model takes there for an image. RequestError for what cannot be done there."""
        try:
            return float(ray.get(self.members[worker].actor.pace.remote(spec.model_dump(mode="json"))))
        except RayTaskError as error:
            raise error.as_instanceof_cause() from error

    def is_free(self, worker: int) -> bool:
        """Whether it can be told something: it has answered what it was told before."""
        return self.members[worker].about is not None and worker not in self._calls.values()

    def tell(
        self,
        worker: int,
        assignments: Mapping[int, Assignment],
        orders: Sequence[Piece | TimeOrder] = (),
        dropped: Sequence[Pair] = (),
    ) -> None:
        """Give orders to a worker that is free, and ask what has happened."""
        member = self.members[worker]
        new = {order.lane: assignments[order.lane] for order in orders if order.lane not in member.told}
        member.told |= new.keys()
        call = member.actor.exchange.remote(member.unread, new, list(orders), list(dropped))
        self._calls[call], member.unread = worker, 0

    def news(self, wait: float = 1.0) -> list[tuple[int, News]]:
        """What workers have said, in the order of each; waits so many seconds for the first."""
        if time.monotonic() - self._looked > LOOK:
            self.fill()
        calls = list(self._calls)
        if not calls:
            time.sleep(wait)
            return []
        first, rest = ray.wait(calls, num_returns=1, timeout=wait)
        if rest and first:
            first += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [news for call in first for news in self._answer(call)]

    def _answer(self, call: Any) -> Iterator[tuple[int, News]]:
        worker = self._calls.pop(call)
        member = self.members[worker]
        try:
            answer = ray.get(call)
        except RayTaskError as error:
            raise error.as_instanceof_cause() from error
        except RayError as error:
            self.dismiss(worker)
            if member.about is None:
                self._start_failed(member.node, reason_of(error))
            else:
                yield worker, Lost(reason_of(error), member.opened)
            return
        if isinstance(answer, About):
            self._failures[member.node] = 0
            if (ours := sources_here()) != answer.sources:
                reason = f"it runs other sources ({answer.sources[:12]}) than are here ({ours[:12]}); install the same"
                self.refuse(member.node, reason)
                return
            member.about = answer
            yield worker, Joined(answer)
            return
        member.unread = len(answer)
        for event in answer:
            if isinstance(event, Opened):
                member.opened.add(event.lane)
            elif isinstance(event, Refused):
                self.dismiss(worker)
                self.refuse(member.node, event.reason)
                yield worker, Lost(event.reason, set())
            elif isinstance(event, Broken):
                raise RuntimeError(event.reason) if event.defect else RequestError(event.reason)
            else:
                yield worker, event

    def dismiss(self, worker: int) -> None:
        """End a worker, if it has not ended."""
        member = self.members.pop(worker)
        self._calls = {call: of for call, of in self._calls.items() if of != worker}
        ray.kill(member.actor)

    def refuse(self, node: str, reason: str) -> None:
        """Start no more workers on a node. RequestError where there is no other node."""
        host = next((each["NodeManagerHostname"] for each in ray.nodes() if each["NodeID"] == node), node)
        self.refused[node] = f"node {host!r}: {reason}"
        self.progress.note(f"no more work for {self.refused[node]}")
        for worker in [id for id, member in self.members.items() if member.node == node and not member.about]:
            self.dismiss(worker)
        self.fill()

    def fill(self) -> None:
        """Start a worker wherever there is room for one. RequestError where no node can have any."""
        self._looked = time.monotonic()
        rooms = {node: room for node, room in rooms_of(self.kind, self.cores).items() if node not in self.refused}
        if not rooms and self.refused and not self.members:
            raise RequestError("; ".join(self.refused.values()))
        there = Counter(member.node for member in self.members.values())
        for node, room in rooms.items():
            for _ in range(room - there[node]):
                self._start(node)
        if self.ready():
            self._waits_since = time.monotonic()
        elif not self._said and time.monotonic() - self._waits_since > PATIENCE:
            self._said = True
            self.progress.note(
                f"no worker has begun yet: others may have all of the cluster's {self.kind} devices; waiting for one"
            )

    def close(self) -> None:
        for worker in list(self.members):
            self.dismiss(worker)
        if self.ours:
            ray.shutdown()

    def _start(self, node: str) -> None:
        """On a node of which there is known that it has the room; it waits there while others use it."""
        on_gpu = self.kind == "cuda"
        actor = ray.remote(Worker).options(
            num_cpus=0 if on_gpu else self.cores,
            num_gpus=1 if on_gpu else 0,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.cores)}},
        )
        worker, started = next(self._ids), Member(node, actor.remote(self.kind, self.cores))
        self.members[worker] = started
        self._calls[started.actor.about.remote()] = worker

    def _start_failed(self, node: str, reason: str) -> None:
        self._failures[node] += 1
        if self._failures[node] >= TRIES:
            self.refuse(node, f"its workers die before they begin: {reason}")


def connect(executor: str) -> tuple[bool, str | None]:
    """Join the cluster that is named, else the one that this machine belongs to, else begin one here.

    Returns whether it is this process that has to leave it, and where Ray shows what it does, if it does. RequestError
    where it cannot be reached.
    """
    if ray.is_initialized():
        return False, None
    address = executor if "://" in executor else None
    try:
        context = ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray has no class of its own for it
        reason = f"executor {executor!r} cannot be reached: {' '.join(str(error).split())}"
        if "RAY_AUTH_MODE" not in os.environ:  # a client without a token is not told, but left to wait
            reason += "; where the cluster asks for its token, set RAY_AUTH_MODE=token (and RAY_AUTH_TOKEN_PATH)"
        raise RequestError(reason) from error
    return True, context.dashboard_url


def kind_of(device: str) -> str:
    """'cuda' or 'cpu': what a run's workers have. RequestError for a device by its number, which Ray gives out."""
    if device not in ("auto", "cpu", "cuda"):
        raise RequestError(f"device {device!r}: which device a worker has is Ray's to say; give cpu, cuda or auto")
    if device == "auto":
        return "cuda" if ray.cluster_resources().get("GPU") else "cpu"
    return device


def cores_of(kind: str, asked: int | None) -> int:
    """Threads of a worker, and on a CPU the cores that it has of its node: what was asked for, else as many threads as
    this process has, for these decide how sums are rounded; no more than every node has. RequestError if none has so
    many."""
    cpus = [int(node["Resources"].get("CPU", 0)) for node in living()]
    if kind == "cuda":
        gpus = [int(node["Resources"].get("GPU", 0)) for node in living()]
        return asked or max((cpu // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu), default=1) or 1
    if asked and asked > max(cpus, default=0):
        raise RequestError(f"executor_cores {asked}: no node of the cluster has so many; the largest has {max(cpus)}")
    return asked or max(1, min([torch.get_num_threads(), *filter(None, cpus)]))


def rooms_of(kind: str, cores: int) -> dict[str, int]:
    """By the node's id, how many workers it has room for."""
    found = {}
    for node in living():
        has = node["Resources"]
        room = int(has.get("GPU", 0)) if kind == "cuda" else int(has.get("CPU", 0)) // cores
        if room:
            found[node["NodeID"]] = room
    return found


def reason_of(error: RayError) -> str:
    """The last line of what Ray says, which names the cause."""
    return str(error).strip().splitlines()[-1].strip()[:MOST_SAID]


def living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
