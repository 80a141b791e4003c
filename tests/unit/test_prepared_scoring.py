"""A task's scorer may start beside the forwards: before the first of them, and where there is something to score."""

from __future__ import annotations

from contextlib import contextmanager

from suite.api import run
from suite.sweep.progress import Progress
from tasks.imagenet.task import ImageNet


def test_scoring_is_prepared_before_the_forwards_and_only_where_scores_are_missing(tiny_run, monkeypatch):
    seen = []

    @contextmanager
    def prepare(task):
        seen.append("prepared")
        yield
        seen.append("left")

    def noted(name):
        method = getattr(ImageNet, name)

        def called(*arguments):
            seen.append(name)
            return method(*arguments)

        return called

    monkeypatch.setattr(ImageNet, "prepare_scoring", prepare)
    for name in ("measure", "summaries"):
        monkeypatch.setattr(ImageNet, name, noted(name))
    results = run(tiny_run, progress=Progress(quiet=True), report=False)
    assert not results.failed
    assert list(dict.fromkeys(seen)) == ["prepared", "measure", "summaries", "left"]
    assert seen.count("prepared") == 1
    seen.clear()
    run(tiny_run, progress=Progress(quiet=True), report=False)
    assert "prepared" not in seen
    (sorted((results.out / "cells").iterdir())[0] / "scores.json").unlink()
    run(tiny_run, progress=Progress(quiet=True), report=False)
    assert seen[-3:] == ["prepared", "summaries", "left"]
