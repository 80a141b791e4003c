"""One update of any recipe on a tiny model of any kind of task, in float64 and with layers that draw nothing.

As a program, under torchrun: the gradients of every case, as several processes find them together, into a file; and a
training from request to file, into a folder.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import torch
from taught import make_captioner, make_classifier, make_segmenter
from torch import nn

from suite.sweep.progress import Progress
from suite.train.examples import Order, parts, read
from suite.train.fit import Fit
from suite.train.recipe import REGISTERED, list_recipes, make_recipe
from suite.train.run import Request, train_method
from suite.train.session import Session
from tasks.reading.masks import IGNORED
from tasks.scenes.captions import ScenesCaption
from tasks.scenes.classes import Scenes
from tasks.scenes.masks import ScenesSeg

BATCH = 4
UPDATED = [method for method in list_recipes() if not REGISTERED[method].measured_by]
CASES = [(method, kind) for method in UPDATED for kind in REGISTERED[method].kinds]
PLAIN = {"crop": False, "mixup": 0, "cutmix": 0, "drop_path": 0, "repeated": 1, "amp": False, "steps": 1, "clip": None}
SURE = {
    "mctf": {"gate": 0.02},  # two of the four images pass it
    "prune_and_merge": {"score_batches": 2, "score_batch_size": 3},
}


class PartlyLabelled(ScenesSeg):
    """Masks in which the n-th scene has no class in n quarters of its rows."""

    def read_truth(self, sample):
        truth = super().read_truth(sample).copy()
        truth[: self.samples.index(sample) * len(truth) // BATCH] = IGNORED
        return truth


def make_session(method: str, kind: str, **settings) -> Session:
    if kind == "classification":
        task = Scenes(split="train", scenes=BATCH)
        model = make_classifier(task.num_classes)
    elif kind == "captioning":
        task = ScenesCaption(split="train", scenes=BATCH)
        model = make_captioner(task)
    else:
        task = PartlyLabelled(split="train", scenes=BATCH)
        model = make_segmenter(task.num_classes)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain = PLAIN if method in UPDATED else {}
    recipe = make_recipe(method, **{**plain, **SURE.get(method, {}), **settings})
    return Session(task, model.double(), recipe, torch.device("cpu"))


@contextmanager
def float64_without_draws():
    """Images are read as float64, and masks are the likeliest ones."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with patch("torch.nn.functional.gumbel_softmax", torch.softmax):
            yield
    finally:
        torch.set_default_dtype(before)


@float64_without_draws()
def update(method: str, kind: str, *, accumulate: int = 1, world: int = 1, rank: int = 0) -> SimpleNamespace:
    """What one update notes, and the gradients that it followed."""
    session = make_session(method, kind, accumulate=accumulate, batch_size=BATCH // world)
    fit = Fit(session, {}, world=world, rank=rank)
    fit.start(0)
    noted = fit.update(0)
    del noted["images_per_s"]
    gradients = {name: value.grad for name, value in session.trained.items() if value.grad is not None}
    return SimpleNamespace(noted=noted, gradients=gradients)


@float64_without_draws()
def terms(method: str, kind: str) -> list[int]:
    """What the recipe's means are over, sample by sample."""
    session = make_session(method, kind, batch_size=BATCH)
    batch = next(read(session.objective, Order(BATCH, session.recipe), 0, workers=0))
    pieces = parts(session.objective.prepare(batch), BATCH)
    return [int(session.recipe.terms(session, part, 0)) for part in pieces]


def distance(one: dict, other: dict) -> float:
    """Norm of the difference of two sets of gradients, as a share of the norm of the first."""
    assert one.keys() == other.keys()
    first, second = (torch.cat([values[name].flatten() for name in one]) for values in (one, other))
    return ((first - second).norm() / first.norm()).item()


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    found = {case: update(*case, world=world, rank=rank).gradients for case in CASES}
    if rank == 0:
        torch.save(found, sys.argv[1])
    request = Request("dtem", limit=8, workers=0, device="cpu", out=sys.argv[2])
    train_method(request, {"batch_size": 2, "steps": 1}, Progress(quiet=True))
    torch.distributed.destroy_process_group()
