import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

import key_tables
from legradnet.benchmark.settings import BenchmarkSettings
from legradnet.cli import config_folder
from legradnet.data.settings import SynthesizeSettings
from legradnet.errors import UserError
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.explain.settings import ExplainSettings
from legradnet.export.settings import ExportSettings
from legradnet.grading.settings import PredictSettings
from legradnet.hospital.settings import NodeSettings
from legradnet.localise.settings import CropSettings
from legradnet.network.ensemble import NetworkSettings
from legradnet.pretraining.settings import PretrainSettings
from legradnet.settings import checked
from legradnet.site.settings import CalibrateSettings
from legradnet.training.settings import TrainSettings
from legradnet.viewer.settings import ViewSettings
from small_runs import compose

GROUPS = [path.parent.name + "=" + path.stem for path in sorted(config_folder().glob("*/*.yaml"))]


PATHS = {"data": {"dataset_path": "FILMS", "csv_path": "FILMS/knees.csv"}}  # that only a user knows


def group_of(path):
    """What a file of a group says, in the files that it names too."""
    content = yaml.safe_load(path.read_text()) or {}
    plain = {}
    for name in content.pop("defaults", []):
        plain |= {} if name == "_self_" else group_of(path.with_name(f"{name}.yaml"))
    return plain | content


@pytest.mark.parametrize(
    "choice",
    [c for c in GROUPS if not c.startswith("backbone=") and c not in ("data=common", "data=own")],
)
def test_every_shipped_choice_composes_and_is_free_of_mistakes(choice):
    config = compose(choice)
    checked(TrainSettings, {**config, "data": config["data"] | PATHS["data"]})


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted(config_folder().glob("*/*.yaml"))
        if path.parent.name not in ("experiment", "tuning") and path.stem not in ("all", "common", "own")
    ],
    ids=lambda path: f"{path.parent.name}={path.stem}",
)
def test_every_shipped_choice_has_all_keys_of_its_settings_and_no_other(path):
    group, plain = path.parent.name, group_of(path) | PATHS.get(path.parent.name, {})
    plain |= {"seed": 0} if group == "data" else {}  # which is that of the run
    backbone = plain if group == "backbone" else {"vit": {"timm_name": "tiny_vit"}}
    settings = checked(TrainSettings, {"backbone": backbone, group: plain}).model_dump()[group]
    if plain.get("name", group) is None:  # turned off: nothing else is read
        settings = {"name": settings["name"]}
    assert settings == plain


@pytest.mark.parametrize(
    "path",
    sorted(p for g in ("gating", "loss", "scheduler") for p in (config_folder() / g).glob("*")),
    ids=lambda path: path.stem,
)
def test_every_gate_loss_and_schedule_has_the_defaults_of_its_settings(path):
    group, plain = path.parent.name, group_of(path)
    named = {"backbone": {"vit": {"timm_name": "tiny_vit"}}, group: {"name": plain["name"]}}
    assert checked(TrainSettings, named).model_dump()[group] == plain


def test_quickstart_wins_over_the_defaults_and_the_command_line_wins_over_quickstart():
    config = compose("experiment=quickstart", "trainer.max_epochs=3")
    assert list(config["backbone"]) == ["swin", "vit"]  # the small configuration of these tests takes three away
    assert config["model"]["pretrained"] is False
    assert config["trainer"]["max_epochs"] == 3
    assert config["optimizer"]["learning_rate"] == 2e-3


@pytest.mark.parametrize(
    "path", sorted(config_folder().glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_config_file_begins_with_a_line_that_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert lines[1 if lines[0].startswith("# @package") else 0].startswith("# ")


def test_no_config_names_code_to_run():
    for path in config_folder().glob("**/*.yaml"):
        if path.parts[-3:-1] != ("hydra", "sweeper"):  # Hydra finds its plugins so, and no others
            assert "_target_" not in path.read_text()


@pytest.mark.parametrize(
    ("name", "model", "needed"),
    [
        ("predict", PredictSettings, {"checkpoint": "x", "input": "y"}),
        ("explain", ExplainSettings, {"checkpoint": "x", "input": "y"}),
        ("evaluate", EvaluateSettings, {"checkpoint": "x"}),
        ("export", ExportSettings, {"checkpoint": "x", "output": "z"}),
        ("calibrate", CalibrateSettings, {"checkpoint": "x", "output": "z"}),
        ("synthesize", SynthesizeSettings, {"output": "z"}),
        ("view", ViewSettings, {}),
        ("crop", CropSettings, {"input": "x", "output": "z"}),
        ("node", NodeSettings, {"output": "z"}),
    ],
)
def test_the_config_of_a_command_and_its_settings_have_the_same_keys_and_defaults(name, model, needed):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = hydra.compose(name, [f"{key}={value}" for key, value in needed.items()])
    assert OmegaConf.to_container(composed, resolve=True) == checked(model, needed).model_dump()


@pytest.mark.parametrize(
    ("name", "model"), [("train", TrainSettings), ("benchmark", BenchmarkSettings), ("pretrain", PretrainSettings)]
)
def test_the_config_of_a_command_with_backbones_and_its_settings_have_the_same_keys_and_defaults(name, model):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = hydra.compose(name, ["backbone=vit"])
    settings = checked(model, {"backbone": {"vit": {"timm_name": "vit_base_patch16_224"}}})
    assert OmegaConf.to_container(composed, resolve=True) == settings.model_dump()


def test_the_page_of_keys_is_what_the_settings_say():
    assert key_tables.PAGE.read_text() == key_tables.page(), "run: python tests/key_tables.py"


def test_all_wrong_values_are_told_at_once():
    config = compose(
        "data.batch_size=0", "data.val_fraction=2", "optimizer.learning_rate=fast", "seed=-1", "+colour=red"
    )
    with pytest.raises(UserError) as told:
        checked(TrainSettings, config)
    for words in (
        "data.batch_size=0 must be a whole number of at least 1",
        "data.val_fraction=2 must be a number from 0 to 0.99",
        "optimizer.learning_rate=fast must be a number",
        "seed=-1 must be a whole number",
        "colour is unknown; there are backbone, gating",
    ):
        assert words in str(told.value)


def test_true_is_no_number_and_one_is_no_truth():
    with pytest.raises(UserError, match="data.batch_size=True must be a whole number"):
        checked(TrainSettings, compose("data.batch_size=true"))
    with pytest.raises(UserError, match="data.balance=1 must be one of true, false"):
        checked(TrainSettings, compose("data.balance=1"))


def test_an_unknown_key_is_refused():
    with pytest.raises(UserError, match="data.batchsize is unknown; there are source, dataset_path"):
        checked(TrainSettings, compose("+data.batchsize=3"))
    GlobalHydra.instance().clear()
    with (
        hydra.initialize_config_dir(str(config_folder()), version_base="1.3"),
        pytest.raises(ConfigCompositionException, match="batchsize"),
    ):
        hydra.compose("train", ["data.batchsize=3"])


def test_any_timm_network_can_be_added_under_a_key_of_ones_own():
    config = compose("+backbone.mine.timm_name=test_convnext")
    network = checked(NetworkSettings, {"backbone": config["backbone"]})
    assert network.backbone["mine"].timm_name == "test_convnext"
