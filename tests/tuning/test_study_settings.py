"""What a study may be told, and where it may be kept."""

import socket

import pytest
from searched import settings

from legradnet.errors import UserError
from legradnet.tuning.storage import has_password, open_storage, without_password


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"n_trials": 0}, "n_trials=0 must be a whole number of at least 1"),
        ({"sampler": "cmaes"}, "sampler.name=cmaes must be one of tpe, gp, random, grid, nsgaii"),
        ({"sampler": {"name": "tpe", "colour": 1}}, "sampler tpe: .*colour"),
        ({"pruner": "percentile"}, "pruner.name=percentile must be one of none, median"),
        ({"pruner": {"n_startup_trials": 1}}, "pruner has no name"),
        ({"pruner": {"name": "median", "n_startup_trials": -1}}, "pruner median: "),
        ({"direction": "up"}, "direction=up must be one of maximize, minimize"),
        ({"direction": ["maximize", "minimize"]}, "must be as many"),
        (
            {"direction": ["maximize"] * 2, "optimized_metric": ["a", "b"], "pruner": "median"},
            "several objectives cannot prune",
        ),
        ({"grace_period": 0.1}, "at least twice heartbeat_interval"),
        ({"n_trials": None}, "n_trials or timeout is needed"),
        ({"study_name": ""}, "study_name= must be a name"),
    ],
)
def test_wrong_settings_are_told(url, wrong, reason):
    with pytest.raises(UserError, match=reason):
        settings(url, **wrong)


@pytest.mark.parametrize("url", ["study.db", "sqlite:///", "mysql://h/d", "journal:", "redis://h"])
def test_other_storages_are_refused(url):
    with pytest.raises(UserError, match=r"must be sqlite:///PATH, postgresql://USER@HOST/DATABASE or journal:PATH"):
        open_storage(url)


def test_no_password_is_told_where_a_database_cannot_be_reached(monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setattr("legradnet.tuning.storage._OPENINGS", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://me:s3cret@127.0.0.1:{closed.getsockname()[1]}/d"
        with pytest.raises(UserError, match=r"me:\*\*\*@127.0.0.1.* cannot be opened: .*[Cc]onnection") as told:
            open_storage(url)
    assert "s3cret" not in str(told.value)
    assert has_password(url)
    assert not has_password("postgresql://me@h/d")
    assert without_password(f"a {url} b {url}").count("***") == 2
