"""What the papers' tables measured, in terms of the models, methods and rates here: one file a paper."""

from __future__ import annotations

from functools import cache

from suite.errors import unknown
from suite.papers.table import PaperTable


@cache
def paper_tables() -> dict[str, PaperTable]:
    """Name -> table, in the order of the papers."""
    from suite.papers import diffrate, dtem, dynamicvit, evit, mctf, newer, secondary, tofu, tome, tps

    papers = (dtem, mctf, tofu, tome, diffrate, evit, tps, dynamicvit, newer, secondary)
    return {table.name: table for paper in papers for table in paper.TABLES}


def paper_table(name: str) -> PaperTable:
    """`tomesd` and `ToMe_SD` are `tome-sd`, too. RequestError, with the nearest names, for one that is not known."""
    tables = {_bare(table.name): table for table in paper_tables().values()}
    if _bare(name) not in tables:
        raise unknown("table", name, paper_tables())
    return tables[_bare(name)]


def _bare(name: str) -> str:
    """What is left of a name without the signs that people write differently."""
    return name.lower().replace("-", "").replace("_", "")
