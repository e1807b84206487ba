"""Workers of a study are killed, and nothing is lost, doubled or changed."""

import pytest
from kills import kill_and_check


@pytest.mark.parametrize(
    "kills", [pytest.param(4, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.by_hand)], ids=str
)
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_lose_and_double_nothing(kind, kills, tmp_path):
    kill_and_check(f"sqlite:///{tmp_path}/study.db" if kind == "sqlite" else f"journal:{tmp_path}/study.log", kills)
