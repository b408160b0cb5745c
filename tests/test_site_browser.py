"""The site in a real browser: sorting, filtering, cells, the diff, themes, narrow screens, print, and nothing fetched or run.

Needs Chromium (Debian: ``apt-get install chromium``) and the ``playwright`` driver of the dev extra; skipped where one is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.site_toys import FAMILIES, SCRIPT, record, site

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
DRAWN = 200
"""Milliseconds in which a table that is still to be drawn changes."""
CHROMIUM = os.environ.get("CODEBACKDOORBENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium: apt-get install chromium, or CODEBACKDOORBENCH_CHROMIUM"
)

Page = Any


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, front: Path) -> Iterator[Page]:
    """The front page; at the end, nothing was fetched from outside the folder and the console is empty."""
    yield from visit(browser, front, viewport={"width": 1280, "height": 900})


@pytest.fixture
def phone(browser: Any, front: Path) -> Iterator[Page]:
    yield from visit(browser, front, viewport={"width": 390, "height": 844}, color_scheme="dark")


def visit(browser: Any, front: Path, **options: Any) -> Iterator[Page]:
    shown = browser.new_page(**options)
    shown.set_default_timeout(60_000)
    complaints: list[str] = []
    asked: list[str] = []
    shown.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(front.as_uri())
    shown.wait_for_selector("#board tbody tr")
    yield shown
    run = shown.evaluate("window.hit")
    shown.close()
    assert complaints == []
    assert run is None, "a script from outside was run"
    home = front.parent.as_uri() + "/"
    assert [url for url in asked if not url.startswith((home, "data:,"))] == []
    assert any(url.endswith("dataTables.min.js") for url in asked)


def column(page: Page, label: str) -> list[str]:
    """The first line of each field of a column, in the order shown."""
    return [text.split("\n")[0] for text in page.locator(f'#board tbody td[data-label="{label}"]').all_inner_texts()]


def defenses(page: Page) -> list[str]:
    return page.locator("#board tbody td.lead-cell a").all_inner_texts()


def lifts(page: Page) -> list[float]:
    return [float(text.replace("−", "-")) for text in column(page, "lift") if text != "–"]


def cell(page: Page, defense: str, attack: str) -> None:
    """Open a cell by its link in the table."""
    page.select_option('select[data-axis="attack"]', label=attack)
    page.locator("#board tbody td.lead-cell a").get_by_text(defense, exact=True).click()
    page.wait_for_selector("h1 .on")


def test_every_row_is_there_attacked_ones_first(page: Page) -> None:
    assert len(defenses(page)) == 3 * len(FAMILIES)
    assert column(page, "attack")[0] == "dead_code"
    assert column(page, "attack")[-1] == "none"


def settled(page: Page, sort: str) -> None:
    """Wait until the table is sorted so: it says it in its header, and draws its rows a moment later."""
    page.locator(f'#board thead th[aria-sort="{sort}"]').wait_for(state="attached")
    before: list[str] = []
    while before != (before := page.locator("#board tbody").all_inner_texts()):
        page.wait_for_timeout(DRAWN)


def test_a_click_sorts_and_undefined_numbers_stay_last(page: Page) -> None:
    header = page.locator("#board thead th", has_text="lift")
    header.click()
    settled(page, "ascending")
    up = lifts(page)
    assert up == sorted(up)
    header.click()
    settled(page, "descending")
    down = lifts(page)
    assert down == sorted(up, reverse=True)
    assert column(page, "lift")[-1] == "–"
    assert up[0] < up[-1]


def test_the_keyboard_sorts(page: Page) -> None:
    page.locator("#board thead th", has_text="ASR₀").locator('[role="button"]').focus()
    page.keyboard.press("Shift+Tab")
    focused = page.evaluate("document.activeElement.closest('th').innerText")
    assert "ASR" in focused
    page.keyboard.press("Enter")
    settled(page, "ascending")
    assert page.locator("#board thead th[aria-sort]").inner_text().startswith("ASR")
    found = [float(text) for text in column(page, "ASR") if text != "–"]
    assert found == sorted(found)


def test_the_first_stop_of_the_keyboard_skips_to_the_content(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")  # else it slides in, and is not there at once
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= -1
    page.keyboard.press("Enter")
    page.locator("#main:focus").wait_for()


def test_filters_narrow_the_table_together_and_clear(page: Page) -> None:
    page.select_option('select[data-axis="attack"]', label="renaming")
    assert set(column(page, "attack")) == {"renaming"}
    page.select_option('select[data-axis="family"]', label="repair")
    assert sorted(defenses(page)) == sorted(["elibadcode", SCRIPT])
    page.fill("#search", "eliba")
    assert defenses(page) == ["elibadcode"]
    page.locator('button[type="reset"]').click()
    assert len(defenses(page)) == 3 * len(FAMILIES)


def test_a_name_that_is_markup_can_be_filtered_by(page: Page) -> None:
    page.select_option('select[data-axis="defense"]', label=SCRIPT)
    assert defenses(page) == [SCRIPT] * 3


def test_nothing_found_is_said(page: Page) -> None:
    page.fill("#search", "no such defense")
    assert "No row fits" in page.locator("#board tbody").inner_text()


def test_a_row_opens_its_cell_and_the_diff_is_marked(page: Page) -> None:
    cell(page, "elibadcode", "renaming")
    assert page.locator("h1").inner_text() == "elibadcode on renaming"
    assert page.locator("del").all_inner_texts() == ["old"]
    assert page.locator("ins").all_inner_texts() == ["testo_init"]
    assert page.locator(".code").inner_text().count(SCRIPT) == 1
    removed, added = (page.locator(f".code tr.{kind} {mark}") for kind, mark in (("del", "del"), ("ins", "ins")))
    colours = {one.evaluate("node => getComputedStyle(node).backgroundColor") for one in (removed, added)}
    assert len(colours) == 2
    assert "rgba(0, 0, 0, 0)" not in colours


def test_scripts_in_names_and_programs_are_shown_not_run(page: Page) -> None:
    assert SCRIPT in defenses(page)
    cell(page, SCRIPT, "renaming")
    assert page.locator("h1").inner_text() == f"{SCRIPT} on renaming"
    assert page.evaluate("window.hit") is None
    assert page.locator("script").count() == 1


def test_a_failed_cell_opens_from_the_heat_map(page: Page) -> None:
    page.locator(".heat td a", has_text="failed").click()
    page.wait_for_selector("h1 .on")
    assert "This cell has no numbers" in page.locator("main").inner_text()


def test_a_legend_entry_fades_the_others(page: Page) -> None:
    page.locator("#tradeoff button[data-legend]", has_text="elibadcode").click()
    kept = page.locator("#tradeoff .point:not(.faded)")
    assert {kept.nth(i).get_attribute("data-d") for i in range(kept.count())} == {"elibadcode"}
    page.locator("#tradeoff button[data-legend]", has_text="elibadcode").click()
    assert page.locator("#tradeoff .point.faded").count() == 0


def test_the_command_can_be_copied(page: Page) -> None:
    cell(page, "elibadcode", "renaming")
    button = page.locator("button[data-copy]")
    button.click()
    playwright.expect(button).not_to_have_text("Copy")
    assert record("elibadcode", "renaming").command == page.locator("#command").inner_text()


TOO_WIDE = """
[...document.querySelectorAll("body *")].filter(node =>
  node.getBoundingClientRect().right > innerWidth + 1 && !node.closest(".scroller, .sections, svg, .hidden")).length
"""


def test_a_narrow_screen_needs_no_sideways_scrolling(phone: Page) -> None:
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.evaluate(TOO_WIDE) == 0
    phone.select_option("#sort", label="lift ↓")
    settled(phone, "descending")
    found = lifts(phone)
    assert found == sorted(found, reverse=True)
    cell(phone, "elibadcode", "renaming")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.evaluate(TOO_WIDE) == 0


CONTRAST = """
names => {
  const style = getComputedStyle(document.documentElement);
  const canvas = document.createElement("canvas").getContext("2d");
  const light = name => {
    canvas.fillStyle = style.getPropertyValue(name).trim();
    canvas.fillRect(0, 0, 1, 1);
    const shares = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255);
    const [r, g, b] = shares.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return names.map(([a, b]) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); });
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(browser: Any, front: Path, scheme: str) -> None:
    shown = browser.new_page(color_scheme=scheme)
    shown.goto(front.as_uri())
    dark = shown.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(251, 250, 247)"
    assert dark == (scheme == "dark")
    texts = [[name, "--paper"] for name in ("--ink", "--ink-2", "--ink-3", "--link")]
    texts += [["--warn", "--warn-paper"], ["--ink-3", "--sunk"]]
    assert min(shown.evaluate(CONTRAST, texts)) >= 4.5  # WCAG AA
    marks = [[f"--c{i}", "--paper"] for i in range(8)]
    assert min(shown.evaluate(CONTRAST, marks)) >= 3
    shown.close()


def test_print_shows_all_rows_and_no_controls(page: Page) -> None:
    page.evaluate("window.board.page.len(5).draw()")
    assert len(defenses(page)) == 5
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(defenses(page)) == 3 * len(FAMILIES)
    for hidden in (".sections", ".filters", ".dt-paging"):
        assert not page.locator(hidden).first.is_visible()
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(defenses(page)) == 5
    assert page.pdf().startswith(b"%PDF")


def test_charts_are_described_for_those_who_do_not_see_them(page: Page) -> None:
    charts = page.locator("svg[role=img]")
    assert charts.count() >= 3
    for i in range(charts.count()):
        assert charts.nth(i).locator("title").first.text_content()
        assert charts.nth(i).locator("desc").first.text_content()


INLINE = """
() => {
  const script = document.createElement("script");
  script.textContent = "window.hit = 1";
  document.body.append(script);
  return window.hit === undefined;
}
"""


def test_the_network_is_forbidden_to_the_page_itself(browser: Any, front: Path) -> None:
    shown = browser.new_page()
    shown.goto(front.as_uri())
    refused = shown.evaluate("fetch('https://example.org/').then(() => false, () => true)")
    inline = shown.evaluate(INLINE)
    shown.close()
    assert refused
    assert inline, "an inline script was run"
