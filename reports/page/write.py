"""The page of a run: report/index.html, one file that works from disk."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.frame import Group, groups
from reports.page import card, curves, launches
from reports.page.exhibits import Exhibits, read_exhibits
from reports.page.outcomes import load_outcomes
from reports.page.packing import pack_json, pack_text
from reports.page.pairs import compare_pairs
from reports.page.samples import comparison_data, packed_samples
from reports.page.tokens import packed_tokens, picture_url
from reports.tables.results import columns_for
from reports.text.headings import notes, title
from reports.text.wording import is_untrained, known
from suite.contract.baseline import BASELINE
from suite.store.files import atomic_path
from suite.store.sealed import DamagedError

if TYPE_CHECKING:
    from jinja2 import Template

SCRIPTS = ("unpack.js", "format.js", "filters.js", "table.js", "plot.js", "compare.js", "tokens.js", "start.js")
NO_PLOTLY = "The interactive plots need the package plotly: pip install plotly, then write the report again."
NUMBER = re.compile(r"[−-]?\d+(?:\.\d+)?(?:e[−-]?\d+)?")
MIDDLE = -0.5  # change of FLOPs near which methods are compared first


def write_page(out: Path, frame: pd.DataFrame) -> tuple[Path, list[str]]:
    """Write report/index.html of the run in `out`, whose frame is `frame`. Returns it, and what it lacks and why."""
    html, lacking = render(out, frame)
    path = out / "report" / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path, lacking


def render(out: Path, frame: pd.DataFrame) -> tuple[str, list[str]]:
    """(the page, what it lacks and why). All text is escaped by the template, all data are packed."""
    parts, exhibits, library = list(groups(frame)), exhibits_of(out), plotly_source()
    places = {row.Index: place for place, row in enumerate(row for part in parts for row in part.frame.itertuples())}
    series = curves.curves_of(frame)
    sentences = [launches.sentences_of(out, part) for part in parts]
    data = page_data(out, parts, series, sentences)
    blobs, lacking = {"plotly": _packed_plotly() if library else ""}, list(exhibits.missing.values())
    outcomes = load_outcomes(out, frame)
    if outcomes is not None:
        data["compare"] = comparison_data(outcomes, compare_pairs(outcomes), places)
        blobs["samples"], data["compare"]["kept"] = packed_samples(outcomes)
        data["compare"]["classes"] = exhibits.classes
        data["compare"]["first"] = first_pair(frame, parts[0].headline.name, list(outcomes.keys), places)
        shown = set(outcomes.ids)
        pictures = {id: picture_url(jpeg) for id, jpeg in exhibits.thumbnails.items() if id in shown}
        blobs["pictures"] = pack_json(pictures) if pictures else ""
    blobs["tokens"], samples = packed_tokens(exhibits, places)
    data["firstTokens"] = first_pair(frame, parts[0].headline.name, list(exhibits.maps), places) if samples else None
    blobs["data"] = pack_json(data)
    if library is None:
        lacking.append(NO_PLOTLY)
    tables = tables_of(parts, sentences)
    return _fill(out, frame, parts, tables, series, data, blobs, exhibits, lacking), lacking


def exhibits_of(out: Path) -> Exhibits:
    """Those of a run; none, and why, where they are damaged."""
    try:
        return read_exhibits(out)
    except DamagedError as error:
        return Exhibits(missing={"pictures": f"{error.path} is damaged ({error.reason}); write the report again"})


def page_data(
    out: Path, parts: list[Group], series: list[dict[str, Any]], sentences: list[dict[str, str]]
) -> dict[str, Any]:
    """All that plots and filters need: cells, curves, and per group the axes. sentences: of `launches`, by part."""
    curve = {tuple(one["key"]): place for place, one in enumerate(series)}
    cells: list[dict[str, Any]] = []
    about: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        axes, scores = curves.axes_of(part), curves.scores_of(part)
        apart = f" · {part.precision} · batch size {part.batch_size}" if len(parts) > 1 else ""
        about.append({"title": title(part) + apart, "axes": axes, "scores": scores})
        for row in part.frame.itertuples():
            cells.append(
                {
                    "name": curves.name_of(row) + apart,
                    "series": curve.get((row.reducer, row.options, row.training)),
                    "rate": row.rate if known(row.rate) else "",
                    "group": number,
                    "fair": not is_untrained(row.training),
                    "status": row.status,
                    "blocks": curves.blocks_of(out, row.Index),
                    "binds": sentences[number][row.Index],
                    **curves.point_of(row, scores, axes),
                }
            )
    for group in about:
        group["axes"] = [
            {name: value for name, value in axis.items() if name not in ("keys", "ends")} for axis in group["axes"]
        ]
    return {"groups": about, "series": series, "cells": cells, "compare": None}


def first_pair(frame: pd.DataFrame, headline: str, keys: list[str], places: dict[str, int]) -> list[int] | None:
    """The cells to compare first: the two best methods at about half of the FLOPs, one cell of each."""
    shown = frame.loc[[key for key in frame.index if key in set(keys)]]
    reduced = shown[(shown.reducer != BASELINE) & shown.reduction.notna()]
    fair = reduced[~reduced.training.map(is_untrained).astype(bool)]
    reduced = fair if fair.reducer.nunique() > 1 else reduced
    near = (reduced.reduction - MIDDLE).abs().sort_values(kind="stable")
    nearest = reduced.loc[near.index].drop_duplicates("reducer")
    best = nearest.sort_values(headline, ascending=False, kind="stable").index.to_list()
    chosen = [*best, *[key for key in shown.index if key not in best]][:2]
    return [places[key] for key in chosen] if len(chosen) == 2 else None


def tables_of(parts: list[Group], sentences: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The tables as reports.tables.results has them: texts, what each is sorted by, and what binds each method."""
    tables, place = [], 0
    for part, binding in zip(parts, sentences, strict=True):
        columns = columns_for(part.frame)
        rows = []
        for row in part.frame.itertuples():
            texts = [column.show(row) for column in columns]
            rows.append({"place": place, "status": row.status, "cells": list(zip(columns, texts, strict=True))})
            place += 1
        about = {"title": title(part), "notes": notes(part), "binds": launches.strongest(part, binding)}
        tables.append({"columns": columns, "rows": rows, **about})
    return tables


def sort_value(text: str) -> str:
    """The number that a text begins with, as a script reads it; '' for texts without, which come last."""
    found = NUMBER.match(text)
    return found.group().replace("−", "-") if found else ""


@cache
def plotly_source() -> str | None:
    """plotly's script, None where the package is not installed."""
    if find_spec("plotly") is None:
        return None
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _fill(
    out: Path, frame: pd.DataFrame, parts: list[Group], tables: list[dict[str, Any]], series: list[dict[str, Any]],
    data: dict[str, Any], blobs: dict[str, str], exhibits: Exhibits, lacking: list[str],
) -> str:  # fmt: skip
    theme, script = _asset("theme.js"), "(() => {\n'use strict';\n" + "\n".join(map(_asset, SCRIPTS)) + "\n})();"
    return _template().render(
        heading=" · ".join(dict.fromkeys(f"{part.task} · {part.model}" for part in parts)) or out.name,
        facts=card.facts_of(out, frame, parts),
        states=card.states_of(frame),
        failures=card.failures_of(frame),
        tables=tables,
        series=series,
        rates=list(dict.fromkeys(rate for rate in frame.rate if known(rate) and rate)),
        data=data,
        blobs=blobs,
        exhibits=exhibits,
        lacking=lacking,
        cautions=card.cautions_of(tables),
        no_plotly=None if blobs["plotly"] else NO_PLOTLY,
        style=_asset("page.css"),
        theme=theme,
        script=script,
        policy=_policy(theme, script, plotly_source() or ""),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("reports.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["sort_value"] = sort_value
    return environment.get_template("page.html.j2")


@cache
def _packed_plotly() -> str:
    return pack_text(plotly_source() or "")


def _policy(*scripts: str) -> str:
    """A content security policy: these scripts alone run, and nothing is fetched."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts if script)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"


@cache
def _asset(name: str) -> str:
    return (files("reports.page") / "assets" / name).read_text(encoding="utf-8")
