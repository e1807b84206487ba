"""The page works for everyone: by keyboard alone, on every screen, in dark and light, and for screen readers."""

import pytest
from browsing import WIDTHS, open_film, opened, overlapping, readout, saved

from legradnet.viewer.room import NOTICE

STICKING_OUT = """[...document.querySelectorAll("button, input, select, textarea, label, h2, h3, th, .cell")].filter(
    (e) => e.offsetParent && !e.closest(".table-scroller") && e.getBoundingClientRect().right > innerWidth + 1
).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def axe():
    playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    return playwright.Axe()


def views(page):
    """Each view of the page, one after the other."""
    page.click("#show-filters")
    yield "list"
    page.click("#show-filters")
    open_film(page)
    page.keyboard.press("h")
    page.locator("#heat").get_by_text("Computed in").wait_for()
    yield "film"
    page.click("#to-summary")
    page.get_by_role("heading", name="Pace").wait_for()
    yield "summary"


def serious(axe, page):
    """What axe finds that is serious or worse."""
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]


def check(room, browser, axe, width, scheme):
    with opened(browser, room, width=width, scheme=scheme) as page:
        for view in views(page):
            assert not serious(axe, page), view
            wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], view
            assert not page.evaluate(STICKING_OUT), view
            assert not overlapping(page), view
            notice = page.get_by_text(NOTICE.rstrip("."))
            assert notice.is_visible(), view
            box = notice.bounding_box()
            assert box["y"] + box["height"] <= WIDTHS[width], view


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), pytest.param(1440, "dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious_and_nothing_sticks_out(room, browser, axe, width, scheme):
    check(room, browser, axe, width, scheme)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (768, "dark"), (768, "light"), (1440, "light")])
def test_axe_finds_nothing_serious_on_other_screens(room, browser, axe, width, scheme):
    check(room, browser, axe, width, scheme)


def test_all_is_done_by_keyboard_alone(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#rows .row')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    name = page.evaluate("document.activeElement.querySelector('.name').textContent")
    page.keyboard.press("Enter")
    page.locator("#film-name").get_by_text(name, exact=True).wait_for()
    page.locator("#readout", has_text="%").wait_for()
    width, level, zoom = readout(page)
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    seen = readout(page)
    assert seen[0] > width
    assert seen[1] > level
    assert seen[2] > zoom
    page.keyboard.press("2")
    saved(page)
    page.keyboard.press("Escape")
    page.locator("#rows .row:focus").get_by_text(name, exact=True).wait_for()
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")


def test_every_key_that_is_listed_is_on_its_button(page):
    listed = page.evaluate("document.querySelectorAll('[aria-keyshortcuts]').length")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, a, input, select, textarea')].filter(e => !e.hidden &&"
        " !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert listed > 15
    assert not unnamed


def test_the_reader_chooses_dark_or_light_and_the_page_remembers(room, browser):
    with opened(browser, room, scheme="light") as page:

        def ground():
            return page.evaluate("getComputedStyle(document.body).backgroundColor")

        light = ground()
        page.click("#theme")
        assert page.locator("#theme").inner_text() == "Dark"
        dark = ground()
        assert dark != light
        page.reload()
        page.locator("#rows .row .name").first.wait_for()
        assert ground() == dark
        page.click("#theme")
        assert ground() == light
