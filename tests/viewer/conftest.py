"""A reading of two readers, and a blind one."""

import pytest
from readings import a_room, client


@pytest.fixture
def room(tmp_path):
    with a_room(tmp_path) as made:
        yield made


@pytest.fixture
def blind(tmp_path):
    with a_room(tmp_path, blind=True) as made:
        yield made


@pytest.fixture
def reader(room):
    """The page of reader A."""
    return client(room, "A")
