"""A model, with what is attached to it, as a file for runtimes outside this program. One file a format."""

from __future__ import annotations

from pkgutil import resolve_name

from suite.errors import RequestError, unknown
from suite.formats.base import Format

FORMATS = {
    "onnx": "suite.formats.onnx_file:Onnx",
    "openvino": "suite.formats.openvino_ir:OpenVino",
    "torch-export": "suite.formats.torch_program:TorchExport",
}


def make_format(name: str) -> Format:
    """The format of that name. RequestError for an unknown one."""
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    made: Format = resolve_name(FORMATS[name])()
    return made


def check_format(made: Format, precision: str) -> None:
    """RequestError, one line, for a precision that the format does not have, and for packages that are not here."""
    from suite.formats.base import COMPUTED_IN
    from suite.formats.packages import require

    if precision not in COMPUTED_IN:
        raise unknown("precision", precision, COMPUTED_IN)
    if precision not in made.precisions:
        raise RequestError(f"format {made.name!r} has no {precision}: {made.why_not_int8}; use onnx or openvino")
    require(*made.packages)
