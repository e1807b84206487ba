"""What a reader sees of films: the list, a film in all its depth, its heat map, and what was dropped."""

import numpy as np
import pytest
from browsing import column, drag, drop, listed_anew, open_film, opened, pixel, pixels, readout, saved
from PIL import Image
from served import serving

from hostile_films import dicom, dicom_bytes
from legradnet.data.drawn_knee import draw_knee
from whole_films import CLEAR, LEFT, RIGHT, whole_film

KNEE = draw_knee(0.4, "L", np.random.default_rng(0), size=64)[:60].astype(np.uint16)


def numbers(cells):
    return [float(cell) for cell in cells if cell]


def test_the_most_uncertain_film_comes_first_and_headings_sort(page):
    first = numbers(column(page, "probability"))
    assert len(first) > 5
    assert first == sorted(first)
    for heading, kind, key in (("Film", "film", str), ("Grade", "grade", float), ("Probability", "probability", float)):
        ways = set()
        for _ in range(2):
            with listed_anew(page):
                page.locator("#headings").get_by_role("button", name=heading).click()
            way = page.locator(f"#headings .{kind}").get_attribute("aria-sort")
            cells = [key(cell) for cell in column(page, kind)]
            assert cells == sorted(cells, reverse=way == "descending")
            ways.add(way)
        assert ways == {"ascending", "descending"}


def test_the_list_is_filtered_by_what_the_reader_asks_for(page):
    page.click("#show-filters")
    with listed_anew(page):
        page.locator("#filters [name=side]").select_option("left")
    assert set(column(page, "side")) == {"left"}
    with listed_anew(page):
        page.locator("#filters [name=q]").fill("no such knee")
    assert page.locator("#empty-words").inner_text() == "No film passes this filter."
    with listed_anew(page):
        page.get_by_role("button", name="Show all").click()
    assert set(column(page, "side")) == {"left", "right"}


def test_ten_thousand_films_are_a_few_rows_wherever_one_scrolls(page):
    row = page.evaluate("fetch('/api/films?limit=1').then(answer => answer.json())")["items"][0]

    def ten_thousand(route):
        offset = int(route.request.url.partition("offset=")[2].partition("&")[0])
        items = [row | {"id": f"f{i}", "name": f"knee {i}"} for i in range(offset, min(offset + 100, 10_000))]
        route.fulfill(json={"total": 10_000, "offset": offset, "revision": 0, "items": items})

    page.route("**/api/films?*", ten_thousand)
    page.route("**/thumbnail", lambda route: route.abort())
    with listed_anew(page):
        page.locator("#sort").select_option("as listed")
    for place, name in ((0.5, "knee 5000"), (1, "knee 9999"), (0.25, "knee 2500"), (0, "knee 0")):
        page.evaluate(
            "at => { const s = document.getElementById('scroller'); s.scrollTop = at * s.scrollHeight; }", place
        )
        page.get_by_text(name, exact=True).wait_for()
        assert page.locator("#rows .row").count() < 40
    assert page.locator("#grid").get_attribute("aria-rowcount") == "10001"


def test_dragging_changes_window_and_level_and_reset_brings_them_back(page):
    open_film(page)
    width, level, _ = readout(page)
    before = pixel(page)
    drag(page, 0, 80)
    assert readout(page)[1] > level
    assert pixel(page) < before, "a higher level is darker"
    drag(page, 120, 0)
    assert readout(page)[0] > width
    page.keyboard.press("i")
    page.locator("#invert[aria-pressed=true]").wait_for()
    page.keyboard.press("r")
    assert readout(page)[:2] == (width, level)
    assert pixel(page) == before
    page.keyboard.press("i")
    page.locator("#invert[aria-pressed=true]").wait_for()
    assert abs(pixel(page)[0] + before[0] - 255) <= 1


def test_wheel_zooms_at_the_pointer_and_fit_shows_all_again(page):
    open_film(page)
    page.keyboard.press("b")  # no other film beside it
    box = page.locator(".film.main .surface").bounding_box()
    at = (0.6, 0.4)
    _, _, fitted = readout(page)
    before = pixel(page, *at)
    page.mouse.move(box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"])
    page.mouse.wheel(0, -400)
    _, _, zoomed = readout(page)
    assert zoomed > 1.5 * fitted
    assert abs(pixel(page, *at)[0] - before[0]) < 12, "what is under the pointer stays there"
    page.keyboard.press("m")
    page.mouse.wheel(0, 2000)
    drag(page, 200, 0)
    page.keyboard.press("f")
    assert readout(page)[2] == fitted


def test_two_fingers_move_and_zoom(room, browser):
    with opened(browser, room, width=360, has_touch=True) as page:
        open_film(page)
        _, _, before = readout(page)
        touch = page.context.new_cdp_session(page)
        box = page.locator(".film.main .surface").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 80)):
            points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert readout(page)[2] > 1.5 * before


def test_a_window_is_the_straight_line_of_the_standard(page):
    window, numbers = {"level": 1000, "width": 2777}, [0, 1, 500, 999, 1000, 2388, 2389, 4095]
    grays = page.evaluate(
        "async ([w, n]) => { const look = (await import('/page/window_level.js')).grays(w, 12, false);"
        " return n.map(i => look[i] & 255); }",
        [window, numbers],
    )
    black = window["level"] - window["width"] / 2
    assert grays == [round(255 * min(max((number - black) / window["width"], 0), 1)) for number in numbers]


def test_the_heat_map_lies_on_the_film_when_it_is_asked_for(page):
    open_film(page)

    def coloured():
        seen = pixels(page, [(x / 8, y / 8) for x in range(1, 8) for y in range(1, 8)])
        return any(max(colour) - min(colour) > 8 for colour in seen)

    assert not coloured()
    page.keyboard.press("h")
    page.locator("#heat").get_by_text("Computed in").wait_for()
    assert coloured()
    page.get_by_label("Opacity").fill("0")
    assert not coloured()
    page.get_by_label("Opacity").fill("80")
    for backbone in ("vit", "swin"):
        with page.expect_response(lambda answer, key=backbone: f"backbone={key}" in answer.url) as answer:
            page.get_by_label("Backbone").select_option(backbone)
        assert answer.value.ok
    with page.expect_response("**/map?method=eigencam*"):
        page.get_by_label("Method").select_option("eigencam")
    page.keyboard.press("h")
    assert not coloured()


def test_the_answer_is_told_in_the_words_of_predictions_csv(page, room):
    name = open_film(page)
    row = next(row for row in room.room.worklist.rows if row.film.filename == name)
    answer = page.locator("#answer").inner_text()
    assert f"prediction set {' '.join(map(str, row.record['prediction_set']))}" in answer
    assert f"expected grade {row.record['expected_grade']:.2f}" in answer
    held = page.locator("#answer .bar-row.held .unseen").all_inner_texts()
    assert held == [
        f"grade {k}: {row.record['probabilities'][k]:.2f}, in the prediction set" for k in row.record["prediction_set"]
    ]
    gates = page.get_by_role("list", name="Gate weights").locator(".unseen").all_inner_texts()
    assert gates == [f"{key}: {weight:.2f}" for key, weight in row.record["gate_weights"].items()]
    assert all(part in answer for part in row.record["reason"].split("; "))


def test_both_knees_of_a_patient_stand_side_by_side_the_right_one_on_the_left(page):
    with listed_anew(page):
        page.locator("#headings").get_by_role("button", name="Film").click()
    open_film(page, 0)
    page.locator(".film.second").wait_for()
    sides = page.locator("#surfaces figcaption").all_inner_texts()
    assert ["right" in words for words in sides] == [True, False]
    page.keyboard.press("b")
    assert page.locator(".film.second").is_hidden()


def test_a_dropped_dicom_keeps_its_depth_and_a_broken_file_says_why(page):
    deep = dicom_bytes(dicom(KNEE * 16, WindowCenter=2000, WindowWidth=3000))
    drop(page, {"<b onclick=1>deep.dcm": deep, "broken.png": b"\x89PNG\r\n\x1a\n and nothing more"})
    page.locator("#added").get_by_text("2 added").wait_for()
    page.click("#show-filters")
    with listed_anew(page):
        page.locator("#filters [name=q]").fill("broken")
    page.locator("#rows .row .error", has_text="PNG").wait_for()
    with listed_anew(page):
        page.locator("#filters [name=q]").fill("deep")
    page.locator("#rows .row .probability", has_text=".").first.wait_for()
    assert "deep.dcm" in open_film(page)
    assert readout(page)[:2] == pytest.approx((3000, 2000), abs=1)  # LINEAR is half a value off
    assert "12 bit" in page.locator("#film-place").inner_text()


def test_a_folder_is_taken_with_all_its_films(page, films, tmp_path):
    inner = tmp_path / "folder" / "inner"
    inner.mkdir(parents=True)
    for place, film in ((inner, films[0]), (inner.parent, films[1])):
        (place / f"again {film.name}").write_bytes(film.read_bytes() + b" ")
    page.locator("#folder").set_input_files(inner.parent)
    page.locator("#added").get_by_text("2 added").wait_for()
    page.click("#show-filters")
    with listed_anew(page):
        page.locator("#filters [name=q]").fill("again")
    page.get_by_text("2 films", exact=True).wait_for()


def test_grading_is_paused_and_goes_on(films, grader, browser, tmp_path):
    with (
        serving(tmp_path, films[:9], grader, graded=False, paused=True) as served,
        opened(browser, served) as page,
    ):
        page.locator("#progress-words", has_text="Paused at 0 of 9").wait_for()
        assert page.locator("#rows .referred").all_inner_texts() == ["not graded yet"] * 9
        page.get_by_role("button", name="Go on").click()
        page.locator("#progress-words", has_text="Graded 9 of 9").wait_for()
        page.locator("#rows .probability", has_text=".").nth(8).wait_for()


@pytest.mark.slow
def test_grading_is_stopped_for_good_and_marks_go_on(films, grader, browser, tmp_path):
    with (
        serving(tmp_path, films[:6], grader, graded=False, paused=True) as served,
        opened(browser, served) as page,
    ):
        page.get_by_role("button", name="Stop").click()
        page.locator("#progress-words", has_text="Stopped at 0 of 6").wait_for()
        assert page.locator("#pause").is_hidden()
        open_film(page)
        page.keyboard.press("3")
        saved(page)


SQUARE = """new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => {
    const canvas = document.querySelector(".film.main canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    const line = [255, 213, 74];
    for (let at = 0; at < data.length; at += 4) count += line.every((channel, i) => data[at + i] === channel);
    drawn(count);
})))"""  # pixels of the square's line


def test_a_whole_film_has_a_row_for_each_knee_and_its_square_is_drawn_on_it(browser, grader, tmp_path):
    Image.fromarray(whole_film(RIGHT, LEFT, seed=CLEAR)).save(tmp_path / "legs.png")
    Image.fromarray(np.full((300, 400), 90, np.uint8)).save(tmp_path / "none.png")
    with serving(tmp_path, [tmp_path / "legs.png", tmp_path / "none.png"], grader) as served:  # noqa: SIM117
        with opened(browser, served) as page:
            page.locator("#rows .row").nth(2).wait_for()
            assert column(page, "film") == ["legs.png", "legs.png", "none.png"]
            assert sorted(column(page, "side")[:2]) == ["left", "right"]
            assert "no knee seen from the front was found" in column(page, "referred")[2]
            assert page.locator("#progress-failed").inner_text() == ""
            open_film(page)
            near = page.evaluate(SQUARE)
            page.keyboard.press("f")
            assert near > page.evaluate(SQUARE) > 100
            assert page.locator(".film.second .quiet").inner_text()[:4] in ("left", "righ")
            page.keyboard.press("Escape")
            open_film(page, 2)
            page.locator("#answer").get_by_text("The model gives no grade.").wait_for()
            assert page.evaluate(SQUARE) == 0
