"""What an exported file is, for whoever deploys it: JSON beside the file."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.deploy.subject import CALIBRATION_SEED, Subject
from suite.formats.base import INT8, Format
from suite.formats.program import INPUT, OUTPUT
from suite.formats.quantised import METHOD
from suite.models.weights_file import file_sha256
from suite.rates.rate import rate_text

if TYPE_CHECKING:
    from suite.deploy.export import Shape

PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino")


def make_card(
    subject: Subject, made: Format, shape: Shape, files: list[Path], image: list[int], classes: int,
    check: dict[str, Any], accuracy: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """All of it as JSON. image: [3, H, W]."""
    method, handle = subject.method, subject.handle
    names = list(subject.task.class_names) if subject.labelled else list(getattr(subject.model, "label_names", ()))
    return {
        "format": made.name,
        "opset": made.opset,
        "files": {file.name: file_sha256(file) for file in files},
        "bytes": sum(file.stat().st_size for file in files),
        "model": subject.spec.model,
        "weights": {
            "source": subject.weights.source, "kind": subject.weights.kind, "sha256": subject.weights.sha256,
        },
        "method": subject.reducer,
        "options": method.options if method else {},
        "method_weights": dict(zip(("source", "sha256"), method.weights)) if method and method.weights else None,
        "rate": rate_text(method.rate) if method else None,
        "resolved_rate": rate_text(handle.rate) if handle else None,
        "tokens_leaving_blocks": handle.planned_counts if handle else None,
        "precision": shape.precision,
        "input": {"name": INPUT, "shape": [shape.said_batch, *image], "dtype": "float32"},
        "output": {"name": OUTPUT, "shape": [shape.said_batch, classes], "dtype": "float32"},
        "preprocessing": preprocessing_of(subject),
        "classes": {"count": classes, "names": names or None},
        "quantisation": {
            "samples": shape.calibration, "seed": CALIBRATION_SEED, "task": subject.spec.task, "method": METHOD,
        } if shape.precision == INT8 else None,
        "check": check,
        "expected_accuracy": accuracy,
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }  # fmt: skip


def preprocessing_of(subject: Subject) -> dict[str, Any]:
    """How an image becomes the input: resized, cut, values in [0, 1] less `mean`, over `std`."""
    found = subject.preprocessing
    return asdict(found) if is_dataclass(found) and not isinstance(found, type) else {"described": repr(found)}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
