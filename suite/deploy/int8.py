"""Do merged tokens survive 8-bit integers? float32 and int8 of every method, in one runtime, on the same pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reports.pareto.quantised import draw_quantised
from reports.text.wording import significant
from suite.analyse.sheet import Sheet
from suite.contract.baseline import BASELINE
from suite.contract.task import Sample
from suite.deploy.agreement import is_right
from suite.deploy.subject import CALIBRATION_SEED, Subject, make_subject
from suite.errors import RequestError
from suite.formats.base import Session, in_turns
from suite.formats.onnx_file import open_onnx, to_onnx
from suite.formats.openvino_ir import open_openvino
from suite.formats.packages import require
from suite.formats.program import export_program
from suite.formats.quantised import METHOD, quantise
from suite.stats.intervals import wilson_interval
from suite.stats.paired import paired_share_interval

OPENED = {"onnxruntime": open_onnx, "openvino": open_openvino}
BATCH, ROUNDS = 16, 5


@dataclass(frozen=True)
class Size:
    """samples: pictures that both are scored on. calibration: that ranges are taken of."""

    samples: int = 1000
    calibration: int = 128


def measure_int8(values: dict[str, Any], reducers: Sequence[str], rate: str, size: Size) -> Sheet:
    """The unreduced model and every one of `reducers` at `rate`. values: of a RunSpec.

    RequestError for what cannot be exported, and for a model whose classes are not the task's, or are random.
    """
    require("onnx", "onnxscript", "onnxruntime", "openvino")
    records: list[dict[str, Any]] = []
    pictures: tuple[Tensor, list[Sample]] | None = None
    failed, subject = [], None
    for name in dict.fromkeys([BASELINE, *reducers]):
        try:
            subject = make_subject(values, name, None if name == BASELINE else rate)
        except RequestError as error:
            if name == BASELINE:
                raise
            failed.append(f"{name}: {error}")
            continue
        if not subject.labelled:
            raise RequestError(
                f"model {subject.spec.model!r} was not trained for the classes of task {subject.spec.task!r}, so that "
                "there is no accuracy to lose; give one that was"
            )
        pictures = pictures or subject.pictures(size.samples)
        records += compare(subject, *pictures, size)
    assert subject is not None  # the unreduced model's, at least
    return _sheet(subject, records, failed, size, 0 if pictures is None else len(pictures[1]))


def compare(subject: Subject, images: Tensor, samples: Sequence[Sample], size: Size) -> list[dict[str, Any]]:
    """A record a runtime."""
    example = images[:1].expand(BATCH, -1, -1, -1).contiguous()
    if subject.handle is None:
        whole = to_onnx(export_program(subject.model, example))
    else:
        with subject.handle:
            whole = to_onnx(export_program(subject.model, example))
    small = quantise(whole, subject.calibration(size.calibration))
    contents = [model.SerializeToString() for model in (whole, small)]
    labels = [sample.label for sample in samples]
    rate = str(subject.handle.rate) if subject.handle and subject.handle.rate else ""
    found = []
    for runtime, opened in OPENED.items():
        sessions = [opened(content, torch.get_num_threads()) for content in contents]
        right = [is_right(in_turns(session, images.numpy(), BATCH), labels) for session in sessions]
        milliseconds = [1e3 * seconds / BATCH for seconds in side_by_side(sessions, example.numpy())]
        found.append(
            {
                "method": f"{subject.reducer} {rate}".strip(), "runtime": runtime,
                **paired(*right), "fp32_bytes": len(contents[0]), "int8_bytes": len(contents[1]),
                "fp32_ms": milliseconds[0], "int8_ms": milliseconds[1],
            }
        )  # fmt: skip
    return found


def paired(whole: np.ndarray, small: np.ndarray) -> dict[str, float]:
    """Shares of right answers (N,) bool with their intervals (Wilson), and int8 less fp32 with its own (Tango)."""
    count = len(whole)
    found: dict[str, float] = {}
    for name, right in (("fp32", whole), ("int8", small)):
        interval = wilson_interval(int(right.sum()), count)
        assert interval is not None  # there are samples
        found |= {name: float(right.mean()), f"{name}_low": interval[0], f"{name}_high": interval[1]}
    wins, losses = int((small & ~whole).sum()), int((whole & ~small).sum())
    low, high = paired_share_interval(wins, losses, count)
    return {
        **found,
        "difference": (wins - losses) / count,
        "difference_low": float(low),
        "difference_high": float(high),
    }


def side_by_side(sessions: Sequence[Session], images: np.ndarray) -> list[float]:
    """Seconds of a forward of each, the median of rounds that take turns."""
    times: list[list[float]] = [[] for _ in sessions]
    for round_ in range(ROUNDS + 1):
        for session, of in zip(sessions, times):
            begin = time.perf_counter()
            session(images)
            if round_:  # the first one warms up
                of.append(time.perf_counter() - begin)
    return [median(of) for of in times]


def _sheet(
    subject: Subject, records: list[dict[str, Any]], failed: list[str], size: Size, samples: int
) -> Sheet:  # fmt: skip
    def share(record: dict[str, Any], name: str) -> str:
        value, low, high = (100 * record[f"{name}{end}"] for end in ("", "_low", "_high"))
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"

    lines = [
        [
            r["method"], r["runtime"], share(r, "fp32"), share(r, "int8"), share(r, "difference"),
            f"{r['fp32_bytes'] / 2**20:.1f} → {r['int8_bytes'] / 2**20:.1f}",
            f"{significant(r['fp32_ms'], 3)} → {significant(r['int8_ms'], 3)}",
        ]
        for r in records
    ]  # fmt: skip
    spec = subject.spec
    about = {
        "task": spec.task, "model": spec.model, "weights_sha256": subject.weights.sha256, "samples": samples,
        "calibration": size.calibration, "calibration_seed": CALIBRATION_SEED, "quantisation": METHOD,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    notes = (
        f"Top-1 (%) on the same {samples} pictures in the same runtime, 95 % intervals: Wilson's, of the difference "
        f"Tango's. Post-training quantisation, {METHOD}; {size.calibration} pictures of the training data drawn by "
        f"seed {CALIBRATION_SEED}. ONNX Runtime's quantiser makes the graph, and each runtime runs it with kernels of "
        f"its own. Milliseconds an image at batch {BATCH}, {torch.get_num_threads()} thread(s), turn by turn.",
        *(f"failed: {line}." for line in failed),
    )
    title = f"int8 beside fp32: {spec.task} / {spec.model}"
    headers = ("Method", "Runtime", "fp32", "int8", "int8 − fp32", "MiB", "ms an image")
    return Sheet("int8", title, about, records, headers, lines, notes, partial(draw_quantised, records, title), failed,
                 names=2)  # fmt: skip
