"""Text as Markdown, LaTeX and HTML want it: every table is written in the same three."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

TEX_HEAD = r"% needs \usepackage{booktabs}"
TEX_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "→": r"$\to$", "×": r"$\times$", "−": "$-$", "·": r"$\cdot$", "–": "--",
    "…": r"\dots{}", "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}", "§": r"\S{}", "¶": r"\P{}", "‖": r"$\Vert$",
}  # fmt: skip


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
