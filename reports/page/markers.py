"""The looks of curves, as a browser draws them: those of the printed plots, and brighter ones on a dark ground."""

from __future__ import annotations

import colorsys
from typing import Any

from reports.pareto.style import PATTERNS, Line, Style

# matplotlib's marker -> (plotly's symbol, an SVG path in a box from -1 to 1)
SHAPES = {
    "o": ("circle", "M-1,0a1,1 0 1,0 2,0a1,1 0 1,0 -2,0z"),
    "s": ("square", "M-.9,-.9h1.8v1.8h-1.8z"),
    "^": ("triangle-up", "M0,-1L1,.8H-1z"),
    "v": ("triangle-down", "M0,1L1,-.8H-1z"),
    "<": ("triangle-left", "M-1,0L.8,1V-1z"),
    ">": ("triangle-right", "M1,0L-.8,1V-1z"),
    "D": ("diamond", "M0,-1L1,0L0,1L-1,0z"),
    "P": ("cross", "M-.35,-1h.7v.65h.65v.7h-.65v.65h-.7v-.65h-.65v-.7h.65z"),
    "X": ("x", "M0,-.45L.5,-.95L.95,-.5L.45,0L.95,.5L.5,.95L0,.45L-.5,.95L-.95,.5L-.45,0L-.95,-.5L-.5,-.95z"),
    "p": ("pentagon", "M0,-1L.95,-.31L.59,.81H-.59L-.95,-.31z"),
    "h": ("hexagon", "M0,-1L.87,-.5V.5L0,1L-.87,.5V-.5z"),
}
MARKER_SIZE, LINE_WIDTH = 9, 1.6  # pixels


def look(style: Style) -> dict[str, Any]:
    """A curve's look as plotly and the key of the page need it."""
    symbol, path = SHAPES[style.marker]
    return {
        "family": style.family,
        "colour": style.colour,
        "dark": on_dark(style.colour),
        "symbol": symbol if style.filled else f"{symbol}-open",
        "path": path,
        "filled": style.filled,
        "size": round(MARKER_SIZE * style.size, 1),
        "dash": _dash(style.line),
    }


def dash_of(number: int) -> str:
    """The pattern of the lines of a model among several, as in printed plots."""
    return _dash(PATTERNS[number % len(PATTERNS)])


def on_dark(colour: str) -> str:
    """The colour for a dark ground: shades of one hue keep apart, what was darkest is lightest now."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))
    return _hex(colorsys.hls_to_rgb(hue, min(0.92, 0.92 - 0.5 * lightness), min(saturation, 0.85)))


def contrast(first: str, second: str) -> float:
    """Ratio of two colours' luminances, 1 to 21. Source: WCAG 2.2, "contrast ratio"."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _hex(parts: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(255 * part):02X}" for part in parts)


def _dash(line: Line) -> str:
    """matplotlib's pattern, in widths of the line, as SVG's, in pixels."""
    return "solid" if line == "-" else ",".join(f"{LINE_WIDTH * width:.1f}px" for width in line[1])
