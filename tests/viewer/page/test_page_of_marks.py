"""What a reader says of films: keys, notes, undo, what is shown as saved, other readers, and a blind study."""

import sqlite3
from types import SimpleNamespace

import pytest
from browsing import column, open_film, opened, overlapping, saved
from commands import predicted_run, started
from served import serve, serving


@pytest.fixture
def marks():
    """What becomes of marks on their way: `marks.go(route)`; at first they go to the server."""
    return SimpleNamespace(go=lambda route: route.continue_())


@pytest.fixture
def stopped(room, browser, marks):
    """The page that reader A has opened, whose marks go the way of `marks`."""
    with opened(browser, room, marks=lambda route: marks.go(route)) as page:
        yield page


def mark_of(served, name, reader="A"):
    """What the journal says of a film: (grade, note), or None."""
    row = next(row for row in served.room.worklist.rows if row.film.filename == name)
    mark = served.room.journal.current(reader, row.key) if row.digest else None
    return None if mark is None else (mark.grade, mark.note)


def await_another(page, name):
    """Wait until another film is open than that of this name."""
    page.locator("#film-name:not(:empty)").filter(has_not_text=name).wait_for()
    page.locator("#readout", has_text="%").wait_for()


@pytest.mark.parametrize("key", ["0", "u"])
def test_a_key_grades_z_takes_back_and_space_goes_on(page, room, key):
    name = open_film(page, int(key) if key != "u" else 2)
    page.keyboard.press(key)
    saved(page)
    assert mark_of(room, name) == (None if key == "u" else int(key), "")
    assert page.locator(f".grade-button[data-key='{key}']").get_attribute("aria-pressed") == "true"
    page.keyboard.press("z")
    saved(page, "Taken back at")
    assert mark_of(room, name) is None
    assert page.locator(".grade-button[aria-pressed=true]").count() == 0
    page.keyboard.press("Space")
    await_another(page, name)
    page.keyboard.press("Shift+Space")
    page.locator("#film-name").get_by_text(name, exact=True).wait_for()


def test_a_note_goes_with_the_grade_and_may_be_changed(page, room):
    name = open_film(page, 5)
    page.keyboard.press("n")
    page.keyboard.type("=osteophyte 3, <i>u</i> z")
    page.keyboard.press("Enter")
    page.keyboard.press("3")
    saved(page)
    assert mark_of(room, name) == (3, "=osteophyte 3, <i>u</i> z")
    page.keyboard.press("n")
    page.keyboard.type("!")
    with page.expect_response("**/mark"):
        page.keyboard.press("Escape")
    saved(page)
    assert mark_of(room, name) == (3, "=osteophyte 3, <i>u</i> z!")


def test_a_note_without_a_grade_waits_for_it_and_seconds_are_counted_once(browser, films, grader, tmp_path):
    with serving(tmp_path, films[:4], grader) as served, opened(browser, served) as page:
        page.clock.install()
        page.reload()
        page.locator("#rows .row .name").first.wait_for()
        name = open_film(page)
        page.keyboard.press("n")
        page.keyboard.type("look again ")
        page.keyboard.press("Enter")
        page.keyboard.press("Space")
        await_another(page, name)
        assert page.get_by_label("Note").input_value() == ""
        page.keyboard.press("Shift+Space")
        page.locator("#film-name").get_by_text(name, exact=True).wait_for()
        page.locator("#readout", has_text="%").wait_for()
        for key, seconds in (("1", 30), ("2", 10)):
            page.clock.fast_forward(1000 * seconds)
            with page.expect_response("**/mark"):
                page.keyboard.press(key)
            saved(page)
        assert mark_of(served, name) == (2, "look again")
    first, second = sqlite3.connect(tmp_path / "marks.sqlite").execute("SELECT seconds FROM marks ORDER BY id")
    assert 30 <= first[0] < 40
    assert 10 <= second[0] < 20


def test_a_mark_is_shown_as_saved_only_when_the_server_has_answered(stopped, marks, room):
    page, held = stopped, []
    name = open_film(page, 6)
    marks.go = held.append
    page.keyboard.press("1")
    page.locator("#saved").get_by_text("Saving").wait_for()
    page.wait_for_timeout(200)
    assert page.locator("#saved").inner_text() == "Saving …"
    assert mark_of(room, name) is None
    held[0].continue_()
    saved(page)
    assert mark_of(room, name) == (1, "")


def test_marks_of_a_lost_connection_are_told_and_sent_when_it_is_back(stopped, marks, room):
    page = stopped
    names = [open_film(page, 8)]
    marks.go = lambda route: route.abort()
    page.keyboard.press("2")
    page.locator("#saved").get_by_text("Not saved yet: trying again, 1 mark").wait_for()
    assert page.locator("#lost").is_visible()
    page.keyboard.press("Space")
    await_another(page, names[0])
    names.append(page.locator("#film-name").inner_text())
    page.keyboard.press("3")
    page.locator("#saved").get_by_text("2 marks wait").wait_for()
    assert [mark_of(room, name) for name in names] == [None, None]
    marks.go = lambda route: route.continue_()
    saved(page)
    assert [mark_of(room, name) for name in names] == [(2, ""), (3, "")]


def test_what_can_not_be_saved_is_told_in_the_words_of_the_server(stopped, marks):
    page = stopped
    marks.go = lambda route: route.fulfill(status=400, json={"error": "A note is shorter."})
    open_film(page, 10)
    page.keyboard.press("1")
    page.locator("#saved").get_by_text("Not saved: A note is shorter.").wait_for()


@pytest.mark.slow
def test_a_mark_that_is_shown_as_saved_survives_kill_9_of_the_server(browser, tmp_path):
    arguments = [f"input={predicted_run(tmp_path)}", f"output={tmp_path}/out", "readers=[A]"]
    kept = {}
    with (
        started(*arguments, cwd=tmp_path) as (process, address),
        opened(browser, SimpleNamespace(addresses={"A": address}, entered={})) as page,
    ):
        name = open_film(page)
        for key in ("2", "0", "3"):
            kept[name] = key
            page.keyboard.press(key)
            saved(page)
            if len(kept) < 3:
                page.keyboard.press("Space")
                await_another(page, name)
                name = page.locator("#film-name").inner_text()
        process.kill()  # at once, with signal 9
        process.wait()
        page.keyboard.press("Space")
        page.keyboard.press("4")
        page.close(run_before_unload=False)
    with (
        started(*arguments, cwd=tmp_path) as (process, address),
        opened(browser, SimpleNamespace(addresses={"A": address}, entered={})) as page,
    ):
        for name, key in kept.items():
            row = page.locator("#rows .row", has_text=name)
            row.locator(".mark-box").get_by_text(key, exact=True).wait_for()
        assert sorted(filter(None, page.locator("#rows .mark-box").all_inner_texts())) == sorted(kept.values())


def test_two_readers_see_each_others_marks_at_once(room, browser, page):
    with opened(browser, room, "B") as other:
        name = open_film(page, 11)
        open_film(other, 11)
        page.keyboard.press("4")
        other.locator("#others").get_by_text("A: 4").wait_for()
        other.keyboard.press("1")
        page.locator("#others").get_by_text("B: 1").wait_for()
        page.keyboard.press("Escape")
        page.locator("#rows .row", has_text=name).get_by_text("B: 1").wait_for()


def test_in_a_blind_study_the_answer_comes_after_the_grade_and_may_be_accepted(films, grader, browser, tmp_path):
    with (
        serving(tmp_path, films[:6], grader, readers=("A", "B"), blind=True) as served,
        opened(browser, served) as page,
        opened(browser, served, "B") as other,
    ):
        assert page.locator("#rows .grade").all_inner_texts() == [""] * 6
        name = open_film(page)
        assert page.locator("#answer").inner_text() == "Hidden until you have graded this film."
        page.keyboard.press("h")
        model = next(row for row in served.room.worklist.rows if row.film.filename == name).record["grade"]
        own = (model + 1) % 5
        page.keyboard.press(str(own))
        page.locator("#decide").get_by_text(f"The model says {model}; you said {own}.").wait_for()
        assert page.locator("#answer .bar-row.given").count() == 1
        page.keyboard.press("a")
        page.locator(f".grade-button[data-key='{model}'][aria-pressed=true]").wait_for()
        saved(page)
        assert mark_of(served, name) == (model, "")
        assert not overlapping(page)
        page.locator("#export summary").click()
        page.get_by_text("Grades of most readers").click()
        page.get_by_text("when you have marked every film").wait_for()
        with page.expect_download() as download:
            page.get_by_text("Grades of A").click()
        assert name in download.value.path().read_text()
        page.locator("#film-name").click()
        page.keyboard.press("Space")
        await_another(page, name)
        assert page.locator("#answer").inner_text() == "Hidden until you have graded this film."
        assert page.locator("#add").is_hidden()
        assert other.locator("#rows .mark-box, #rows .others").count() == 0
        assert sorted(column(other, "film")) == sorted(column(page, "film"))
    before, after = sqlite3.connect(tmp_path / "marks.sqlite").execute("SELECT grade, shown FROM marks ORDER BY id")
    assert (before, after) == ((own, 0), (model, 1))


def test_the_summary_says_how_readers_and_model_agree(page):
    page.click("#to-summary")
    page.get_by_role("heading", name="Readers and the model").wait_for()
    assert "You have marked" in page.locator("#summary-body").inner_text()
    for link in page.locator("#summary-body .exports a").all():
        answer = page.request.get(link.evaluate("link => link.href"))
        assert answer.ok and answer.text().startswith("filename,")


def test_reading_goes_on_where_a_killed_server_was(films, grader, browser, tmp_path):
    first = serve(tmp_path, films[:6], grader)
    port = int(first.addresses["A"].partition("/?")[0].rpartition(":")[2])
    with opened(browser, first) as page:
        name = open_film(page)
        page.keyboard.press("1")
        saved(page)
        first.stop()
        page.keyboard.press("2")
        page.locator("#saved").get_by_text("Not saved yet").wait_for()
        assert "is lost" in page.locator("#lost").inner_text()
        page.keyboard.press("Space")
        page.locator("#film-trouble").get_by_text("the connection is lost").wait_for()
        page.keyboard.press("4")  # grades nothing: there is no film
        with serving(tmp_path, films[:6], grader, port=port) as again:
            assert mark_of(again, name) == (1, "")
            page.locator("#saved").get_by_text("open the address that legradnet-view prints").wait_for()
            with page.expect_response("**/mark", timeout=20_000) as answer:
                page.goto(again.addresses["A"])
            page.locator("#rows .mark-box").get_by_text("2", exact=True).wait_for()
            assert answer.value.status in (200, 404)  # the film may be called otherwise now
            marks = [mark_of(again, path.name) for path in films[:6]]
            assert [mark for mark in marks if mark] == [(2, "")]
