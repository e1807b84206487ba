"""Losses, and with each the one way in which its logits become probabilities and a grade."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legradnet.errors import UserError
from legradnet.grades import Rule


class GradingLoss(Protocol):
    """What every loss here offers; K is the number of classes."""

    num_outputs: int
    rule: Rule  # how a grade follows from probabilities

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of `logits` [B, num_outputs] against grades `labels` [B]: a scalar."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities [B, K] of the grades, each row sums to 1."""

    def grades(self, probabilities: Tensor) -> Tensor:
        """The grade [B] that stands for `probabilities` [B, K]."""


class CrossEntropy(nn.Module):
    """Cross-entropy over K classes; the grade is the likeliest one.

    Args:
        num_classes: Classes K.
        class_weights: Weight of each class [K], or None.
        label_smoothing: Share of the target that is spread over all classes, 0-1.
    """

    rule: Rule = "mode"

    def __init__(self, num_classes: int, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"loss.label_smoothing={label_smoothing} must be at least 0 and less than 1.")
        self.num_outputs = num_classes
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean of -log p(label), a scalar."""
        return F.cross_entropy(logits, labels, self.class_weights, label_smoothing=self.label_smoothing)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax: [B, K] to [B, K]."""
        return logits.softmax(dim=-1)

    def grades(self, probabilities: Tensor) -> Tensor:
        """Mode of the probabilities [B, K]: [B]."""
        return probabilities.argmax(dim=-1)


class SoftLabels(CrossEntropy):
    """Cross-entropy against a Gaussian over neighbouring grades (Diaz and Marathe, CVPR 2019).

    Args:
        num_classes: Classes K.
        class_weights: Weight of each true class [K], or None.
        sigma: Standard deviation of the target in grades; towards 0 it becomes plain cross-entropy.
    """

    targets: Tensor

    def __init__(self, num_classes: int, class_weights: Tensor | None = None, sigma: float = 0.5) -> None:
        super().__init__(num_classes, class_weights)
        if not sigma > 0:
            raise UserError(f"loss.sigma={sigma} must be more than 0.")
        grades = torch.arange(num_classes, dtype=torch.float32)
        distances = (grades[:, None] - grades[None, :]) / sigma
        self.register_buffer("targets", (-0.5 * distances.square()).softmax(dim=-1), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean of the cross-entropy to the soft target, a scalar."""
        losses = -(self.targets[labels] * logits.log_softmax(dim=-1)).sum(dim=-1)
        return _weighted_mean(losses, labels, self.class_weights)


class Corn(nn.Module):
    """Conditional ordinal regression (Shi et al. 2021, arXiv:2111.08851).

    Logit k is P(grade > k | grade >= k) for k = 0..K-2, and task k is trained only on films of grade k or more; the
    grade is the number of thresholds with P(grade > k) > 0.5, which is the median of the probabilities.

    Args:
        num_classes: Classes K.
        class_weights: Weight of each true class [K], or None.
    """

    rule: Rule = "median"

    def __init__(self, num_classes: int, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.num_outputs = num_classes - 1
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy over all (film, task) pairs that count, a scalar."""
        thresholds = torch.arange(self.num_outputs, device=labels.device)
        counts = labels[:, None] >= thresholds  # task k sees grades >= k
        losses = F.binary_cross_entropy_with_logits(
            logits, (labels[:, None] > thresholds).to(logits.dtype), reduction="none"
        )
        weights = counts.to(logits.dtype)
        if self.class_weights is not None:
            weights = weights * self.class_weights[labels][:, None]
        return (losses * weights).sum() / weights.sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """[B, K-1] to [B, K]: differences of the chain of conditional probabilities."""
        above = (
            F.logsigmoid(logits).cumsum(dim=-1).exp()
        )  # P(grade > k); a product, which ONNX has no cumulative one of
        return F.pad(above, (1, 0), value=1.0) - F.pad(above, (0, 1))

    def grades(self, probabilities: Tensor) -> Tensor:
        """Median of the probabilities [B, K]: [B]."""
        at_most = probabilities.double().cumsum(dim=-1)[:, :-1]
        return (at_most < 0.5).sum(dim=-1)


LOSSES: dict[str, Callable[..., CrossEntropy | Corn]] = {
    "cross_entropy": CrossEntropy,
    "corn": Corn,
    "soft_labels": SoftLabels,
}


def build_loss(
    name: str,
    num_classes: int,
    class_weights: str = "none",
    class_counts: Sequence[int] | None = None,
    **settings: Any,
) -> CrossEntropy | Corn:
    """Build a loss by name.

    Args:
        name: cross_entropy, corn or soft_labels.
        num_classes: Classes K, at least 2.
        class_weights: "none", or "balanced": N / (K * count) of each class, 0 for a class without films.
        class_counts: Training films of each class; needed for "balanced".
        settings: The loss's own settings.

    Raises:
        UserError: Unknown name, setting or class weighting, or fewer than 2 classes.
    """
    if name not in LOSSES:
        raise UserError(f"loss.name={name!r} is unknown; choose one of {', '.join(LOSSES)}.")
    if num_classes < 2:
        raise UserError(f"model.num_classes={num_classes}: at least 2 are needed.")
    if class_weights not in ("none", "balanced"):
        raise UserError(f"loss.class_weights={class_weights!r}: choose none or balanced.")
    weights = None
    if class_weights == "balanced" and class_counts is not None:
        counts = torch.tensor(class_counts, dtype=torch.float32)
        weights = torch.where(counts > 0, counts.sum() / (num_classes * counts.clamp(min=1)), torch.zeros_like(counts))
    try:
        return LOSSES[name](num_classes, weights, **settings)
    except TypeError as error:
        raise UserError(f"loss={name}: {error}") from error


def _weighted_mean(losses: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return losses.mean()
    weights = class_weights[labels]
    return (losses * weights).sum() / weights.sum()
