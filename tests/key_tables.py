"""Write the tables of `conf/README.md` from the settings that commands check: `python tests/key_tables.py`."""

import re
from pathlib import Path

from pydantic import BaseModel

from legradnet.benchmark.settings import BenchmarkSettings
from legradnet.data.settings import SynthesizeSettings
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.explain.settings import ExplainSettings
from legradnet.export.settings import ExportSettings
from legradnet.grading.settings import PredictSettings
from legradnet.hospital.settings import NodeSettings
from legradnet.localise.settings import CropSettings
from legradnet.pretraining.settings import PretrainSettings
from legradnet.settings import Key, keys
from legradnet.site.settings import CalibrateSettings
from legradnet.training.settings import TrainSettings
from legradnet.tuning.settings import SweeperSettings
from legradnet.viewer.settings import ViewSettings

PAGE = Path(__file__).parents[1] / "conf/README.md"
MODELS: dict[str, type[BaseModel]] = {  # by the heading of their section
    "legradnet-train": TrainSettings,
    "A search: hydra.sweeper": SweeperSettings,
    "legradnet-predict": PredictSettings,
    "legradnet-explain": ExplainSettings,
    "legradnet-evaluate": EvaluateSettings,
    "legradnet-calibrate": CalibrateSettings,
    "legradnet-export": ExportSettings,
    "legradnet-view": ViewSettings,
    "legradnet-benchmark": BenchmarkSettings,
    "legradnet-synthesize": SynthesizeSettings,
    "legradnet-crop": CropSettings,
    "legradnet-pretrain": PretrainSettings,
    "legradnet-node": NodeSettings,
}
NOT_THE_MODELS = {  # defaults that only the YAML has
    "backbone.<key>.timm_name": "by key",
    "data.seed": "${seed}",
    "storage": "`study.db` in the sweep folder",
    "study_name": "the choice of `tuning=`",
}
TABLE = re.compile(r"\| key \| default \| what \|\n(?:\|.*\n)+")


def table(model: type[BaseModel]) -> str:
    """The keys of a command; those of training that are the same in another command are left out there."""
    known = [] if model is TrainSettings else list(keys(TrainSettings))
    rows = [f"| `{key.name}` | {shown(key)} | {key.description} |\n" for key in keys(model) if key not in known]
    return "".join(["| key | default | what |\n", "| --- | --- | --- |\n", *rows])


def shown(key: Key) -> str:
    if key.name in NOT_THE_MODELS:
        return NOT_THE_MODELS[key.name]
    if key.needed:
        return "needed"
    if isinstance(key.default, tuple):  # one name may stand for a list of them
        return ", ".join(key.default)
    if isinstance(key.default, list):
        return f"[{', '.join(map(str, key.default))}]"
    return (
        {None: "null", True: "true", False: "false"}.get(key.default, str(key.default))
        if isinstance(key.default, bool | None)
        else str(key.default)
    )


def page() -> str:
    """The page with its tables as they should be; what stands around them stays."""
    heading, *sections = re.split(r"^(?=## )", PAGE.read_text(), flags=re.MULTILINE)
    for number, section in enumerate(sections):
        if model := MODELS.get(section.splitlines()[0].removeprefix("## ")):
            fresh = table(model)
            sections[number] = TABLE.sub(lambda _, fresh=fresh: fresh, section, count=1)
    return "".join([heading, *sections])


if __name__ == "__main__":
    PAGE.write_text(page())
