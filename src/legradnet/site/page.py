"""What calibrating at a site has changed: its numbers, and the page that tells them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from legradnet.evaluation.compare import compare
from legradnet.evaluation.graded import Graded
from legradnet.evaluation.numbers import Estimate, metric_intervals
from legradnet.figures import grade_names
from legradnet.grading.metadata import CalibratedAtSite
from legradnet.grading.networks import GradingNetwork
from legradnet.site.fit import Fitted
from legradnet.site.scaling import FILMS_A_NUMBER, Tried
from legradnet.site.settings import CalibrateSettings

TOLD = {  # of all metrics
    "accuracy": "Accuracy",
    "qwk": "Quadratic weighted kappa",
    "mae": "Mean absolute error, grades",
    "auroc_kl2": "AUROC, KL 2 or more",
    "ece": "Expected calibration error",
    "rps": "Ranked probability score",
    "coverage": "Coverage of the prediction sets",
    "set_size": "Grades in a prediction set",
    "referral_rate": "Referred",
    "accepted_error": "Wrong among those not referred",
}
_COUNTED = ("accuracy", "coverage", "referral_rate", "accepted_error")  # shares, whose intervals shrink with sqrt(n)


def numbers_of(
    before: Graded,
    after: Graded,
    fitted: Fitted,
    site: CalibratedAtSite,
    settings: CalibrateSettings,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """All that the page tells, as plain values: None where a number is not defined."""
    drawn = {name: getattr(settings, name) for name in ("resamples", "seed", "confidence_level")}
    before_of, after_of = metric_intervals(before, **drawn), metric_intervals(after, **drawn)
    changes = compare(before, after, **drawn)
    counts = np.bincount(before.labels, minlength=before.classes).tolist()
    return {
        "films": site.films,
        "patients": site.patients,
        "by_grade": counts,
        **drawn,
        "metrics": {
            name: {
                "before": before_of.get(name),
                "after": after_of.get(name),
                "change": {key: changes[name][key] for key in ("difference", "low", "high")}
                if name in changes
                else None,
            }
            for name in TOLD
        },
        "films_needed": {
            "width": settings.wanted_width,
            **{name: films_needed(after_of.get(name), site.films, settings.wanted_width) for name in _COUNTED},
        },
        "scaling": [tried._asdict() for tried in fitted.tried],
        "temperature": fitted.calibration.temperature,
        "biases": fitted.calibration.biases,
        "mixing": fitted.calibration.mixing,
        "coverage": fitted.calibration.coverage,
        "target_error": fitted.calibration.target_error,
        "by_grade_sets": fitted.calibration.by_grade,
        "min_confidence": None if math.isinf(fitted.calibration.min_confidence) else fitted.calibration.min_confidence,
        "older_films": site.older_films,
        "older_share": site.older_share,
        "model": site.model,
        "notes": fitted.notes,
        "warnings": list(warnings),
    }


def films_needed(estimate: Estimate | None, films: int, width: float) -> int | None:
    """With how many films like these an interval would be `width` wide: it shrinks with the root of their number."""
    if estimate is None or estimate["low"] is None or estimate["high"] is None or estimate["high"] <= estimate["low"]:
        return None
    needed = films * ((estimate["high"] - estimate["low"]) / width) ** 2
    return math.ceil(round(needed, 6))


def page_of(numbers: Mapping[str, Any], network: GradingNetwork, fitted: Fitted) -> str:
    """The page, in Markdown."""
    grades = grade_names(len(numbers["by_grade"]))
    level = f"{numbers['confidence_level'] * 100:g} %"
    lines = [
        "# Calibrated at a site",
        "",
        f"On {numbers['films']} films of {numbers['patients']} patients "
        f"({', '.join(f'{name}: {count}' for name, count in zip(grades, numbers['by_grade'], strict=True))}), by "
        f"`legradnet-calibrate` from the model of digest {numbers['model'][:12] or 'unknown'}. Its weights are "
        "unchanged; what a card above this page tells was measured before, elsewhere. Whether later films are still "
        "like these, `legradnet-evaluate drift=true` tells.",
        "",
        f"| | before | after | change ({level} interval) |",
        "| --- | --- | --- | --- |",
        *(
            f"| {words} | {_estimate(of['before'])} | {_estimate(of['after'])} | {_change(of['change'])} |"
            for name, words in TOLD.items()
            if (of := numbers["metrics"][name]) and (of["before"] or of["after"])
        ),
        "",
        f"After: each film by what films of other patients teach (cross-fitting), so that nothing is measured on what "
        f"it was fitted on. Intervals: {level}, {numbers['resamples']} resamples of patients, seed {numbers['seed']}.",
        "",
        _needed(numbers["films_needed"], level),
        "",
        "## What was fitted",
        "",
        _scaling(numbers),
        "",
        "| way | numbers | log loss on other patients | gain over the one chosen before it | taken |",
        "| --- | --- | --- | --- | --- |",
        *(_tried(tried, numbers["films"]) for tried in fitted.tried),
        "",
        _sets(numbers),
        "",
        _referral(numbers, network, fitted),
    ]
    said = [*numbers["warnings"], *(f"{note[:1].upper()}{note[1:]}." for note in numbers["notes"])]
    return "\n".join([*lines, *(["", *(f"- {line}" for line in said)] if said else [])])


def _estimate(estimate: Estimate | None) -> str:
    if not estimate or estimate["value"] is None:
        return "n/a"
    if estimate["low"] is None or estimate["high"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _change(change: Mapping[str, float | None] | None) -> str:
    if not change or change["difference"] is None:
        return "n/a"
    if change["low"] is None or change["high"] is None:
        return f"{change['difference']:+.3f}"
    return f"{change['difference']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})"


def _needed(needed: Mapping[str, Any], level: str) -> str:
    told = [f"{TOLD[name].lower()} {needed[name]:,}" for name in _COUNTED if needed.get(name)]
    if not told:
        return "How many films make an interval narrower can't be told from these."
    return (
        f"For {level} intervals {needed['width']:g} wide, so many films like these are needed: {', '.join(told)} (a "
        "width shrinks with the root of the number of films)."
    )


def _scaling(numbers: Mapping[str, Any]) -> str:
    words = f"Probabilities: temperature {numbers['temperature']:.2f}"
    if numbers["biases"]:
        words += ", biases " + ", ".join(f"{bias:+.2f}" for bias in numbers["biases"])
        words += "; grades follow from these probabilities"
    words += ", and a mixing matrix" if numbers["mixing"] else ""
    return (
        f"{words}. A way that fits more numbers is taken where there are {FILMS_A_NUMBER} films for each, and it is "
        "better by more than two standard errors on patients that it was not fitted on."
    )


def _tried(tried: Tried, films: int) -> str:
    few = films < FILMS_A_NUMBER * tried.numbers
    gain = "" if tried.family == "temperature" else f"{tried.gain:+.4f} ± {tried.error:.4f}"
    taken = "yes" if tried.chosen else f"no: {FILMS_A_NUMBER * tried.numbers} films needed" if few else "no"
    return f"| {tried.family} | {tried.numbers} | {tried.log_loss:.4f} | {gain} | {taken} |"


def _sets(numbers: Mapping[str, Any]) -> str:
    kind = "of each grade" if numbers["by_grade_sets"] else "on average"
    words = f"Prediction sets: {numbers['coverage']:.0%} {kind}, conformal"
    if numbers["older_films"]:
        return (
            f"{words}; {numbers['older_films']} older films of the model carry {numbers['older_share']:.0%} of the "
            "weight (Barber et al. 2023, arXiv:2202.13415): the coverage may be off by at most that share times how "
            "unlike the two are."
        )
    return f"{words}, from this site's films alone."


def _referral(numbers: Mapping[str, Any], network: GradingNetwork, fitted: Fitted) -> str:
    least = numbers["min_confidence"]
    below = "every film is referred" if least is None else f"films below a probability of {least:.3f} are referred"
    words = [
        f"Referral: {below}, for an error rate of {numbers['target_error']:g} among the rest, a standard error to spare"
    ]
    words += ["the film check is that of these films"] if fitted.film_check else []
    if fitted.distance and fitted.distance != network.distance:
        words += [
            f"the distance is from {'the training films, about this site' if network.distance else 'this site'}'s "
            f"centre, with a limit from {fitted.distance.held_out} films"
        ]
    return "; ".join(words) + "."
