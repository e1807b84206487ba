"""What a study may be told, and where it may be kept."""

import socket
import sys

import pytest
import yaml
from searched import settings

from legradnet.cli import config_folder
from legradnet.errors import UserError, without_passwords
from legradnet.settings import flat, keys
from legradnet.tuning.settings import StudySettings, SweeperSettings
from legradnet.tuning.storage import has_password, open_storage


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"n_trials": 0}, "n_trials=0 must be a whole number of at least 1"),
        ({"sampler": "guess"}, "sampler.name=guess must be one of tpe, gp, cmaes, botorch, random, grid, nsgaii"),
        ({"sampler": {"name": "tpe", "colour": 1}}, "sampler tpe: .*colour"),
        ({"pruner": "percentile"}, "pruner.name=percentile must be one of none, median"),
        ({"pruner": {"n_startup_trials": 1}}, "pruner has no name"),
        ({"pruner": {"name": "median", "n_startup_trials": -1}}, "pruner median: "),
        ({"direction": "up"}, r"direction\.0=up must be one of maximize, minimize"),
        ({"direction": ["maximize", "minimize"]}, "must be as many"),
        (
            {"direction": ["maximize"] * 2, "optimized_metric": ["a", "b"], "pruner": "median"},
            r"several objectives cannot prune: hydra\.sweeper\.pruner=none",
        ),
        ({"grace_period": 0.1}, "at least twice heartbeat_interval"),
        ({"n_trials": None}, "n_trials or timeout is needed"),
        ({"study_name": ""}, "study_name= must be a name"),
    ],
)
def test_wrong_settings_are_told(url, wrong, reason):
    with pytest.raises(UserError, match=reason):
        settings(url, **wrong)


def test_all_wrong_settings_are_told_at_once():
    with pytest.raises(UserError) as mistake:
        sweeper = {"storage": "journal:x", "study_name": "", "n_jobs": 0.5, "sampler": "guess", "pruner": {"p": 1}}
        SweeperSettings.of({**sweeper, "_target_": "any", "colour": 1, "enqueue": [1]})
    told = str(mistake.value).splitlines()
    for key in ("study_name", "n_jobs", "sampler.name", "pruner", "colour", "enqueue.0"):
        assert sum(line.startswith(f"  hydra.sweeper.{key}") for line in told) == 1, (key, told)
    with pytest.raises(UserError, match=r"(?s)as many.*at least twice heartbeat_interval.*sampler tpe: .*colour"):
        settings("journal:x", direction=[], grace_period=0.1, sampler={"name": "tpe", "colour": 1})


def test_the_shipped_sweeper_says_the_models_defaults():
    written = yaml.safe_load((config_folder() / "hydra/sweeper/legradnet_optuna.yaml").read_text())
    assert written.pop("_target_") == "hydra_plugins.legradnet_optuna.sweeper.OptunaSweeper"
    assert written["direction"] == "maximize" and StudySettings.model_fields["direction"].default == ("maximize",)
    defaults = {key.name: key.default for key in keys(SweeperSettings)} | {"direction": "maximize"}
    shipped = {**flat(written), "params": written["params"]}
    assert list(shipped) == list(defaults)
    named = {key for key, value in shipped.items() if "${" in str(value)}  # of the sweep
    assert named == {"study_name", "storage", "optimized_metric"}
    assert {key: shipped[key] for key in shipped if key not in named} == {
        key: defaults[key] for key in defaults if key not in named
    }
    assert all(key.description for key in keys(SweeperSettings))


@pytest.mark.parametrize("sampler", ["cmaes", "botorch"])
def test_a_sampler_whose_package_is_missing_says_how_to_get_it(url, sampler, monkeypatch):
    monkeypatch.setitem(sys.modules, sampler, None)
    with pytest.raises(UserError, match=rf"sampler {sampler} needs a package .*: pip install -e '\.\[samplers\]'"):
        settings(url, sampler=sampler)


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
    assert without_passwords(f"a {url} b {url}").count("***") == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3 cret@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:s3@cret@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:s3/cret:x@h/d", "postgresql://me:***@h/d"),
        ("postgresql://two words:s3cret@h/d", "postgresql://two words:***@h/d"),
        ("postgresql://h/d?user=me&PASSWORD=s3 cret&x=1", "postgresql://h/d?user=me&PASSWORD=***&x=1"),
        ("postgresql://h/d?sslpassword=s3cret", "postgresql://h/d?sslpassword=***"),
        ("postgresql://h/d?pass%77ord=s3cret", "postgresql://h/d?pass%77ord=***"),
        ("postgresql://me:s3${oc.env:CRET}@h/d", "postgresql://me:***@h/d"),
    ],
)
def test_a_password_is_seen_however_it_is_written(url, shown):
    assert has_password(url)
    assert without_passwords(f"{url} cannot be opened").startswith(shown.partition("&x")[0])
    assert without_passwords(url) == without_passwords(without_passwords(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        *("postgresql://me@h:5432/d", "sqlite:///a:b@c.db", "journal:/a@b:c", "postgresql://h/d?user=me"),
        *("postgresql://${oc.env:U}:${oc.env:P}@h/d", "postgresql://h/d?password=${oc.env:P}"),
    ],
)
def test_what_is_no_password_is_not_taken_for_one(url):
    assert not has_password(url)


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"garbage\n", b"no end", b"[]\n", b"{}\n", b'{"op_code": 99}\n', b"\xff\xfe\n", b"x\n" * 40_000),
        b'{"op_code": 0, "worker_id": "a"}\n',
        b'{"op_code": 0, "worker_id": "a", "study_name": "s", "directions": [7]}\n',
    ],
)
def test_garbage_in_a_journal_is_told_in_a_sentence_and_stays(tmp_path, garbage):
    path = tmp_path / "study.log"
    path.write_bytes(garbage)
    with pytest.raises(UserError, match=f"storage=journal:{path}: {path} is damaged or no journal of a study"):
        open_storage(f"journal:{path}")
    assert path.read_bytes() == garbage
