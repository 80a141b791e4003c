"""The page of a run, read without a browser: what it says, that it says it right, and that nothing in it can run."""

import base64
import hashlib
import json
import re
import shutil

import numpy as np
import pytest

from reports.frame import load_frame, load_samples
from reports.groups import groups
from reports.page import write as page_write
from reports.page.exhibits import NOT_MADE, read_exhibits
from reports.page.markers import contrast, on_dark
from reports.page.outcomes import load_outcomes
from reports.page.packing import pack_json, pack_text, unpack
from reports.page.samples import packed_samples
from reports.page.tokens import changes, in_order
from reports.page.write import NO_PLOTLY, render, sort_value
from reports.pareto.style import FAMILIES, OTHERS
from reports.tables.columns import columns_for
from reports.write import write_report
from suite.api import run
from suite.errors import RequestError
from suite.pictures.exhibits import make_exhibits
from tests.unit.page_runs import HOSTILE, Reader, packed, read_page, write_captioned, write_classified
from tests.unit.run_folder import rewrite, write_run
from tests.unit.wide_run import rename_samples

LIGHT_GROUND, DARK_GROUND = "#FFFFFF", "#15181C"  # as in page.css


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    return write_classified(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    return write_captioned(tmp_path_factory.mktemp("page") / "captions")


def test_a_page_is_one_file_that_fetches_nothing_and_runs_its_own_scripts_alone(classified):
    html, reader = read_page(classified)
    assert not any(value and "//" in value for _, attributes in reader.tags for value in attributes.values())
    assert not [tag for tag, attributes in reader.tags if tag in ("link", "iframe") or "src" in attributes]
    policy = next(of["content"] for tag, of in reader.tags if of.get("http-equiv") == "Content-Security-Policy")
    ran = [text for attributes, text in reader.scripts if "type" not in attributes] + [packed(html)["plotly"]]
    assert len(ran) == 3
    for script in ran:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'")
    assert "'unsafe-inline'" not in policy.split("script-src")[1]


def test_the_table_has_the_texts_of_the_printed_one(classified):
    _, reader = read_page(classified)
    (part,) = groups(load_frame(classified))
    columns = columns_for(part.frame)
    expected = [[column.show(row) for column in columns] for row in part.frame.itertuples()]
    found = [texts for attributes, texts in reader.rows if "data-cell" in attributes]
    assert found == [[text.strip() for text in texts] for texts in expected]


def test_points_are_the_numbers_of_the_frame(classified):
    html, _ = read_page(classified)
    data, frame = packed(html)["data"], load_frame(classified)
    assert len(data["cells"]) == len(frame)
    for cell, row in zip(data["cells"], frame.itertuples(), strict=True):
        if row.status == "failed":
            assert cell["x"] == {}
            assert cell["y"]["top1"] == [None, None, None]
            continue
        assert cell["y"]["top1"] == pytest.approx([100 * v for v in (row.top1, row.top1_low, row.top1_high)])
        assert cell["x"].get("gmacs", row.gmacs) == row.gmacs
        assert cell["x"]["im_s"] == row.im_s
        assert sum(cell["blocks"]["tokens"]) > 0
    disputed = next(cell for cell in data["cells"] if cell["name"] == "tome flops=-28%")
    assert "gmacs" not in disputed["x"]
    assert "FLOPs disputed: tome flops=-28%" in data["tasks"][0]["axes"][0]["notes"][0]


def test_what_failed_is_named_with_its_reason_and_markup_stays_text(classified, captioned, tmp_path):
    html, reader = read_page(classified)
    assert f"random flops=-50%: logits of {HOSTILE[0]} hold NaN" in " ".join(reader.text.split())
    renamed = shutil.copytree(classified, tmp_path / "renamed")
    rename_samples(renamed, dict(enumerate(HOSTILE)))
    hostile = [read_page(renamed)[0], read_page(captioned)[0], html]
    plain = render(write_run(tmp_path / "plain"), load_frame(tmp_path / "plain"))[0]
    for page in hostile:
        assert not any(text in page for text in HOSTILE[:2])
        handlers = [name for _, attributes in Reader(page).tags for name in attributes if name.startswith("on")]
        assert not handlers
        assert page.count("<script") == len(Reader(page).scripts)
        assert page.count("<!--") == plain.count("<!--") == 0
    assert set(HOSTILE) <= set(packed(hostile[0])["samples0"]["ids"])
    assert any(HOSTILE[1] in text for text in packed(hostile[1])["samples0"]["texts"])


def test_every_sample_of_a_page_says_what_the_store_says(classified, captioned):
    html, _ = read_page(classified)
    blobs = packed(html)
    compare, samples = blobs["data"]["compares"][0], blobs["samples0"]
    frame = load_frame(classified)
    key = frame.index[compare["cells"][3]]
    table = load_samples(classified, key).set_index("id")
    assert [row[3] for row in samples["said"]] == table.loc[samples["ids"], "prediction"].to_list()
    assert samples["truth"] == table.loc[samples["ids"], "label"].to_list()
    assert compare["kept"] == compare["n"] == 400
    samples = packed(read_page(captioned)[0])["samples0"]
    outcomes = load_outcomes([*groups(load_frame(captioned))])
    table = load_samples(captioned, outcomes.keys[1]).set_index("id")
    assert [samples["texts"][row[1]] for row in samples["said"]] == table.loc[samples["ids"], "prediction"].to_list()
    assert [row[1] / 10 for row in samples["score"]] == pytest.approx(
        100 * table.loc[samples["ids"], "cider"], abs=0.05001
    )


def test_samples_that_do_not_fit_are_those_on_which_cells_differ_least(classified):
    outcomes = load_outcomes([*groups(load_frame(classified))])
    whole, count = packed_samples(outcomes)
    part, kept = packed_samples(outcomes, budget=len(whole) // 3)
    assert 0 < kept < count == 400
    assert len(part) <= len(whole) // 3
    assert json.loads(unpack(part))["ids"] == json.loads(unpack(whole))["ids"][:kept]
    differing = {id for id, column in zip(outcomes.ids, outcomes.score.T) if column.min() != column.max()}
    assert set(json.loads(unpack(whole))["ids"][: len(differing)]) == differing


def test_a_page_without_plotly_says_what_to_install(classified, monkeypatch):
    monkeypatch.setattr(page_write, "find_spec", lambda name: None)
    page_write.plotly_source.cache_clear()
    html, lacking = render(classified, load_frame(classified))
    page_write.plotly_source.cache_clear()
    assert NO_PLOTLY in lacking
    assert NO_PLOTLY in Reader(html).text
    assert 'id="plot"' not in html
    assert "packed-plotly" not in html


def test_a_page_without_pictures_says_how_to_make_them(classified):
    html, lacking = render(classified, load_frame(classified))
    assert lacking == [NOT_MADE]
    assert NOT_MADE in Reader(html).text
    assert "pictures0" not in packed(html)


def test_a_run_without_cells_has_a_page(tmp_path):
    out = write_run(tmp_path / "run", {})
    rewrite(out / "run.json", cells=[])
    assert "No cells yet." in read_page(out)[1].text


def test_pictures_come_from_the_run_and_stay_when_its_data_are_gone(tiny_run, photos):
    results = run(tiny_run)
    found = read_exhibits(results.out)
    assert found.missing == {}
    differing = len(found.thumbnails)
    assert 0 < differing < 12
    assert len(found.views) == 4
    assert len(found.maps) == 2
    blobs = packed(read_page(results.out)[0])
    assert len(blobs["pictures0"]) == differing
    assert blobs["data"]["compares"][0]["kind"] == "agreement"
    assert all(view.startswith("data:image/jpeg") for view in blobs["tokens"][0]["views"])
    tokens = next(iter(blobs["tokens"][0]["cells"].values()))
    assert tokens["grid"] == [4, 4]
    assert [len(counts) for counts in tokens["tokens"]] == [7] * 4
    assert tokens["tokens"][0][:3] == [17, 16, 15]

    next((results.out / "exhibits" / "tokens").iterdir()).write_bytes(b"damaged")
    assert make_exhibits(results.out) == []
    assert len(read_exhibits(results.out).maps) == 2  # made again

    shutil.move(photos, photos.parent / "moved")
    (said,) = make_exhibits(results.out)
    assert "photos" in said
    html, lacking = render(results.out, load_frame(results.out))
    assert lacking == [said]
    assert said in " ".join(Reader(html).text.split())
    assert len(packed(html)["pictures0"]) == differing  # made earlier

    shutil.move(photos.parent / "moved", photos)
    next(photos.rglob("*.JPEG")).unlink()
    (said,) = make_exhibits(results.out)
    assert "samples is '11" in said  # of other data nothing is shown as the run's


def test_a_defect_of_page_or_plots_costs_neither_the_tables_nor_leaves_an_older_page(tmp_path, monkeypatch):
    out = write_run(tmp_path / "run", {"tome": 4.0})
    (out / "report").mkdir()
    for name in ("index.html", "pareto_flops.png"):
        (out / "report" / name).write_text("of an earlier run")
    monkeypatch.setattr("reports.write.write_page", lambda *_: 1 / 0)
    monkeypatch.setattr("reports.write.write_pareto", lambda *_: 1 / 0)
    files, notes = write_report(out)
    assert [file.name for file in files] == ["table.csv", "table.md", "table.tex", "speed.csv", "speed.md"]
    assert (out / "report" / "table.md").is_file()
    assert not (out / "report" / "index.html").exists()
    assert not (out / "report" / "pareto_flops.png").exists()
    assert [note.split(",")[0] for note in notes[1:]] == ["plots not written", "page not written"]
    assert "it has no environment.json" in notes[0]
    (said,) = make_exhibits(out)
    assert "does not say what it was made of" in said


def test_exhibits_of_what_is_no_run_are_refused(tmp_path):
    with pytest.raises(RequestError, match="not the folder of a run"):
        make_exhibits(tmp_path)


def test_groups_are_numbered_by_their_first_patch():
    assert in_order(np.array([7, 7, 2, -1, 2, 0])).tolist() == [0, 0, 1, -1, 1, 2]
    assert in_order(np.array([3, 1, 3])).tolist() == [0, 1, 0]
    owners = np.array([[5, 5, 9], [1, 1, 0], [-1, -1, 4]])
    assert changes(owners) == [[0, 0, 1], None, [-1, -1, 0]]


def test_curves_can_be_seen_on_a_dark_ground_and_on_a_light_one():
    for shade in (shade for family in (*FAMILIES, OTHERS) for shade in family.shades):
        assert contrast(on_dark(shade), DARK_GROUND) >= 4
        assert contrast(shade, LIGHT_GROUND) >= 2.2
    for family in FAMILIES:
        assert len({on_dark(shade) for shade in family.shades}) == len(family.shades)


def test_a_text_sorts_by_the_number_that_it_begins_with():
    texts = ("97.3 ± 1.0", "−35.6", "2.756 [2.610, 2.903]", "264 ± 14§", "n/a", "failed: 3 things", "1.2e−05")
    assert [sort_value(text) for text in texts] == ["97.3", "-35.6", "2.756", "264", "", "", "1.2e-05"]


def test_what_is_packed_is_inert_and_comes_back():
    value = {"a": ["</script>", "é", 1.5, None], "b": [float("nan"), float("inf")]}
    assert re.fullmatch("[A-Za-z0-9+/=]*", pack_json(value))
    assert json.loads(unpack(pack_json(value))) == {"a": ["</script>", "é", 1.5, None], "b": [None, None]}
    assert unpack(pack_text("")) == ""


def test_the_same_run_gives_the_same_page(classified):
    frame = load_frame(classified)
    assert render(classified, frame)[0] == render(classified, frame)[0]
