"""Debian's Chromium, led by Playwright through the pages of a reading room."""

import base64
import shutil
from contextlib import contextmanager

import pytest

WIDTHS = {360: 740, 768: 1024, 1440: 900}  # pixels: a telephone, a tablet upright, a desk


@contextmanager
def chromium():
    """A browser; the test is skipped with the reason where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if (path := shutil.which("chromium")) is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])  # which root may not have
        yield browser
        browser.close()


@contextmanager
def opened(browser, served, reader="A", width=1440, scheme="dark", films=True, marks=None, **context):
    """A reader's page of a room that is served, with films in its list; whatever it does wrong fails the test.

    `marks` gets each mark on its way, a Playwright route, and says what becomes of it. That is arranged before the page
    is opened: Chromium tells a page that is there that its requests are to be held only some time later, and one that
    begins before goes to the server.

    Wrong are errors of its scripts, whatever its Content-Security-Policy refuses, and requests to anybody else. A
    reader's address is good for one time: what was entered by it is kept for the next page.
    """
    size = {"width": width, "height": WIDTHS[width]}
    entered = served.entered.get(reader)
    place = browser.new_context(viewport=size, color_scheme=scheme, storage_state=entered, **context)
    place.set_default_timeout(15_000)
    if marks:
        place.route("**/mark", marks)
    address = served.addresses[reader]
    page, wrong = place.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    origin = address.partition("/?")[0]
    ours = (f"{origin}/", "data:", f"blob:{origin}/")
    page.on("request", lambda request: None if request.url.startswith(ours) else wrong.append(request.url))
    page.goto(address if entered is None else f"{origin}/")
    served.entered[reader] = place.storage_state()
    if films:
        page.locator("#rows .row .name").first.wait_for()
    yield page
    place.close()
    assert not wrong


def open_film(page, number=0):
    """Open the film of a row of the list, and wait until its picture is drawn; gives its name."""
    row = page.locator("#rows .row").nth(number)
    name = row.locator(".film .name").inner_text()
    row.click()
    page.locator("#film-name").get_by_text(name, exact=True).wait_for()
    page.locator("#readout", has_text="%").wait_for()
    return name


def saved(page, words="Saved at"):
    """Wait until the page shows a mark as saved."""
    page.locator("#saved").get_by_text(words).wait_for()


def readout(page):
    """(window's width, level, zoom in percent) as the page shows them."""
    page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    width, level, zoom = page.locator("#readout").inner_text().replace("%", "").split("  ")
    return float(width.removeprefix("W ")), float(level.removeprefix("L ")), float(zoom)


def pixels(page, places):
    """(red, green, blue) that the canvas of the film shows at each of some parts of its width and height."""
    return page.evaluate(
        """places => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => {
            const canvas = document.querySelector(".film.main canvas");
            drawn(places.map(([x, y]) => {
                const at = [x * canvas.width, y * canvas.height].map(Math.floor);
                return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
            }));
        })))""",
        [*places],
    )


def pixel(page, x=0.5, y=0.5):
    """What it shows there."""
    return pixels(page, [(x, y)])[0]


def drag(page, right, down, button="left"):
    """Drag from the middle of the film, pixels."""
    box = page.locator(".film.main .surface").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down(button=button)
    page.mouse.move(x + right, y + down, steps=4)
    page.mouse.up(button=button)


def drop(page, files):
    """Drop files {name: bytes} on the page."""
    held = [(name, base64.b64encode(content).decode()) for name, content in files.items()]
    page.evaluate(
        """files => {
            const dropped = new DataTransfer();
            for (const [name, content] of files) {
                dropped.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name));
            }
            const target = document.getElementById("main");
            for (const kind of ["dragenter", "dragover", "drop"]) {
                target.dispatchEvent(new DragEvent(kind, { dataTransfer: dropped, bubbles: true, cancelable: true }));
            }
        }""",
        held,
    )


def overlapping(page):
    """Texts in rows of the list that lie over each other, or over their row's edge, as they are seen: (text, text)."""
    return page.evaluate(
        """() => [...document.querySelectorAll("#rows .row")].flatMap((row) => {
            const seen = [...row.querySelectorAll(".cell")].flatMap((cell) => {
                const words = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
                const [found, c] = [[], cell.getBoundingClientRect()];
                for (let node = words.nextNode(); node; node = words.nextNode()) {
                    const range = document.createRange();
                    range.selectNodeContents(node);
                    const [own, p] = [node.parentElement, node.parentElement.getBoundingClientRect()];
                    const isCut = getComputedStyle(own).overflowY !== "visible"; // lines beyond a clamp are not seen
                    const [top, bottom] = isCut ? [p.top, p.bottom] : [-1e9, 1e9];
                    for (const r of range.getClientRects()) { // what overflows a cell is cut
                        const [x0, x1] = [Math.max(r.left, c.left), Math.min(r.right, c.right)];
                        const [y0, y1] = [Math.max(r.top, top), Math.min(r.bottom, bottom)];
                        if (x1 - x0 > 1 && y1 - y0 > 2) found.push({ text: node.data, cell, x0, x1, y0, y1 });
                    }
                }
                return found;
            });
            const edge = row.getBoundingClientRect();
            const over = seen.filter((a) => a.y1 > edge.bottom + 1 || a.y0 < edge.top - 1).map((a) => [a.text, "edge"]);
            return over.concat(seen.flatMap((a, i) => seen.slice(i + 1).filter((b) => a.cell !== b.cell &&
                Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0) > 1 && Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0) > 2
            ).map((b) => [a.text, b.text])));
        })"""
    )


def column(page, kind):
    """What the cells of a column say, row by row as they are seen."""
    return page.locator(f"#rows .row .{kind}").all_inner_texts()


@contextmanager
def listed_anew(page):
    """Wait, after what is done inside, until the list that was asked for is drawn."""
    with page.expect_response(lambda answer: "/api/films?" in answer.url):
        yield
    page.evaluate("new Promise(drawn => requestAnimationFrame(() => setTimeout(drawn, 0)))")
