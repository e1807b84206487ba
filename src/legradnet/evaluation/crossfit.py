"""Calibration measured on films that it was not fitted on: half of the patients by the other half, both in turn."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from legradnet.evaluation.graded import Graded
from legradnet.grades import grades_of
from legradnet.grading.calibration import Calibration, fit_calibration


def crossfit(graded: Graded, looks: Sequence[str], like: Calibration, seed: int) -> tuple[Graded, list[str]]:
    """Calibrate each half of the patients by the other half, with the aims of `like`; `looks` [N] still refer films.

    Also gives what could not be fitted, and why.
    """
    aims = {name: value for name in ("coverage", "target_error") if (value := getattr(like, name)) is not None}
    patients = graded.patients
    if like.biases:  # fitted at a site, and not here: without them, as the halves' own, a grade follows from `raw`
        graded = replace(graded, grades=grades_of(graded.raw, like.rule))
    drawn = np.random.default_rng(seed).permutation(patients.max() + 1)
    first = drawn[patients] % 2 == 0
    probabilities = graded.raw.astype(np.float64).copy()
    sets = np.zeros((len(graded), 2), np.int64)
    unsure = np.zeros(len(graded), bool)
    have_sets = True
    notes: list[str] = []
    for fitted, measured in ((first, ~first), (~first, first)):
        calibration = fit_calibration(graded.raw[fitted], graded.labels[fitted], like.rule, **aims)
        notes += calibration.notes
        probabilities[measured] = calibration.probabilities(graded.raw[measured])
        grades = graded.grades[measured]
        crossed_sets = calibration.sets(probabilities[measured], grades)
        have_sets &= crossed_sets is not None
        if crossed_sets is not None:
            sets[measured] = crossed_sets
        unsure[measured] = probabilities[measured][np.arange(len(grades)), grades] < calibration.min_confidence
    crossed = replace(
        graded,
        probabilities=probabilities,
        sets=sets if have_sets else None,
        referred=unsure | np.array([bool(look) for look in looks]),
        reasons=[
            "; ".join(filter(None, [look, "unsure" if doubted else ""]))
            for look, doubted in zip(looks, unsure, strict=True)
        ],
    )
    return crossed, list(dict.fromkeys(notes))
