"""`format=hub`: a model folder with its card, as a model hub shows it; nothing is sent anywhere."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from legradnet.claims import filled_whole
from legradnet.errors import UserError
from legradnet.evaluation.card_page import SHIPPED_NUMBERS, Evaluation, card_text, read_evaluation
from legradnet.evaluation.checklist import MEASURED
from legradnet.evaluation.facts import Facts, read_facts
from legradnet.evaluation.films import run_of
from legradnet.evaluation.run import measure_checkpoint
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.export.model import fill_model
from legradnet.export.settings import HUB, ExportSettings
from legradnet.files import size_in_words
from legradnet.models.description import CONFIG
from legradnet.models.folder import digest_of, read_trained
from legradnet.models.named import local_path, name_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

log = logging.getLogger(__name__)

CARD = "README.md"  # as hubs call it
_TASK = "image-classification"
_TAGS = ("knee", "osteoarthritis", "kellgren-lawrence", "radiograph", "medical-imaging", "research-only")
_METRICS = {  # of the header: what hubs call them, and what a reader does
    "qwk": ("quadratic_weighted_kappa", "Quadratic weighted kappa"),
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "mae": ("mae", "Mean absolute error, grades"),
    "auroc_kl2": ("roc_auc", "AUROC, KL 2 or more"),
    "ece": ("expected_calibration_error", "Expected calibration error"),
    "coverage": ("coverage", "Coverage of the prediction sets"),
}
_SPLITS = {"val": "validation"}
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def export_hub(settings: ExportSettings) -> Path:
    """Write `checkpoint` as a model folder with its card into `output`.

    Returns:
        The folder.

    Raises:
        UserError: A mistake in the config, the checkpoint, the evaluation, the films or the output folder.
    """
    if settings.precision != "f32":
        raise UserError(
            f"precision={settings.precision} with format={HUB}: a model computes in the precision= that predict and "
            "evaluate are told. Leave precision= out."
        )
    facts = read_facts(settings.facts) if settings.facts else None
    known = _known_evaluation(settings)
    output = Path(settings.output)
    with filled_whole(output, last=CONFIG) as folder:
        fill_model(folder, settings)
        evaluation = known or _measured(settings)
        evaluation = replace(evaluation, facts=facts) if facts else evaluation
        (folder / CARD).write_text(hub_card(evaluation), encoding="utf-8")
    size = size_in_words(sum(path.stat().st_size for path in output.iterdir()))
    log.info("%s, %s; its card tells what was measured on %d films (split %s)", HUB, size,
             evaluation.numbers["films"], evaluation.numbers["split"])  # fmt: skip
    print(output)
    return output


def hub_card(evaluation: Evaluation) -> str:
    """The card of a model with the YAML header by which hubs list it."""
    from huggingface_hub import ModelCard, ModelCardData

    facts = evaluation.facts
    licence = facts.licence.lower()
    plain = _LICENCE.fullmatch(licence) is not None
    header = ModelCardData(
        model_name=facts.name,
        license=licence if plain else "other" if licence else "unknown",
        license_name=None if plain or not licence else _slug(licence),
        library_name="legradnet",
        pipeline_tag=_TASK,
        tags=[*_TAGS, *facts.tags],
        datasets=_datasets(evaluation),
        metrics=[name for metric, (name, _) in _METRICS.items() if metric in evaluation.numbers["metrics"]],
        eval_results=_results(evaluation),
    )
    card = ModelCard(f"---\n{header.to_yaml()}\n---\n\n{card_text(evaluation)}")  # it reads what it is given
    return str(card)


def _results(evaluation: Evaluation) -> "list[EvalResult]":
    """What was measured with its interval and split, as the header's `model-index` has it."""
    from huggingface_hub import EvalResult

    numbers = evaluation.numbers
    (first, *_) = _datasets(evaluation)
    named = next((source.name for source in evaluation.facts.data if source.hub), first)
    return [
        EvalResult(
            task_type=_TASK,
            task_name="Kellgren-Lawrence grading",
            dataset_type=first,
            dataset_name=named,
            dataset_split=_SPLITS.get(numbers["split"], numbers["split"]),
            metric_type=kind,
            metric_name=words,
            metric_value=round(metric["value"], 4),
            metric_args={
                "confidence_level": numbers["confidence_level"],
                "low": None if metric["low"] is None else round(metric["low"], 4),
                "high": None if metric["high"] is None else round(metric["high"], 4),
                "films": numbers["films"],
                "patients": numbers["patients"],
            },
        )
        for name, (kind, words) in _METRICS.items()
        if (metric := numbers["metrics"].get(name)) and metric["value"] is not None
    ]


def _datasets(evaluation: Evaluation) -> list[str]:
    if named := [source.hub for source in evaluation.facts.data if source.hub]:
        return named
    source = str(evaluation.numbers["about"].get(MEASURED, {}).get("Source", ""))
    return ["generated-knees" if source.startswith("generated") else "not-named"]


def _known_evaluation(settings: ExportSettings) -> Evaluation | None:
    """The evaluation that is named, or that lies beside a shipped model; None: the model has to be measured.

    Raises:
        UserError: It is another model's, or there is none and no films to measure on.
    """
    path = local_path(settings.checkpoint)
    read_trained(path)  # what is wrong with it is told before what is missing beside it
    beside = path if (path / SHIPPED_NUMBERS).is_file() else None
    folder = Path(settings.evaluation) if settings.evaluation else beside
    if folder is None:
        if settings.data.source == "own" and not run_of(path).config.is_file():
            raise UserError(
                f"The card of format={HUB} tells how good the model is, and {name_of(path)} lies in no run folder that "
                "tells its films. Name an evaluation of it, evaluation=FOLDER of legradnet-evaluate, or films to "
                "measure it on, data=csv or data=folder."
            )
        return None
    evaluation = read_evaluation(folder)
    if evaluation.numbers["digests"] != [digest := digest_of(path)]:
        raise UserError(
            f"The evaluation in {folder} is of another model than {name_of(path)}, whose digest is {digest}: evaluate "
            "this one."
        )
    return evaluation


def _measured(settings: ExportSettings) -> Evaluation:
    """Measure the checkpoint on the films that export is told; nothing is written."""
    how = EvaluateSettings(
        data=settings.data,
        checkpoint=settings.checkpoint,
        split=settings.split,
        film=settings.film,
        crossfit=settings.split == "val",  # which calibration was fitted on
        device="cpu",
        precision="f32",
    )
    return measure_checkpoint(how, Facts())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "other"
