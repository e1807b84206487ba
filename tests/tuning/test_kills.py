import pytest
from kills import kill_and_check


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_ten_kills_at_random_moments_lose_and_double_nothing(kind, tmp_path):
    url = f"sqlite:///{tmp_path}/study.db" if kind == "sqlite" else f"journal:{tmp_path}/study.log"
    kills, counts = kill_and_check(url, 10, 150)
    assert kills >= 5
    assert counts["COMPLETE"] == 150
