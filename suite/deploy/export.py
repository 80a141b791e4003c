"""A reduced model as a checked file, with a card that says what it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from suite.deploy.agreement import Agreement, compare_logits, is_right
from suite.deploy.card import make_card
from suite.deploy.subject import Subject
from suite.errors import RequestError
from suite.formats import check_format, make_format
from suite.formats.base import COMPUTED_IN, INT8, Format, in_turns
from suite.formats.program import DYNAMIC, export_dynamic, export_program
from suite.store.files import write_json

FAILED = "failed-check"
"""Part of the name of a file that says something else than the model."""


@dataclass(frozen=True)
class Shape:
    """How it is exported. batch: None is any size. samples: it is checked with; calibration: it is quantised by.
    bound: on the relative difference of logits; None: that of the precision."""

    batch: int | None = 1
    precision: str = "fp32"
    samples: int = 64
    calibration: int = 128
    bound: float | None = None

    @property
    def said_batch(self) -> int | str:
        return DYNAMIC if self.batch is None else self.batch


@dataclass(frozen=True)
class Exported:
    """file: what a runtime opens. card: of it. agreement: of the check."""

    file: Path
    card: Path
    agreement: Agreement
    accuracy: dict[str, Any] | None


def export(subject: Subject, name: str, shape: Shape, out: Path, threads: int | None = None) -> Exported:
    """Write the file of format `name` and its card into `out`, and check it with pictures of the subject's task.

    A file that fails its check is kept under a name that says so. RequestError, one line, for what cannot be exported.
    """
    made = make_format(name)
    check_format(made, shape.precision)
    images, samples = subject.pictures(shape.samples)
    expected = subject.logits(images).numpy()
    if expected.ndim != 2:
        raise RequestError(f"model {subject.spec.model!r} gives no logits (B, classes), so that it cannot be exported")
    out.mkdir(parents=True, exist_ok=True)
    stem = file_stem(subject, shape)
    for stale in (*out.glob(f"{stem}.*"), *out.glob(f"{stem}.{FAILED}.*")):
        if stale.suffix in (made.suffix, ".json", ".bin"):
            stale.unlink()
    files = write_file(subject, made, images, shape, out / f"{stem}{made.suffix}")
    session = made.open(files[0], threads or torch.get_num_threads())
    found = in_turns(session, images.numpy(), shape.batch or min(8, len(images)))
    agreement = compare_logits(found, expected, shape.precision, subject.weights.kind == "trained", shape.bound)
    accuracy = accuracy_of(subject, found, expected, [sample.label for sample in samples])
    if not agreement.passed:
        files = [mark_failed(file, stem) for file in files]
    card = files[0].with_suffix(".json")
    told = {name: None if value == np.inf else value for name, value in asdict(agreement).items()}
    check = {**told, "passed": agreement.passed}
    write_json(card, make_card(subject, made, shape, files, list(images.shape[1:]), expected.shape[1], check, accuracy))
    return Exported(files[0], card, agreement, accuracy)


def write_file(subject: Subject, made: Format, images: torch.Tensor, shape: Shape, file: Path) -> list[Path]:
    """The files of the subject in a format. RequestError in one line, with what the exporter says where it fails."""
    dtype = COMPUTED_IN[shape.precision]
    calibration = subject.calibration(shape.calibration) if shape.precision == INT8 else None
    handle = subject.handle
    if handle is not None:
        handle.attach()
    try:
        if shape.batch is None:
            program = export_dynamic(subject.model, images, dtype)
        else:
            example = images[:1].expand(shape.batch, -1, -1, -1).contiguous()
            program = export_program(subject.model, example, dtype)
    finally:
        if handle is not None:
            handle.detach()
    return made.write(program, file, calibration)


def file_stem(subject: Subject, shape: Shape) -> str:
    """'deit_tiny_patch16_224-tome-r=13-b1-fp32': what any file system takes."""
    rate = str(subject.handle.rate) if subject.handle and subject.handle.rate else ""
    batch = "any" if shape.batch is None else f"b{shape.batch}"
    parts = [subject.spec.model, subject.reducer, rate, batch, shape.precision]
    kept = "".join(c if c.isalnum() or c in "=.,_@-" else "_" for c in "-".join(filter(None, parts)))
    return kept if len(kept) <= 150 else kept[:150]


def mark_failed(file: Path, stem: str) -> Path:
    return file.rename(file.with_name(f"{stem}.{FAILED}{file.suffix}"))


def accuracy_of(subject: Subject, found: np.ndarray, expected: np.ndarray, labels: list[Any]) -> dict[str, Any] | None:
    """Top-1 of the file and of the model on the samples of the check, with 95 % intervals (Wilson); None where labels
    are no classes of the model's, or its weights are random."""
    from suite.stats.intervals import wilson_interval

    if not subject.labelled:
        return None

    def share(logits: np.ndarray) -> dict[str, Any]:
        right = int(is_right(logits, labels).sum())
        interval = wilson_interval(right, len(labels))
        return {"top1": right / len(labels), "interval": list(interval) if interval else None}

    return {"samples": len(labels), "task": subject.spec.task, "file": share(found), "model": share(expected)}
