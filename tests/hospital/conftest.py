"""What a node sends to."""

import pytest


@pytest.fixture
def receiver():
    pytest.importorskip("pynetdicom", reason="the extra [hospital] is not installed")
    from nodes import Receiver

    made = Receiver()
    yield made
    made.close()
