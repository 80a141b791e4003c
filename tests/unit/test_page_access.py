"""The page for everybody: by keyboard, on a small screen, read aloud; and what of it can be taken along."""

import csv
import io

import pytest

from reports.frame import load_frame
from reports.page.write import write_page
from tests.unit.browser import open_page
from tests.unit.page_runs import write_captioned, write_classified
from tests.unit.run_folder import rewrite, write_run, write_study

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Pages of a classifier, of a captioner, of several models, and of a run with nothing to compare."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "classes": write_classified(folder / "classes"),
        "captions": write_captioned(folder / "captions"),
        "study": write_study(folder / "study", {"small": 1.0, "large": 12.0}, {"tome": 4.0, "evit": 7.0}),
        "one": write_run(folder / "one", {"tome": 4.0}),
    }
    rewrite(runs["classes"] / "run.json", spec={"task": "scenes", "model": "vit_scenes"})
    for out in runs.values():
        write_page(out, load_frame(out))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classes", "captions", "study", "one"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")])
def test_axe_finds_nothing_on_a_page(chromium, written, name, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(chromium, written[name], viewport={"width": width, "height": 800}, color_scheme=scheme)
    for opened in page.locator("details").all():
        opened.evaluate("details => { details.open = true; }")
    found = axe.Axe().run(page, options=WCAG).response["violations"]
    assert [(each["id"], node["target"], node["failureSummary"]) for each in found for node in each["nodes"]] == []
    page.context.close()


@pytest.mark.parametrize("name", ["classes", "captions", "study"])
def test_a_screen_of_360_pixels_is_not_scrolled_sideways(chromium, written, name):
    page = open_page(chromium, written[name], viewport={"width": 360, "height": 780}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.context.close()


def test_every_control_is_reached_by_tab_and_shows_it(chromium, written):
    page = open_page(chromium, written["classes"])
    controls = "main a[href], main button, main select, main input, main summary, main [tabindex='0']"
    seen = f"one => one.offsetParent !== null && !one.disabled && one.matches({controls!r})"
    wanted = page.evaluate(f"[...document.querySelectorAll({controls!r})].filter({seen}).length")
    found = set()
    for _ in range(3 * wanted):
        page.keyboard.press("Tab")
        html = page.evaluate("document.activeElement.outerHTML.slice(0, 300)")
        if html in found:
            break
        found.add(html)
        assert page.evaluate("document.activeElement.matches('body, :focus-visible')"), html
    groups = page.evaluate(
        "new Set([...document.querySelectorAll('main input[type=radio]')].map(one => one.name)).size"
    )
    radios = page.locator("main input[type=radio]").count()  # a group of them is one stop
    assert len(found) >= wanted - radios + groups
    page.context.close()


def test_the_command_of_a_row_is_copied_and_said(chromium, written):
    page = open_page(chromium, written["classes"], permissions=["clipboard-read", "clipboard-write"])
    button = page.locator("#table tbody tr:not([hidden]) .copy").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    page.locator("#copied", has_text="run_bench.py run").wait_for()
    command = button.get_attribute("data-command")
    assert page.inner_text("#copied") == f"Copied: {command}"
    assert page.evaluate("navigator.clipboard.readText()") == command
    assert "--task=scenes" in command
    assert page.said == []
    page.context.close()


def test_a_browser_that_copies_nothing_shows_the_command(chromium, written):
    page = open_page(chromium, written["classes"])
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.locator("#table .copy").first.click()
    page.locator("#copied", has_text="run_bench.py run").wait_for()
    assert not page.inner_text("#copied").startswith("Copied")
    page.context.close()


def saved(page):
    with page.expect_download() as download:
        page.click("#export")
    text = download.value.path().read_text(encoding="utf-8")
    return download.value.suggested_filename, list(csv.DictReader(io.StringIO(text)))


def test_the_rows_that_filters_leave_are_saved_as_csv_in_their_order(chromium, written):
    page = open_page(chromium, written["classes"])
    page.fill("#search", "tome")
    page.locator("#table thead button", has_text="GFLOPs").click()
    name, rows = saved(page)
    frame = load_frame(written["classes"])
    tome = frame[frame.reducer == "tome"].sort_values("gmacs", ascending=False)
    assert name == "rows.csv"
    assert [row["Reducer"] for row in rows] == ["tome"] * len(tome)
    assert [float(row["GFLOPs"]) for row in rows] == pytest.approx(tome.gmacs.to_list(), abs=6e-4)
    assert [float(row["FLOPs (%)"]) for row in rows] == pytest.approx((100 * tome.reduction).to_list(), abs=0.06)
    assert all("±" in row["Top-1 (%), as shown"] or "[" in row["Top-1 (%), as shown"] for row in rows)
    page.context.close()


def test_rows_of_several_models_are_saved_with_whose_they_are(chromium, written):
    page = open_page(chromium, written["study"])
    _, rows = saved(page)
    assert len(rows) == 18
    assert len({row["Table"] for row in rows}) == 2
    page.context.close()
