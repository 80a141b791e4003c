"""The page of a run, or of several: report/index.html, one file that works from disk."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.groups import Group, groups, labels_of
from reports.marks.floor_rows import hosted
from reports.page import card, curves, launches
from reports.page.command import command_of
from reports.page.comparisons import comparisons, first_pair
from reports.page.exhibits import Exhibits, read_exhibits
from reports.page.markers import dash_of
from reports.page.packing import pack_json, pack_text
from reports.page.tokens import packed_tokens
from reports.pictures.picture_sheet import embedded_sheets
from reports.tables.columns import columns_for
from reports.text.headings import notes, once_each, titles
from reports.text.wording import is_untrained, known, row_label
from suite.store.files import write_text
from suite.store.folder import RunFolder
from suite.store.sealed import DamagedError

if TYPE_CHECKING:
    from jinja2 import Template

SCRIPTS = (
    "unpack.js",
    "format.js",
    "filters.js",
    "table.js",
    "export.js",
    "plot.js",
    "compare.js",
    "tokens.js",
    "start.js",
)
NO_PLOTLY = "The interactive plots need the package plotly: pip install plotly, then write the report again."
RENEWED = 15  # seconds after which the page of a run that goes on is read again
NUMBER = re.compile(r"[−-]?\d+(?:\.\d+)?(?:e[−-]?\d+)?")


def write_page(
    out: Path, frame: pd.DataFrame, absent: Mapping[str, str] = MappingProxyType({}), *, live: bool = False
) -> tuple[Path, list[str]]:
    """Write report/index.html of the run or study in `out`, whose frame is `frame`. Returns it, and what it lacks and
    why. absent, live: see `render`."""
    html, lacking = render(out, frame, absent, live=live)
    path = out / "report" / "index.html"
    write_text(path, html)
    return path, lacking


def render(
    out: Path, frame: pd.DataFrame, absent: Mapping[str, str] = MappingProxyType({}), *, live: bool = False
) -> tuple[str, list[str]]:
    """(the page of the run or study in `out`, what it lacks and why). All text is escaped by the template, all data
    are packed.

    absent: runs of a study that could not be run or read, and why. live: more is being measured, so a browser is to
    read the file again.
    """
    parts, library = hosted(list(groups(frame)), once=True), plotly_source()
    labels = labels_of(parts) if len(parts) > 1 else [""] * len(parts)  # a page of one run does not hang on its folder
    exhibits = {Path(run): exhibits_of(Path(run)) for run in frame.attrs["runs"]}
    places = {row.Index: place for place, row in enumerate(row for part in parts for row in part.frame.itertuples())}
    series = curves.curves_of(pd.concat([part.frame for part in parts]) if parts else frame)
    sentences = [launches.sentences_of(part) for part in parts]
    data = page_data(parts, labels, series, sentences)
    runs = {part.out: label for part, label in zip(parts, labels, strict=True)}
    data["compares"], blobs = comparisons(parts, exhibits, places)
    opening = [said for one in data["compares"] for said in one.pop("opening")]
    blobs["tokens"] = packed_tokens([(label, exhibits[run]) for run, label in runs.items()], places)
    kept = [key for of in exhibits.values() for key in of.maps]
    data["firstTokens"] = [pair for part in parts if (pair := first_pair(part, kept, places))]
    blobs |= {"plotly": _packed_plotly() if library else "", "data": pack_json(data)}
    missing = once_each([(runs.get(run, run.name), [*of.missing.values()]) for run, of in exhibits.items()])
    lacking, tables = missing + ([] if library else [NO_PLOTLY]), tables_of(parts, sentences)
    html = _fill(
        heading_of(parts) or out.name, frame, parts, blobs, data=data, tables=tables, lacking=lacking, missing=missing,
        failures=[*absent.items(), *card.failures_of(parts, labels)], cautions=card.cautions_of(tables, labels),
        opening=opening, sheets=embedded_sheets(out / "report"),
        token_sheets=embedded_sheets(out / "report", "tokens"), renewed=RENEWED if live else None,
    )  # fmt: skip
    return html, lacking


def exhibits_of(out: Path) -> Exhibits:
    """Those of a run; none, and why, where they are damaged."""
    try:
        return read_exhibits(out)
    except DamagedError as error:
        return Exhibits(missing={"pictures": f"{error.path} is damaged ({error.reason}); write the report again"})


def page_data(
    parts: list[Group], labels: list[str], series: list[dict[str, Any]], sentences: list[dict[str, str]]
) -> dict[str, Any]:
    """All that plots and filters need: cells, curves, groups, and per task the axes. sentences: of `launches`, by part.

    Where there are several groups, a cell's name says of which it is, and those of one task have a line pattern each.
    """
    curve = {tuple(one["key"]): place for place, one in enumerate(series)}
    cells: list[dict[str, Any]] = []
    tasks = list(dict.fromkeys(part.task for part in parts))
    axes, scores = [curves.axes_of(part) for part in parts], [curves.scores_of(part) for part in parts]
    for number, (part, label) in enumerate(zip(parts, labels, strict=True)):
        apart = f" · {label}" if len(parts) > 1 else ""
        for row in part.frame.itertuples():
            cells.append(
                {
                    "name": curves.name_of(row) + apart,
                    "series": curve.get((row.reducer, row.options, row.training)),
                    "rate": row.rate if known(row.rate) else "",
                    "group": number,
                    "fair": not is_untrained(row.training),
                    "status": row.status,
                    "blocks": curves.blocks_of(part.folder_of(row.Index)),
                    "binds": sentences[number][row.Index],
                    "dominated": dominated_by(row),
                    "oracle": [row.oracle_gmacs, part.headline.scale * row.oracle] if known(row.oracle) else None,
                    **curves.point_of(row, scores[number], axes[number]),
                }
            )
    members = [[number for number, part in enumerate(parts) if part.task == task] for task in tasks]
    return {
        "tasks": [
            {
                "name": task,
                "axes": curves.join_axes({number: axes[number] for number in of}, labels),
                "scores": curves.join_scores([scores[number] for number in of]),
            }
            for task, of in zip(tasks, members, strict=True)
        ],
        "groups": [
            {
                "label": label,
                "task": tasks.index(part.task),
                "dash": dash_of(members[tasks.index(part.task)].index(number)) if len(parts) > 1 else "",
            }
            for number, (part, label) in enumerate(zip(parts, labels, strict=True))
        ],
        "series": series,
        "cells": cells,
    }


def dominated_by(row: Any) -> str:
    """'dominated by resize side=176 (FLOPs)', or ''."""
    floors: dict[str, list[str]] = {}
    for cost, floor in (("FLOPs", row.dominated_flops), ("time", row.dominated_time)):
        if known(floor) and floor:
            floors.setdefault(floor, []).append(cost)
    return "; ".join(f"dominated by {floor} ({', '.join(costs)})" for floor, costs in floors.items())


def tables_of(parts: list[Group], sentences: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The tables as reports.tables.results has them: texts, what each is sorted by, the command that makes a row, and
    what binds each method."""
    tables, place = [], 0
    for part, heading, binding in zip(parts, titles(parts), sentences, strict=True):
        columns, spec = columns_for(part.frame), RunFolder(part.out).read_run()["spec"]
        rows = []
        for row, about in zip(part.frame.itertuples(), part.context, strict=True):
            texts = [column.show(row) for column in columns]
            command = command_of(spec, row, about["learned_from"])
            row_of = {"place": place, "status": row.status, "name": row_label(row), "command": command}
            rows.append(row_of | {"cells": list(zip(columns, texts, strict=True))})
            place += 1
        about = {"title": heading, "notes": notes(part), "binds": launches.strongest(part, binding)}
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


def _fill(heading: str, frame: pd.DataFrame, parts: list[Group], blobs: dict[str, str], **about: Any) -> str:
    theme, script = _asset("theme.js"), "(() => {\n'use strict';\n" + "\n".join(map(_asset, SCRIPTS)) + "\n})();"
    return _template().render(
        heading=heading,
        facts=card.facts_of(frame, parts),
        states=card.states_of(frame),
        rates=list(dict.fromkeys(rate for rate in frame.rate if known(rate) and rate)),
        blobs=blobs,
        no_plotly=None if blobs["plotly"] else NO_PLOTLY,
        style=_asset("page.css"),
        theme=theme,
        script=script,
        policy=_policy(theme, script, plotly_source() or ""),
        **about,
    )


def heading_of(parts: list[Group]) -> str:
    """Every task with its models: 'imagenet · deit_tiny_patch16_224, deit_small_patch16_224'."""
    models: dict[str, dict[str, None]] = {}
    for part in parts:
        models.setdefault(part.task, {})[part.model] = None
    return " / ".join(f"{task} · {', '.join(of)}" for task, of in models.items())


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
