import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from legradnet.config import (
    BENCHMARK_RULES,
    EVALUATE_RULES,
    EXPORT_RULES,
    RULES,
    SYNTHESIZE_RULES,
    check_config,
    config_folder,
)
from legradnet.data.augment import Augmentation
from legradnet.errors import UserError
from legradnet.explain.settings import ExplainSettings
from legradnet.grading.settings import PredictSettings
from legradnet.network.ensemble import NetworkSettings
from legradnet.settings import checked
from small_runs import compose

GROUPS = [path.parent.name + "=" + path.stem for path in sorted(config_folder().glob("*/*.yaml"))]


@pytest.mark.parametrize(
    "choice",
    [g for g in GROUPS if g.split("=")[0] not in ("experiment", "backbone") and g not in ("data=common", "data=own")],
)
def test_every_shipped_choice_composes_and_is_free_of_mistakes(choice):
    config = compose(choice)
    check_config(config)
    settings = checked(NetworkSettings, {name: config[name] for name in NetworkSettings.model_fields})
    assert settings.model_dump() == {name: config[name] for name in NetworkSettings.model_fields}
    Augmentation(**config["augment"])


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


def test_every_rule_is_about_a_key_that_exists():
    known = set()
    for path in config_folder().glob("*/*.yaml"):
        content = yaml.safe_load(path.read_text()) or {}
        known |= {f"{path.parent.name}.{key}" for key in content}
    known |= {f"{group}.{key}" for group in ("model", "tuning") for key in compose()[group]}
    known |= {"seed", "compile", "test"}
    assert set(RULES) <= known


@pytest.mark.parametrize(
    ("name", "rules", "needed"),
    [
        ("evaluate", EVALUATE_RULES, ["checkpoint=x"]),
        ("benchmark", BENCHMARK_RULES, []),
        ("export", EXPORT_RULES, ["checkpoint=x", "output=z"]),
        ("synthesize", SYNTHESIZE_RULES, ["output=z"]),
    ],
)
def test_the_other_commands_compose_free_of_mistakes_and_their_rules_are_about_keys_that_exist(name, rules, needed):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose(name, needed), resolve=True)
    check_config(config, rules)
    for key in rules:
        *groups, last = key.split(".")
        if groups != ["gating"]:  # whose choices have different keys
            assert last in (config[groups[0]] if groups else config)


@pytest.mark.parametrize(
    ("name", "model", "needed"),
    [
        ("predict", PredictSettings, {"checkpoint": "x", "input": "y"}),
        ("explain", ExplainSettings, {"checkpoint": "x", "input": "y"}),
    ],
)
def test_the_config_of_a_command_and_its_settings_have_the_same_keys_and_defaults(name, model, needed):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = hydra.compose(name, [f"{key}={value}" for key, value in needed.items()])
    assert OmegaConf.to_container(composed, resolve=True) == checked(model, needed).model_dump()


def test_all_wrong_values_are_told_at_once():
    config = compose("data.batch_size=0", "data.val_fraction=2", "optimizer.learning_rate=fast", "seed=-1")
    with pytest.raises(UserError) as told:
        check_config(config)
    for words in (
        "data.batch_size=0 must be a whole number of at least 1",
        "data.val_fraction=2 must be a number from 0 to 0.99",
        "optimizer.learning_rate=fast must be a number",
        "seed=-1 must be a whole number",
    ):
        assert words in str(told.value)


def test_true_is_no_number_and_one_is_no_truth():
    with pytest.raises(UserError, match="data.batch_size=True must be a whole number"):
        check_config(compose("data.batch_size=true"))
    with pytest.raises(UserError, match="data.balance=1 must be one of true, false"):
        check_config(compose("data.balance=1"))


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigCompositionException, match="batchsize"):
        compose("data.batchsize=3")


def test_any_timm_network_can_be_added_under_a_key_of_ones_own():
    config = compose("+backbone.mine.timm_name=test_convnext")
    network = checked(NetworkSettings, {"backbone": config["backbone"]})
    assert network.backbone["mine"].timm_name == "test_convnext"
