"""The model card: what a reader has to know about a model and its films (Mitchell et al. 2019; CLAIM 2024)."""

from collections.abc import Mapping
from typing import Any

from legradnet.evaluation.checklist import (
    DATA,
    FAILURES,
    LIMITS,
    MEASURED,
    MODEL,
    RUN,
    STANDARD,
    TRAINING,
    USE,
    WEIGHTS,
)
from legradnet.evaluation.facts import Facts
from legradnet.evaluation.films import LabelledFilms, run_of
from legradnet.evaluation.graded import Graded
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.grading.grader import Grader
from legradnet.grading.loading import models_in_words
from legradnet.run_folder import versions

FITTED = "Fitted on validation films"

Sections = dict[str, dict[str, str]]


def model_card(grader: Grader, films: LabelledFilms, graded: Graded, settings: EvaluateSettings) -> Sections:
    """Sections of plain facts, {section: {name: text}}, from the checkpoint, its run folder and this evaluation."""
    return {
        MEASURED: _films(films, graded, settings),
        MODEL: _model(grader),
        TRAINING: _training(grader),
        FITTED: _calibration(grader),
        RUN: _plain(versions()) | {"Precision": grader.networks[0].precision},
    }


def with_facts(known: Mapping[str, Mapping[str, str]], facts: Facts) -> Sections:
    """The sections of a card: what `model_card` knows, between what its author says; empty ones are left out."""
    cost = facts.training
    trained = {
        "Chosen": cost.choice,
        "Machine": cost.machine,
        "Minutes": "" if cost.minutes is None else f"{cost.minutes:,.0f}",
        "Energy": "; ".join(filter(None, [_energy(cost.kilowatt_hours), cost.energy])),
    }
    sections = {
        USE: {"Intended": "; ".join(facts.intended), "Not for": "; ".join(facts.not_for)},
        DATA: {source.name: source.text for source in facts.data},
        STANDARD: {"True grades": facts.reference_standard},
        WEIGHTS: {source.name: source.text for source in facts.starting_weights},
        **{title: dict(section) for title, section in known.items()},
        FAILURES: {str(number): text for number, text in enumerate(facts.failures, 1)},
        LIMITS: {str(number): text for number, text in enumerate(facts.limits, 1)},
    }
    sections.setdefault(TRAINING, {}).update(trained)
    filled = {title: {name: text for name, text in rows.items() if text} for title, rows in sections.items()}
    return {title: rows for title, rows in filled.items() if rows}


def _energy(kilowatt_hours: float | None) -> str:
    return "" if kilowatt_hours is None else f"{kilowatt_hours:g} kWh"


def _films(films: LabelledFilms, graded: Graded, settings: EvaluateSettings) -> dict[str, str]:
    sides = films.table["side"].replace("", "unknown").value_counts().to_dict()
    return {
        "Films": f"{len(graded)}, of {graded.patients.max() + 1} patients",
        "Split": films.split,
        "Source": {"synthetic": "generated knees", "own": "as in training"}.get(films.source, films.source),
        "By true grade": ", ".join(
            f"KL {grade}: {count}" for grade, count in films.table["label"].value_counts().sort_index().items()
        ),
        "By side": ", ".join(f"{side}: {count}" for side, count in sides.items()),
        "Intervals": f"{settings.confidence_level:.0%}, {settings.resamples} resamples of patients, "
        f"seed {settings.seed}",
    }


def _model(grader: Grader) -> dict[str, str]:
    settings = grader.networks[0].settings
    return {
        "Name": _name(grader),
        "Checkpoints": str(len(grader.networks)),
        "Backbones": ", ".join(f"{key} ({own.timm_name})" for key, own in settings.backbone.items()),
        "Gate": settings.gating.name,
        "Parameters": f"{sum(network.parameters for network in grader.networks):,}",
        "Loss": settings.loss.name,
        "Grade": f"{grader.rule} of the probabilities",
        "Film": f"{grader.networks[0].image_size} px, fit {grader.networks[0].fit}, left knees "
        f"{'mirrored' if grader.networks[0].mirror_left else 'as they are'}",
    }


def _name(grader: Grader) -> str:
    """Which models these are, without the folders that they lie in: a card is handed on."""
    words = models_in_words(grader.networks)
    for network in grader.networks:
        words = words.replace(str(network.path), network.path.name)
    return words


def _training(grader: Grader) -> dict[str, str]:
    network = grader.networks[0]
    facts = {
        "Seed": str(network.settings.seed),
        "Optimiser": f"AdamW, {_listed(network.settings.optimizer)}",
        "Schedule": _listed(network.settings.scheduler),
        "Augmentation": _listed(network.settings.augment.model_dump() if network.settings.augment else {}),
    }
    if data := network.learned.data:
        facts["Films"] = "; ".join(f"{split}: {sum(counts)}, by grade {counts}" for split, counts in data.films.items())
        facts["Source"] = data.source
    run = run_of(network.path)
    if run.config.is_file():
        epochs = run.read_group("trainer").get("max_epochs")
        facts["Epochs"] = (
            f"at most {epochs}, the one with the best val/qwk was kept" if type(epochs) is int else "unknown"
        )
    made_with = network.learned.versions or run.read_versions()
    return facts | _plain(made_with)


def _calibration(grader: Grader) -> dict[str, str]:
    network = grader.networks[0]
    fitted = network.calibration
    site = network.learned.site
    on = f"{site.films} films of a site, of {site.patients} patients" if site else f"{fitted.films} validation knees"
    facts = {"Fitted on": on, "Temperature": f"{fitted.temperature:.3f}"}
    if fitted.biases:
        facts["Biases"] = ", ".join(f"{bias:+.2f}" for bias in fitted.biases) + ("; mixed" if fitted.mixing else "")
    if fitted.coverage is not None:
        kind = "each grade" if fitted.by_grade else "all films on average"
        facts["Prediction sets"] = f"{fitted.coverage:.0%} for {kind}; conformal, ranked probability score"
        below = f"below a probability of {fitted.min_confidence:.3f}" if fitted.min_confidence <= 1 else "always"
        facts["Referral"] = f"{below}, for an error rate of {fitted.target_error}"
    if false_referrals := network.learned.false_referrals:
        facts["Film check"] = (
            f"would refer {false_referrals.referred} of {false_referrals.films} validation films for their look "
            f"({false_referrals.referred / false_referrals.films:.1%})"
        )
    if distance := network.distance:
        facts["Distance"] = (
            f"from {distance.films} training films; with a limit from {distance.held_out} validation films, at most "
            f"{distance.share:.0%} of films like them are referred as unlike the training films"
        )
    if fitted.notes:
        facts["Notes"] = "; ".join(fitted.notes)
    return facts


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "none"


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    return {"Versions": ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)}
