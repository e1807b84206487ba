"""How probabilities are brought to a site's films: as few numbers as the films themselves ask for.

Temperature (Guo et al. 2017, arXiv:1706.04599), with a bias a grade (Alexandari et al. 2020, arXiv:1901.06852), with a
slope and a bias a grade (vector scaling), or with a whole matrix (matrix scaling). Each is tried on patients that it
was not fitted on, and a larger one is taken only where there are ten films for each number that it fits, and it is
better there by more than chance explains.
"""

from typing import Any, Literal, NamedTuple

import numpy as np

from legradnet.grades import Floats, Ints, Rule
from legradnet.grading.calibration import LEAST, Calibration, fit_temperature

Family = Literal["temperature", "biases", "vector", "matrix"]
FAMILIES: tuple[Family, ...] = ("temperature", "biases", "vector", "matrix")
FOLDS = 5
_SURE = 2.0  # standard errors by which a larger family must be better
FILMS_A_NUMBER = 10  # that a family fits (Peduzzi et al. 1996, doi:10.1016/S0895-4356(96)00236-3, of regressions)
_MOST = 20.0  # of a bias or a slope
_COUNTER = 1.0  # films that speak against leaving the smaller family: without, a grade nobody has would be impossible


class Tried(NamedTuple):
    """A family on patients that it was not fitted on.

    Attributes:
        family: Its name.
        numbers: How many it fits.
        log_loss: Mean over films of -log P(true grade).
        gain: By how much that is below the one chosen among the smaller families; 0 for the first.
        error: Standard error of the gain, over patients.
        chosen: Whether it is the one taken.
    """

    family: Family
    numbers: int
    log_loss: float
    gain: float
    error: float
    chosen: bool = False


def numbers_of(family: Family, classes: int) -> int:
    """How many numbers a family fits: biases count without one, as a constant for all grades changes nothing."""
    biases = classes - 1
    return {"temperature": 1, "biases": 1 + biases, "vector": classes + biases, "matrix": classes**2 + biases}[family]


def fit_scaling(family: Family, raw: Floats, labels: Ints, rule: Rule) -> Calibration:
    """Fit a family on `raw` probabilities [N, K] and `labels` [N]; the calibration has no sets and refers nothing."""
    classes = raw.shape[1]
    one_grade = len(np.unique(labels)) < 2
    temperature = 1.0 if one_grade else fit_temperature(raw, labels, rule)
    tempered = Calibration(rule=rule, temperature=temperature)
    if family == "temperature" or one_grade:
        return tempered
    if family == "biases":
        biases = np.zeros(classes)
        for _ in range(3):  # each in turn given the other
            shifted = _shifted(Calibration(rule=rule, temperature=temperature).probabilities(raw), biases)
            biases += _fitted(np.log(shifted.clip(LEAST)), labels, "biases", biases)[1]
            temperature = _temperature_beside(raw, labels, rule, biases)
        return Calibration(rule=rule, temperature=temperature, biases=_centred(biases))
    logs = np.log(tempered.probabilities(raw).clip(LEAST))
    mixing, biases = _fitted(logs, labels, family)
    return Calibration(rule=rule, temperature=temperature, biases=_centred(biases), mixing=mixing.tolist())


def _shifted(probabilities: Floats, biases: Floats) -> Floats:
    powers = probabilities * np.exp(biases - biases.max())
    return powers / powers.sum(axis=1, keepdims=True)


def _temperature_beside(raw: Floats, labels: Ints, rule: Rule, biases: Floats) -> float:
    from scipy.optimize import minimize_scalar  # late: only fitting needs it

    def loss(log_temperature: float) -> float:
        fitted = Calibration(rule=rule, temperature=float(np.exp(log_temperature)), biases=biases.tolist())
        return _log_loss(fitted.probabilities(raw), labels)

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.11), np.log(9.9)), method="bounded").x))


def _log_loss(probabilities: Floats, labels: Ints) -> float:
    return float(losses_of(probabilities, labels).mean())


def losses_of(probabilities: Floats, labels: Ints) -> Floats:
    """-log P(true grade) of each film [N]."""
    return -np.log(probabilities[np.arange(len(labels)), labels].clip(LEAST))


def _fitted(logs: Floats, labels: Ints, family: Family, biases: Floats | None = None) -> tuple[Floats, Floats]:
    """Matrix [K, K] and biases [K] at which softmax(logs @ matrix.T + biases) fits best, held near those it has."""
    from scipy.optimize import minimize

    films, classes = logs.shape
    shape = {"biases": (0,), "vector": (classes,), "matrix": (classes, classes)}[str(family)]
    before = np.zeros(classes) if biases is None else biases
    truth = np.eye(classes)[labels]
    start = np.ones(shape) if family == "vector" else np.eye(classes) if family == "matrix" else np.zeros(shape)

    def matrix_of(numbers: Floats) -> Floats:
        return (
            np.diag(numbers)
            if family == "vector"
            else numbers.reshape(shape)
            if family == "matrix"
            else np.eye(classes)
        )

    def loss(values: Floats) -> tuple[float, Floats]:
        slopes, shifts = values[: start.size], values[start.size :]
        scores = logs @ matrix_of(slopes).T + shifts
        scores -= scores.max(axis=1, keepdims=True)
        odds = np.exp(scores)
        shares = odds / odds.sum(axis=1, keepdims=True)
        away, moved = slopes - start.ravel(), shifts + before
        value = -np.log(shares[np.arange(films), labels].clip(1e-300)).sum()
        value += _COUNTER / 2 * (np.square(away).sum() + np.square(moved).sum())
        wrong = shares - truth
        to_slopes = wrong.T @ logs  # [K, K]
        of_family = np.diag(to_slopes) if family == "vector" else to_slopes.ravel() if family == "matrix" else away
        slope = np.concatenate([of_family + _COUNTER * away, wrong.sum(axis=0) + _COUNTER * moved])
        return value / films, slope / films

    values = minimize(
        loss, np.concatenate([start.ravel(), np.zeros(classes)]), jac=True, method="L-BFGS-B",
        bounds=[(-_MOST, _MOST)] * (start.size + classes),
    ).x  # fmt: skip
    return matrix_of(values[: start.size]), values[start.size :]


def _centred(biases: Floats) -> list[float]:
    return (biases - biases.mean()).tolist()


def folds_of(patients: Ints, seed: int, folds: int = FOLDS) -> Ints:
    """Fold of each film [N] by `patients` [N], numbers from 0: films of a patient are in one; none is empty."""
    names, numbers = np.unique(patients, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % min(folds, len(names)))[numbers].astype(np.int64)


def choose_scaling(
    raw: Floats, labels: Ints, patients: Ints, rule: Rule, *, seed: int = 0, all_tried: bool = True
) -> tuple[Calibration, list[Tried]]:
    """Fit the smallest family that the films do not speak against.

    Args:
        raw: The network's probabilities [N, K].
        labels: True grades [N].
        patients: The number of each film's patient [N], from 0; of two at least.
        rule: How a grade follows from probabilities.
        seed: Of the folds.
        all_tried: Whether to try families that have too few films too, which are not taken.

    Returns:
        The family chosen, fitted on all films, and what was found of each.
    """
    folds = folds_of(patients, seed)
    enough = [family for family in FAMILIES if len(labels) >= FILMS_A_NUMBER * numbers_of(family, raw.shape[1])]
    families: tuple[Family, ...] = FAMILIES if all_tried else tuple(dict.fromkeys([FAMILIES[0], *enough]))
    losses: dict[Family, Floats] = {family: np.zeros(len(labels)) for family in families}
    for fold in range(int(folds.max()) + 1):
        held, kept = folds == fold, folds != fold
        for family in families:
            fitted = fit_scaling(family, raw[kept], labels[kept], rule)
            losses[family][held] = losses_of(fitted.probabilities(raw[held]), labels[held])
    chosen: Family = "temperature"
    tried: list[Tried] = []
    for family in families:
        gains = losses[chosen] - losses[family]
        gain, error = float(gains.mean()), _standard_error(gains, patients)
        numbers = numbers_of(family, raw.shape[1])
        tried.append(Tried(family, numbers, float(losses[family].mean()), gain, error))
        if family in enough and gain > max(0.0, _SURE * error):
            chosen = family
    return fit_scaling(chosen, raw, labels, rule), [one._replace(chosen=one.family == chosen) for one in tried]


def _standard_error(values: Floats, patients: Ints) -> float:
    """Of the mean of `values` [N], whose films of one patient go together."""
    sums: Any = np.bincount(patients, values - values.mean())
    return float(np.sqrt(np.square(sums).sum() * len(sums) / max(1, len(sums) - 1)) / len(values))
