"""A path reaches a command as the shell gave it, whatever Hydra's grammar makes of its characters."""

import os
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from legradnet.cli._arguments import readable
from legradnet.errors import UserError
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.export.settings import ExportSettings
from legradnet.grading.settings import PredictSettings
from legradnet.settings import Kind, checked, keys
from legradnet.training.settings import TrainSettings

# what Linux allows as the name of a file, UTF-8 or not, with more of what Hydra and OmegaConf read their own way
BYTES = st.binary(min_size=1, max_size=60).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"|"))
SIGNS = st.lists(
    st.sampled_from(
        [*"$ {}[](),=:\\'\"~?+-.*%#&@!1e\n\t", "${", "\\${", "null", "true", "???", "oc.env:HOME", "膝", "ö"]
    ),
    min_size=1,
    max_size=12,
).map(lambda signs: "".join(signs).encode()[:250])
NAMES = st.one_of(BYTES, SIGNS).map(os.fsdecode).filter(lambda name: name not in (".", ".."))


def meant(*arguments, key="input", model=PredictSettings):
    """What a command gets for `key` from these arguments."""
    given = {}
    for text in readable(arguments, lambda: keys(model)):
        override = OverridesParser.create().parse_override(text)
        given[override.key_or_group] = override.value()
    return OmegaConf.to_container(OmegaConf.create(given), resolve=True)[key]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
def test_any_name_that_linux_allows_reaches_the_command_as_itself(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with open(name, "wb"):  # noqa: PTH123 whatever bytes it is
        pass
    got = meant(f"input={name}")
    assert got.removeprefix("./") == name.removeprefix("./")
    assert checked(PredictSettings, {"checkpoint": "c", "input": got}).input == got
    assert meant(f"input={tmp_path}/{name}") == f"{tmp_path}/{name}"
    os.unlink(name)  # noqa: PTH108


@settings(max_examples=60, deadline=None)
@given(NAMES.filter(lambda name: "${" not in name and name.strip(" \t") and name[0] not in "'\"~"))
def test_a_path_that_is_still_to_be_made_is_the_path_that_was_typed(name):
    assert meant(f"output=no/{name}", key="output", model=ExportSettings) == f"no/{name}"
    assert meant(f"hydra.run.dir=no/{name}", key="hydra.run.dir") == f"no/{name}"


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_what_is_readable_stays_readable(name):
    once = readable([f"input={name}"], lambda: keys(PredictSettings))
    assert readable(once, lambda: keys(PredictSettings)) == once


def test_every_key_that_takes_a_path_says_so():
    said = {key.name for model in (TrainSettings, EvaluateSettings, PredictSettings, ExportSettings)
            for key in keys(model) if key.kind is Kind.PATH}  # fmt: skip
    assert said == {
        *("checkpoint", "input", "output", "ckpt_path", "init_from", "backbone.<key>.weights"),
        *("data.dataset_path", "data.csv_path", "data.cache_dir", "evaluation", "facts"),
        *("merge", "dicom", "predictions", "reference"),
    }


@pytest.mark.parametrize(
    ("argument", "got"),
    [
        ("checkpoint=[a.ckpt,b (1).ckpt]", ["a.ckpt", "b (1).ckpt"]),
        ("checkpoint=[~/a.ckpt,'b,c.ckpt',1]", ["/home/me/a.ckpt", "b,c.ckpt", "1"]),
        ("checkpoint=[Röntgen [2019]/a.ckpt,[b=c.ckpt,2]]", ["Röntgen [2019]/a.ckpt", ["b=c.ckpt", "2"]]),
        ("checkpoint=['a b.ckpt']", ["a b.ckpt"]),
        ("checkpoint='a b.ckpt'", "a b.ckpt"),
        ("checkpoint=a,b", "a,b"),
        ("checkpoint={a:b}", "{a:b}"),
        ("checkpoint=2019", "2019"),
        ("checkpoint=null", None),
        ("checkpoint=${oc.env:WHERE}/膝 (1).ckpt", "/somewhere/膝 (1).ckpt"),
        ("checkpoint='${oc.env:WHERE}'", "/somewhere"),
        ("data.cache_dir=null", None),
        ("data.patient_regex=^(?P<patient>\\d+)[LR]$", "^(?P<patient>\\d+)[LR]$"),
        ("data.patient_regex='^(?P<patient>\\d+)'", "^(?P<patient>\\d+)"),
        ("++data.csv_path=a, b.csv", "a, b.csv"),
    ],
)
def test_lists_interpolations_and_null_stay_what_they_are(argument, got, monkeypatch):
    monkeypatch.setenv("WHERE", "/somewhere")
    monkeypatch.setenv("HOME", "/home/me")
    assert meant(argument, key=argument.partition("=")[0].lstrip("+"), model=EvaluateSettings) == got


@pytest.mark.parametrize(
    ("argument", "runs"),
    [
        ("input=a,b", ["a", "b"]),
        ("input=膝.png,b (1).png", ["膝.png", "b (1).png"]),
        ("input=1,2", ["1", "2"]),
        ("input='a,b',c", ["a,b", "c"]),
        ("input=choice(a,b)", ["a", "b"]),
        ("input=there, too", ["there, too"]),
        ("checkpoint=[a,b],c", [["a", "b"], "c"]),
    ],
)
def test_several_runs_go_over_paths_too(argument, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there, too").touch()
    _, text = readable(["-m", argument], lambda: keys(PredictSettings))
    override = OverridesParser.create().parse_override(text)
    values = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_element_as_str()]
    assert [OverridesParser.create().parse_override(f"k={value}").value() for value in values] == runs


def test_the_home_folder_is_where_a_path_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert meant("hydra.run.dir=~/my runs", key="hydra.run.dir") == f"{tmp_path}/my runs"
    assert checked(PredictSettings, {"checkpoint": ["~/a", "b~"], "input": "~/x.png"}).model_dump(
        include={"checkpoint", "input"}
    ) == {"checkpoint": [f"{tmp_path}/a", "b~"], "input": f"{tmp_path}/x.png"}
    (tmp_path / "~").mkdir()
    (tmp_path / "~/x.png").touch()
    assert meant("input=~/x.png") == "~/x.png"


@pytest.mark.parametrize("value", ["(3", "a]", "1e-3)", "it's (new)", 'a "b', "x=y(", "{a", "[a b (1)"])
def test_a_value_that_hydra_cannot_read_is_told_with_its_key_and_the_form_to_paste(value):
    with pytest.raises(UserError) as told:
        readable(["seed=1", f"+trainer.profiler={value}"], lambda: keys(TrainSettings))
    assert str(told.value).startswith("trainer.profiler: ")
    (pasted,) = shlex.split(str(told.value).partition("it is written ")[2])
    assert meant(pasted, key="trainer.profiler", model=TrainSettings) == value


def test_all_arguments_that_cannot_be_read_are_told_at_once():
    with pytest.raises(UserError) as told:
        readable(["film.png", "side=L,R", "batch_size=(", "a b=3", "input=ok"], lambda: keys(PredictSettings))
    film, side, batch, key = str(told.value).splitlines()
    assert film == "film.png is no setting: a setting is written KEY=VALUE."
    assert side.startswith("side: L,R is several values: -m runs once for each")
    assert batch.startswith("batch_size: ")
    assert key.endswith("a b can't be the name of a key.")


@pytest.mark.parametrize("argument", ["=5", "=", "+=5", "~=5", "~", "@=5"])
def test_a_setting_without_a_key_is_told_how_one_is_written(argument):
    with pytest.raises(UserError) as told:
        readable([argument], lambda: keys(TrainSettings))
    assert str(told.value) == f"{argument} is no setting: a setting is written KEY=VALUE."
