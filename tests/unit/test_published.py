"""The published figures: complete, traceable, and installed with the package."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
import pytest

from reports.published import FOLDER, NUMBERS, load_published
from reports.published.models import printed_names

ROOT = Path(__file__).parents[2]
PUBLISHED = load_published()


def test_every_row_says_what_it_is_and_where_it_was_read():
    for column in ("source", "table", "task", "model", "method", "provenance"):
        empty = PUBLISHED[PUBLISHED[column].str.strip() == ""]
        assert empty.empty, f"{column}: {empty[['file', 'line']].to_dict('records')}"


def test_every_file_has_the_same_columns():
    headers = {file.read_text().splitlines()[0] for file in FOLDER.glob("*.csv")}
    assert len(headers) == 1
    assert headers.pop().split(",")[-1] == "provenance"


def test_what_was_read_elsewhere_is_no_primary_figure():
    elsewhere = PUBLISHED.file.str.startswith("secondary_") | PUBLISHED.source.str.contains("leaderboard")
    assert not PUBLISHED.primary[elsewhere].any()
    assert not PUBLISHED.primary[PUBLISHED.note.str.contains("secondary:")].any()
    papers = PUBLISHED[(PUBLISHED.file == "dtem") & (PUBLISHED.table == "Table 1")]
    assert list(papers.primary) == [True] * 28 + [False]  # the last one is another paper's quotation


def test_numbers_are_numbers_and_keep_their_printed_digits():
    for column in NUMBERS:
        assert pd.api.types.is_float_dtype(PUBLISHED[column]), column
    printed = PUBLISHED[PUBLISHED.gflops.notna()]
    assert (printed.printed_gflops.astype(float) == printed.gflops).all()
    assert (PUBLISHED[PUBLISHED.gflops.isna()].printed_gflops == "").all()
    assert PUBLISHED.top1.dropna().between(50, 91).all()  # 90.03 is one of ToaST's, see the notes


def test_a_caller_may_change_its_copy():
    mine = load_published()
    mine["top1"] = 0.0
    assert load_published().top1.max() > 80


@pytest.mark.parametrize(
    ("file", "model", "method", "reduction", "gflops", "top1"),
    [
        ("dtem", "DeiT-S", "DTEM", "50%", 2.35, 78.99),
        ("dtem", "MAE-L", "ToMe", "35%", 42.5, 85.46),
        ("mctf", "DeiT-S", "MCTF", "", 2.6, 80.1),
        ("tofu", "ViT-B", "ToFu MLERP", "", 13.12, 83.22),
    ],
)
def test_figures_known_from_the_papers_are_there(file, model, method, reduction, gflops, top1):
    of = PUBLISHED[(PUBLISHED.file == file) & (PUBLISHED.model == model) & (PUBLISHED.method == method)]
    of = of[(of.reduction == reduction) & (of.gflops == gflops)]
    assert top1 in set(of.top1)


def test_the_notes_name_every_file():
    said = (FOLDER / "README.md").read_text()
    assert [file.name for file in FOLDER.glob("*.csv") if f"`{file.name}`" not in said] == []


def test_the_files_are_installed_with_the_package():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "reports" in wheel["only-include"]
    assert not any(fnmatchcase("reports/published/dtem.csv", pattern) for pattern in wheel["exclude"])
    assert (FOLDER / "__init__.py").is_file()


def test_a_model_is_known_by_the_names_that_papers_print_and_a_tag_parts_two_of_them():
    assert {"DeiT-S", "ViT-S (DeiT)"} <= printed_names("deit_small_patch16_224")
    assert printed_names("deit_small_patch16_224.fb_in1k") == printed_names("deit_small_patch16_224")
    assert printed_names("vit_small_patch16_224.augreg_in1k") == {"ViT-S"}
    assert "ViT-S" not in printed_names("vit_small_patch16_224.augreg_in21k_ft_in1k")
    assert printed_names("vit_base_patch14_dinov2") == set()  # printed of other image sizes alone
    assert printed_names("scenes_vit") == set()
