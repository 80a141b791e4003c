"""Every method as a file, or why not, and how far ONNX Runtime and OpenVINO are from the model; a line a method.

    python -m tests.perf.exported --model test_vit --rate flops=-35% --samples 32

--model: of timm, with random weights unless --checkpoint says otherwise. --reducers: a,b; default all. Classes are
compared on whatever weights there are: of random ones, they show where logits that are nearly alike change places.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch

from suite.contract.baseline import BASELINE
from suite.deploy.subject import Subject, make_subject
from suite.errors import RequestError
from suite.formats.base import Session, in_turns
from suite.formats.onnx_file import open_onnx, to_onnx
from suite.formats.openvino_ir import open_openvino
from suite.formats.program import export_program
from suite.rates.rate import rate_text
from suite.reducers import list_reducers

BATCH = 8
OPENED = {"ONNX Runtime": open_onnx, "OpenVINO": open_openvino}


def line_of(name: str, asked: argparse.Namespace) -> list[str]:
    """Cells of the table: method, rate, and for each runtime the share of the same classes and the difference."""
    try:
        subject = subject_of(name, asked)
        images = subject.pictures(asked.samples)[0]
        expected = subject.logits(images).numpy()
        content = content_of(subject, images[:BATCH])
    except RequestError as error:
        return [name, "", *[f"not exported: {error}", "", "", ""]]
    rate = rate_text(subject.handle.rate) if subject.handle else None
    return [name, rate or "–", *(cell for open_ in OPENED.values() for cell in apart(open_, content, images, expected))]


def subject_of(name: str, asked: argparse.Namespace) -> Subject:
    return make_subject(
        {"model": asked.model, "checkpoint": asked.checkpoint, "device": "cpu"}, name,
        None if name == BASELINE else asked.rate,
    )  # fmt: skip


def content_of(subject: Subject, example: torch.Tensor) -> bytes:
    """An ONNX file of the reduced model."""
    if subject.handle is None:
        return to_onnx(export_program(subject.model, example)).SerializeToString()
    with subject.handle:
        return to_onnx(export_program(subject.model, example)).SerializeToString()


def apart(
    open_: Callable[[bytes, int], Session], content: bytes, images: torch.Tensor, expected: np.ndarray
) -> tuple[str, str]:
    session = open_(content, torch.get_num_threads())
    found = in_turns(session, images.numpy(), BATCH)
    same = (found.argmax(1) == expected.argmax(1)).mean()
    return f"{same:.1%}", f"{np.abs(found - expected).max():.1e} of {np.abs(expected).max():.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="test_vit")
    parser.add_argument("--checkpoint", default="none")
    parser.add_argument("--rate", default="flops=-35%")
    parser.add_argument("--reducers")
    parser.add_argument("--samples", type=int, default=32)
    asked = parser.parse_args()
    names = asked.reducers.split(",") if asked.reducers else [BASELINE, *list_reducers()]
    headers = ["Method", "Rate", *(f"{name}: {what}" for name in OPENED for what in ("same top-1", "logits apart"))]
    print(f"{asked.model}, checkpoint {asked.checkpoint}, {asked.rate}, {asked.samples} pictures, batch {BATCH}")
    print("| " + " | ".join(headers) + " |\n|" + ":---|" * len(headers))
    for name in dict.fromkeys(names):
        print("| " + " | ".join(line_of(name, asked)) + " |", flush=True)


if __name__ == "__main__":
    main()
