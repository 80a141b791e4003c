"""Run folders that pages are made of in tests, with texts that would run as markup, and a reader of pages."""

from __future__ import annotations

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from reports.frame import load_frame
from reports.page.packing import unpack
from reports.page.write import render
from suite.contract.metric import Metric, TaskReport
from suite.stats.aggregates import MeanIoU
from suite.stats.areas import dense_areas
from tasks.segmentation_scoring import metrics
from tests.segmented import areas_row
from tests.unit.run_folder import make_captions, rewrite, sample_ids, write_cell, write_run, write_samples

HOSTILE = "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "a'\"&b", "<!--"


class Reader(HTMLParser):
    """Texts of table cells, attributes of all tags, and contents of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.scripts, self.rows, self.text, self.inside = [], [], [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        if tag == "script":
            self.scripts.append((dict(attributes), ""))
        if tag == "tr":
            self.rows.append((dict(attributes), []))
        if tag in ("td", "th"):
            self.rows[-1][1].append("")

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        self.text += data
        if "script" in self.inside[-1:]:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif any(tag in ("td", "th") for tag in self.inside):
            self.rows[-1][1][-1] += data.strip()


@cache
def read_page(out: Path) -> tuple[str, Reader]:
    """The page of a run that will not change any more, and what is in it."""
    html, _ = render(out, load_frame(out))
    return html, Reader(html)


def packed(html: str) -> dict[str, Any]:
    """The page's bulk data by name."""
    found = re.findall(r'<script type="text/plain" id="packed-(\w+)">([^<]*)</script>', html)
    return {name: unpack(text) if name == "plotly" else json.loads(unpack(text)) for name, text in found}


def write_classified(out: Path) -> Path:
    """Several methods; one cell with disputed FLOPs, one that failed with markup for a reason, one untrained method."""
    write_run(out)
    rewrite(out / "cells/tome-flops--28/flops.json", disputed=True, why="formula")
    write_cell(out, "dtem", "r=9", accuracy=0.7, cut=0.3)
    rewrite(out / "cells/random-flops--15/cell.json", rate="flops=-15%")
    failed = out / "cells" / "random-flops--50" / "failed.json"
    failed.write_text(json.dumps({"reason": f"logits of {HOSTILE[0]} hold NaN"}))
    return out


def write_captioned(out: Path) -> Path:
    """Five cells, whose captions are often the same; references and captions hold markup."""
    make_captions(write_run(out, {"tome": 4.0}))
    random, ids = np.random.default_rng(3), sample_ids(400)
    references = pa.table({"id": ids, "label": [[f"a {HOSTILE[1]} {i}", "another"] for i in range(400)]})
    write_samples(out / "manifest.parquet", references)
    for place, folder in enumerate(sorted((out / "cells").iterdir())):
        said = [f"{HOSTILE[0]} says cell {place}" if i % (place + 2) else "the same" for i in range(400)]
        cider = np.where(np.array(said) == "the same", 1.0, random.normal(1.2 - 0.05 * place, 0.3, 400).clip(0))
        write_samples(folder / "samples.parquet", pa.table({"id": ids, "prediction": said}))
        write_samples(folder / "scores.parquet", pa.table({"id": ids, "cider": cider}))
        scores = json.loads((folder / "scores.json").read_text())["scores"]
        scores["cider"] |= {"value": cider.mean(), "low": cider.mean() - 0.1, "high": cider.mean() + 0.1}
        rewrite(folder / "scores.json", scores=scores)
    return out


def write_masked(out: Path) -> Path:
    """Thirty masks of 8 x 8 pixels and five classes; from cell to cell more pixels are wrong."""
    write_run(out, {"tome": 4.0})
    random, ids = np.random.default_rng(5), sample_ids(30)
    truths = random.integers(0, 5, (30, 8, 8)).astype(np.uint8)
    write_samples(out / "manifest.parquet", pa.table({"id": ids, "label": ids}))
    rewrite(out / "run.json", shown=TaskReport((Metric("miou", "mIoU (%)", MeanIoU()),)).as_dict())
    for place, folder in enumerate(sorted((out / "cells").iterdir())):
        wrong = random.random(truths.shape) < 0.1 + 0.08 * place
        said = np.where(wrong, random.integers(0, 5, truths.shape), truths)
        rows = [areas_row(one, truth, 5) | {"id": id, "prediction": id} for one, truth, id in zip(said, truths, ids)]
        write_samples(folder / "samples.parquet", pa.Table.from_pylist(rows))
        value = metrics(dense_areas(pd.DataFrame(rows), 5).sum(axis=0))["miou"]
        score = {"value": value, "low": value - 0.02, "high": value + 0.02, "reason": ""}
        rewrite(folder / "scores.json", scores={"miou": score})
    return out
