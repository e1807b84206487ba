"""A browser, and what the rooms of these tests have in common."""

import pytest
from browsing import chromium, opened
from served import grader_of, serving


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, for one module's tests: skipped with a reason where it is not."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def grader(trained):
    """A small network that grades."""
    return grader_of(trained)


@pytest.fixture(scope="module")
def films(knees):
    """The films of twelve patients, both knees of most."""
    return sorted(knees.glob("*.png"))[:24]


@pytest.fixture(scope="module")
def room(films, grader, tmp_path_factory):
    """Those films, graded, for the readers A and B; what one test marks stays."""
    with serving(tmp_path_factory.mktemp("room"), films, grader, readers=("A", "B")) as served:
        yield served


@pytest.fixture
def page(room, browser):
    """The page that reader A has opened, on a wide screen."""
    with opened(browser, room) as page:
        yield page
