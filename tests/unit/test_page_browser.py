"""The page of a run in a real browser, opened from disk: what a person can do with it, and what they see first."""

import json
import re
import shutil

import pytest

from reports.frame import load_frame
from reports.groups import groups
from reports.page.markers import contrast
from reports.page.outcomes import load_outcomes
from reports.page.pairs import compare_pairs
from reports.page.write import write_page
from reports.pareto.points import FLOPS, frontier
from tests.unit.browser import open_page
from tests.unit.page_runs import HOSTILE, packed, write_captioned
from tests.unit.run_folder import rewrite, write_run, write_study
from tests.unit.wide_run import exhibits, write_wide_run

FIRST_PAINT = 1000  # milliseconds


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    out = write_wide_run(tmp_path_factory.mktemp("wide") / "run", names=HOSTILE)
    write_page(out, load_frame(out))
    return out


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    out = write_captioned(tmp_path_factory.mktemp("captions") / "run")
    write_page(out, load_frame(out))
    return out


@pytest.fixture(scope="module")
def page(chromium, wide):
    page = open_page(chromium, wide)
    yield page
    assert page.said == []  # after all that the tests below did
    page.context.close()


def column(page, number):
    rows = "#table tbody tr:not([hidden])"
    return page.eval_on_selector_all(rows, f"rows => rows.map(row => row.cells[{number}].textContent.trim())")


def heading(page, text):
    return page.locator("#table thead th", has_text=re.compile(rf"^{re.escape(text)}"))


def numbers(text):
    return [float(number.replace("−", "-")) for number in re.findall(r"[−+]?\d+(?:\.\d+)?", text)]


@pytest.mark.slow
def test_a_hundred_cells_on_five_thousand_samples_fit_into_a_page(wide):
    path = wide / "report" / "index.html"
    assert path.stat().st_size < 15e6
    blobs = packed(path.read_text())
    assert len(blobs["data"]["cells"]) == 100
    assert blobs["data"]["compares"][0]["kept"] == 5000
    assert len(blobs["pictures0"]) == 400
    assert len(blobs["tokens"][0]["ids"]) == 4


def test_a_page_of_a_hundred_cells_is_painted_within_a_second_and_complains_of_nothing(page):
    paints = page.evaluate("performance.getEntriesByType('paint').map(paint => [paint.name, paint.startTime])")
    assert 0 < dict(paints)["first-contentful-paint"] < FIRST_PAINT
    assert page.said == []
    assert page.locator("#plot .scatterlayer .point").count() > 90


def test_a_column_is_sorted_by_keyboard_and_says_so(page):
    head = heading(page, "GFLOPs")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    costs = [float(text) for text in column(page, 4)]
    assert costs == sorted(costs, reverse=True)
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(page, 4)] == sorted(costs)
    heading(page, "Reducer").locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(page, 0) == sorted(column(page, 0))


def test_filters_hold_for_table_and_plot(page):
    page.fill("#search", "evit r=4")
    assert column(page, 0) == ["evit"]
    assert page.locator("#plot .scatterlayer .point").count() == 1
    page.fill("#search", "")
    page.uncheck("#methods input >> nth=0")
    assert "dtem" not in column(page, 0)
    page.click("#methods [data-all]")
    page.click("#rates [data-none]")
    assert column(page, 0) == ["none"]
    page.click("#rates [data-all]")
    assert len(column(page, 0)) == 100


def test_the_frontier_is_python_s(page, wide):
    frame = load_frame(wide)
    best = frontier(list(zip(frame.gmacs, 100 * frame.top1, strict=True)), FLOPS.fewer_is_better)
    line = "plot => { const {x, y} = plot.data[0]; return Array.from(x).map((value, i) => [value, y[i]]); }"
    assert page.eval_on_selector("#plot", line) == [pytest.approx(point) for point in best]


def test_intervals_of_score_and_speed_are_shown_from_the_start(chromium, tmp_path):
    out = write_run(tmp_path / "run", {"tome": 4.0})
    write_page(out, load_frame(out))
    page = open_page(chromium, out)
    bars = "plot => plot.data.filter(one => one.customdata).map(one => [one.error_x.visible, one.error_y.visible])"
    assert page.is_checked("#intervals")
    assert all(vertical for _, vertical in page.eval_on_selector("#plot", bars))
    page.check("#axis input[value=im_s]", force=True)
    assert all(horizontal for horizontal, _ in page.eval_on_selector("#plot", bars))
    page.context.close()


def test_speeds_that_must_not_be_ranked_have_no_frontier_and_the_plot_says_so(chromium, tmp_path):
    noise = {"noisy": True, "aa_low": 0.3, "aa_high": 3.0}
    out = write_run(tmp_path / "run", {"tome": 4.0, "evit": 3.0}, speed=noise)
    write_page(out, load_frame(out))
    page = open_page(chromium, out)
    lines = "plot => plot.data.filter(one => !one.customdata).length"
    assert page.eval_on_selector("#plot", lines) == 1
    page.check("#axis input[value=im_s]", force=True)
    assert page.eval_on_selector("#plot", lines) == 0
    assert "do not rank by these speeds" in page.locator("#plot .annotation").text_content()
    page.context.close()


@pytest.mark.parametrize("width", [1400, 1280, 390])
def test_a_wide_table_is_whole_or_scrolls_in_its_own_frame(chromium, wide, width):
    page = open_page(chromium, wide, viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    frame, table = page.eval_on_selector("#table .scroll", "frame => [frame.clientWidth, frame.scrollWidth]")
    scrolls = page.eval_on_selector("#table .scroll", "frame => getComputedStyle(frame).overflowX") == "auto"
    assert table <= frame or (scrolls and width < 1400)
    page.context.close()


def test_two_cells_compared_give_the_numbers_of_python(page, wide):
    outcomes = load_outcomes([*groups(load_frame(wide))])
    pairs, cells = compare_pairs(outcomes), len(outcomes.keys)
    a, b = 7, 60
    place = a * cells - a * (a + 1) // 2 + b - a - 1
    for first, second, sign in ((a, b, 1), (b, a, -1)):
        page.select_option("#cell-a", str(first))
        page.select_option("#cell-b", str(second))
        values = page.eval_on_selector_all("#verdict .value", "all => all.map(one => one.textContent)")
        assert numbers(values[0])[0] == pytest.approx(100 * pairs.value[first], abs=0.051)
        assert numbers(values[1])[0] == pytest.approx(100 * pairs.value[second], abs=0.051)
        ends = sorted(sign * 100 * end for end in (pairs.low[place], pairs.high[place]))
        expected = [sign * 100 * (pairs.value[b] - pairs.value[a]), *ends]
        assert numbers(values[2]) == pytest.approx(expected, abs=0.051)
        p = pairs.p[place]
        assert values[3] == "p < 0.001" if p < 0.001 else numbers(values[3])[0] == pytest.approx(p, rel=0.06)
        only = [pairs.only_a[place], pairs.only_b[place]][::sign]
        texts = page.eval_on_selector_all("#verdict .counts td", "all => all.map(one => one.textContent)")
        counts = [int(text) for text in texts[1:]]
        assert counts[1:3] == only
        assert sum(counts) == 5000
        listed = page.eval_on_selector_all("#which label", "all => all.map(one => one.textContent)")
        assert [numbers(text)[-1] for text in listed[:2]] == only
    page.select_option("#cell-b", str(b))
    assert "same cell" in page.inner_text("#verdict")


def test_samples_on_which_two_cells_disagree_are_shown_and_markup_stays_text(page, wide):
    page.select_option("#cell-a", "1")
    page.select_option("#cell-b", "99")
    shown = page.locator("#samples li")
    assert shown.count() == 12
    assert page.locator("#samples img").count() == 12
    assert "<b>sea</b> lion" in page.inner_text("#samples")
    page.check("#which input >> nth=0", force=True)
    while page.locator("#more").is_visible() and shown.count() < 100:
        page.eval_on_selector("#more", "more => more.click()")
    texts = page.eval_on_selector_all("#samples .id", "all => all.map(one => one.textContent)")
    samples = packed((wide / "report/index.html").read_text())["samples0"]
    known = {id: (said, truth) for id, said, truth in zip(samples["ids"], samples["said"], samples["truth"])}
    assert all(known[id][0][1] == known[id][1] != known[id][0][99] for id in texts)
    assert len(texts) == len(set(texts))
    assert page.locator("img[onerror]").count() == 0


def test_the_slider_moves_through_the_blocks_by_keyboard(page):
    picture = "canvas => canvas.toDataURL()"
    page.focus("#block")
    page.keyboard.press("End")
    last, said = page.eval_on_selector("#map-left", picture), page.inner_text("#caption-left")
    page.keyboard.press("Home")
    first = page.eval_on_selector("#map-left", picture)
    assert first != last
    assert "197 of 197 tokens" in page.inner_text("#caption-left") != said
    assert page.inner_text("#block-name") == "0 (input)"
    page.keyboard.press("ArrowRight")
    assert page.eval_on_selector("#map-left", picture) not in (first, last)
    other = page.eval_on_selector("#map-right", picture)
    page.select_option("#right", index=50)
    assert page.eval_on_selector("#map-right", picture) != other


def test_a_phone_scrolls_no_page_sideways_and_every_control_can_be_reached(chromium, captioned):
    page = open_page(chromium, captioned, viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('#table .scroll').scrollWidth") > 390
    unnamed = """() => [...document.querySelectorAll('main button, main select, main input')]
        .filter(one => !(one.labels?.length || one.textContent.trim() || one.ariaLabel)).map(one => one.outerHTML)"""
    assert page.evaluate(unnamed) == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.said == []
    page.context.close()


def test_dark_and_light_can_be_read_and_plots_follow(chromium, captioned):
    page = open_page(chromium, captioned, color_scheme="dark")
    tones = "getComputedStyle(document.documentElement)"
    names = ("--ground", "--ink", "--faint", "--accent", "--good", "--bad")

    def look():
        ground, *inks = (page.evaluate(f"{tones}.getPropertyValue('{name}').trim()") for name in names)
        assert all(contrast(ground, ink) >= 4.5 for ink in inks)
        return ground, page.eval_on_selector("#plot", "plot => plot.layout.font.color")

    dark = look()
    for expected in ("light", "dark"):
        page.click("#theme")
        assert page.inner_text("#theme") == f"Theme: {expected}"
        assert (look() == dark) == (expected == "dark")
    assert page.said == []
    page.context.close()


def test_captions_are_shown_as_text_with_the_score_of_each(chromium, captioned):
    page = open_page(chromium, captioned)
    outcomes = load_outcomes([*groups(load_frame(captioned))])
    pairs = compare_pairs(outcomes)
    page.select_option("#cell-a", "0")
    page.select_option("#cell-b", "1")
    values = page.eval_on_selector_all("#verdict .value", "all => all.map(one => one.textContent)")
    expected = [100 * x for x in (pairs.value[1] - pairs.value[0], pairs.low[0], pairs.high[0])]
    assert numbers(values[2]) == pytest.approx(expected, abs=0.051)
    said = page.inner_text("#samples")
    assert HOSTILE[0] in said
    assert HOSTILE[1] in said
    listed = page.eval_on_selector_all("#which label", "all => all.map(one => one.textContent)")
    assert [numbers(text)[-1] for text in listed] == [pairs.only_a[0], pairs.only_b[0]]
    assert page.said == []
    assert page.locator("#samples script").count() == 0
    page.context.close()


def test_a_run_of_one_method_at_one_rate_shows_its_tokens(chromium, tmp_path):
    out = write_run(tmp_path / "run", {"tome": 4.0})
    for folder in (out / "cells").iterdir():
        if folder.name not in ("none-full", "tome-flops--50"):
            shutil.rmtree(folder)
    exhibits(["val/00000"] * 4, ["tome-flops--50"]).save(out)
    write_page(out, load_frame(out))
    page = open_page(chromium, out)
    assert "of 197 tokens" in page.inner_text("#caption-left")
    assert page.input_value("#left") == page.input_value("#right") == "1"
    assert page.said == []
    page.context.close()


def test_a_run_in_which_nothing_was_finished_or_counted_has_a_page_that_works(chromium, tmp_path):
    out = write_run(tmp_path / "run", {"tome": 4.0})
    for flops in out.glob("cells/*/flops.json"):
        flops.unlink()
    write_page(out, load_frame(out))
    for folder in (out / "cells").iterdir():
        (folder / "failed.json").write_text(json.dumps({"reason": f"{HOSTILE[1]} \u2028"}))
    write_page(out, load_frame(out))
    page = open_page(chromium, out)
    assert page.inner_text("#plot-notes") == "No finished cell has both a score and a cost."
    assert "There is no finished reduced cell" in page.inner_text("#tokens")
    heading(page, "Rate").locator("button").click()
    assert page.said == []
    page.context.close()


def test_all_models_of_a_study_are_seen_at_once_and_can_be_chosen(chromium, tmp_path):
    out = write_study(tmp_path / "study", {"small": 1.0, "large": 12.0}, {"tome": 4.0, "evit": 7.0})
    write_page(out, load_frame(out))
    page = open_page(chromium, out)
    traces = "() => document.querySelector('#plot').data.filter(one => one.customdata)"
    assert page.evaluate(f"({traces})().map(one => one.mode).filter(mode => mode.includes('text')).length") == 2
    assert page.evaluate(f"({traces})().flatMap(one => one.text ?? [])") == ["small", "large"]
    assert len(page.evaluate(f"[...new Set(({traces})().map(one => one.line.dash))]")) == 2
    assert page.evaluate("document.querySelector('#plot').layout.xaxis.type") == "log"
    assert page.locator("#table .group:visible").count() == 2
    assert "18 cells" in page.inner_text("#shown")
    page.locator("#models label", has_text="large").click()
    assert page.locator("#table .group:visible").count() == 1
    assert page.evaluate("document.querySelector('#plot').layout.xaxis.type") != "log"
    assert "9 cells" in page.inner_text("#shown")
    cells = page.eval_on_selector_all("#cell-a option", "all => all.map(one => one.textContent)")
    assert "none · small" in cells
    assert "none · large" in cells
    page.select_option("#cell-a", label="none · small")
    page.select_option("#cell-b", label="tome flops=-50% · large")
    assert "372" not in page.inner_text("#verdict .counts")  # of 400 that the unreduced model has right
    assert page.inner_text("#verdict").count("Top-1 (%)") == 2
    assert page.said == []
    page.context.close()


def test_tasks_of_a_study_are_told_apart_on_one_page(chromium, tmp_path):
    out = write_study(tmp_path / "study", {"classifier": 1.0, "captioner": 1.0}, {"tome": 4.0})
    shutil.rmtree(out / "captioner")
    write_captioned(out / "captioner")
    for path in (out / "captioner").glob("cells/*/cell.json"):
        rewrite(path, task="captions")
    rewrite(out / "captioner" / "run.json", spec={"task": "captions"})
    write_page(out, load_frame(out))
    page = open_page(chromium, out)
    assert page.eval_on_selector_all("#score option", "all => all[0].textContent") == "Top-1 (%)"
    assert page.locator("#models label:visible").count() == 1
    page.select_option("#task", label="captions")
    assert page.eval_on_selector_all("#score option", "all => all[0].textContent") == "CIDEr"
    assert page.locator("#models label:visible").inner_text().strip() == "captioner · vit_scenes"
    assert page.locator("#table .group:visible").count() == 1
    page.select_option("#compared", index=1)
    page.locator("#verdict", has_text="CIDEr").wait_for()
    assert HOSTILE[0] in page.inner_text("#samples")
    assert page.said == []
    page.context.close()
