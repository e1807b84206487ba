"""How good grades are: every number of training and evaluation comes from `grading_metrics`."""

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_cohen_kappa,
    multiclass_f1_score,
    multiclass_recall,
)

ECE_BINS = 15


def grading_metrics(probabilities: Tensor, grades: Tensor, labels: Tensor) -> dict[str, float]:
    """Compare graded films with their labels.

    Args:
        probabilities: [N, K], each row sums to 1.
        grades: The grade given to each film [N], 0..K-1.
        labels: The true grades [N], 0..K-1.

    Returns:
        `accuracy`; `balanced_accuracy` (mean recall over the grades that occur); `macro_f1`; `mae` in grades; `qwk`
        (Cohen's kappa with quadratic weights; 0 where it isn't defined); `rps` (ranked probability score over K-1, 0
        is best); `ece` (expected calibration error of the likeliest class, 15 bins); with 5 classes `auroc_kl2`
        (P(grade >= 2) against KL >= 2; nan if only one side occurs).
    """
    classes = probabilities.shape[1]
    probabilities = probabilities.double()
    recalls = multiclass_recall(grades, labels, classes, average="none")
    occurs = torch.bincount(labels, minlength=classes) > 0
    values = {
        "accuracy": multiclass_accuracy(grades, labels, classes, average="micro"),
        "balanced_accuracy": recalls[occurs].mean(),
        "macro_f1": multiclass_f1_score(grades, labels, classes, average="macro"),
        "mae": (grades - labels).abs().double().mean(),
        "qwk": multiclass_cohen_kappa(grades, labels, classes, weights="quadratic").nan_to_num(0.0),
        "rps": ranked_probability_score(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
    }
    if classes == 5:
        arthritis = (labels >= 2).long()
        both = 0 < int(arthritis.sum()) < len(arthritis)
        score = probabilities[:, 2:].sum(dim=1).clamp(0, 1)
        values["auroc_kl2"] = binary_auroc(score, arthritis) if both else torch.tensor(torch.nan)
    return {name: float(value) for name, value in values.items()}


def ranked_probability_score(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance of cumulative distributions over K-1 thresholds (Epstein 1969): [N, K], [N] to a scalar."""
    thresholds = torch.arange(probabilities.shape[1] - 1, device=labels.device)
    truth = (labels[:, None] <= thresholds).to(probabilities.dtype)
    return (probabilities.cumsum(dim=1)[:, :-1] - truth).square().mean()


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean gap of confidence and accuracy in bins of the likeliest class (Naeini et al. 2015): [N, K], [N] to a scalar.

    In the precision of `probabilities`; torchmetrics sums in float32, where the order of the films shows.
    """
    confidence, likeliest = probabilities.max(dim=1)
    edges = torch.linspace(0, 1, ECE_BINS + 1, device=probabilities.device)
    bins = torch.bucketize(confidence.float(), edges, right=True)
    gaps = torch.zeros(ECE_BINS + 2, dtype=probabilities.dtype, device=probabilities.device)
    gaps.index_add_(0, bins, confidence - (likeliest == labels).to(confidence.dtype))
    return gaps.abs().sum() / len(labels)
