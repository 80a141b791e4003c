"""Text as Markdown, LaTeX and HTML want it: every table is written in the same three."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import pandas as pd

from reports.text.wording import NO_DATA

FORMULA = re.compile(r"[=+\-@\t\r](?![\d.]+%?$)")  # what spreadsheets take for the beginning of one; a number is none
TEX_HEAD = r"% needs \usepackage{booktabs}"
TEX_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "→": r"$\to$", "×": r"$\times$", "−": "$-$", "·": r"$\cdot$", "–": "--",
    "…": r"\dots{}", "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}", "§": r"\S{}", "¶": r"\P{}", "‖": r"$\Vert$",
}  # fmt: skip


def csv_text(frame: pd.DataFrame, index: str = "") -> str:
    """Full precision, n/a where there is no data. index: the header of the index, where it is to be a column.

    Text that a spreadsheet would take for a formula begins with an apostrophe, which it shows as text.
    """
    texts = frame.select_dtypes(include=["object", "string"])
    safe = frame.assign(**{name: column.map(_no_formula) for name, column in texts.items()})
    written: str = safe.to_csv(index=bool(index), index_label=index or None, na_rep=NO_DATA, lineterminator="\n")
    return written


def _no_formula(value: object) -> object:
    if not isinstance(value, str):
        return value
    return ("'" if FORMULA.match(value) else "") + value.replace("\r", " ")  # which is written unquoted, as it is


def tex_escaped(text: str) -> str:
    return "".join(TEX_SIGNS.get(sign, sign) for sign in " ".join(text.split()))


def markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def markdown_rule(numeric: Sequence[bool]) -> str:
    """The line below a header; numbers stand to the right."""
    return "|" + "|".join("---:" if right else ":---" for right in numeric) + "|"


def html_row(cells: Sequence[str], numeric: Sequence[bool], tag: str = "td") -> str:
    styled = (f'<{tag} class="number">' if right else f"<{tag}>" for right in numeric)
    return "<tr>" + "".join(f"{open}{escape(cell)}</{tag}>" for open, cell in zip(styled, cells, strict=True)) + "</tr>"
