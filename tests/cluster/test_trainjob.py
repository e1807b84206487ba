"""The recipe for Kubernetes is what Kubeflow Trainer takes, and its command what torchrun and legradnet-train take."""

import shlex

import pytest
import yaml

from legradnet.cli import config_folder
from small_runs import compose

RECIPE = yaml.safe_load((config_folder() / "cluster/trainjob.yml").read_text())


@pytest.mark.slow
def test_each_field_of_the_trainjob_is_one_of_its_schema():
    models = pytest.importorskip("kubeflow_trainer_api.models")
    job = models.TrainerV1alpha1TrainJob.from_dict(RECIPE)
    assert job.to_dict() == RECIPE, "what the schema does not know is left out of it"


def test_its_command_composes_and_mounts_what_it_writes_to():
    spec = RECIPE["spec"]
    script = spec["trainer"]["args"][0]
    words = shlex.split(script.partition("exec ")[2].replace("\\\n", ""))
    assert words[:3] == ["torchrun", "--no-python", "legradnet-train"] and words[-1] == "$again"
    config = compose(*(word for word in words[3:-1] if not word.startswith("hydra.")))
    assert config["trainer"]["strategy"] == "ddp_spawn" and config["data"]["source"] == "csv"
    pod = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    (mount,) = pod["template"]["spec"]["containers"][0]["volumeMounts"]
    assert mount["name"] == pod["template"]["spec"]["volumes"][0]["name"]
    named = [word.partition("=")[2] for word in words if "=/" in word]
    assert len(named) == 3 and all(path.startswith(mount["mountPath"]) for path in named)
