"""Evaluations as the command makes them, and what the author of a model says of it."""

from omegaconf import OmegaConf

from legradnet.cli import config_folder

FACTS = """\
name: Knees of the test
summary: A small network that has seen generated knees, and nothing else.
licence: mit
data:
  - name: Knees
    what: generated
    licence: CC BY 4.0
    where: doi:10.17632/56rmx5bjcr.1
    thanks: We thank *them*.
    hub: their/knees
reference_standard: The drawing program's own grade.
starting_weights:
  - {name: Nothing, what: drawn at random, licence: Apache-2.0}
training:
  commands: [legradnet-train experiment=quickstart seed=3]
  machine: two cores
  minutes: 1234.4
  kilowatt_hours: 0.25
  energy: estimated
  choice: the epoch by val/qwk
failures: [3 of 4 feet are graded]
limits: [measured where it was trained]
tables:
  - title: No knees
    text: Films of something else.
    columns: [kind, films, AUROC]
    rows: [[feet, 4, 0.5], [a|b, 2, 1.0]]
checklist: {CLAIM 13: by a drawing program, TRIPOD+AI 18a: nobody}
tags: [small]
"""


def config_of(checkpoint, **changes):
    """The config of legradnet-evaluate as plain values; `data` is merged key by key."""
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / "evaluate.yaml"), resolve=False)
    data = OmegaConf.to_container(OmegaConf.load(config_folder() / "data/common.yaml"), resolve=False)
    del config["hydra"], config["defaults"]
    data |= config["data"] | {"source": "own", "seed": 0} | changes.pop("data", {})
    return config | {"checkpoint": checkpoint, "resamples": 50, "data": data} | changes
