"""Losses, and with each the one way in which its logits become probabilities and a grade."""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from legradnet.grades import Rule
from legradnet.settings import Settings, Share

_NAME = "set by `loss=cross_entropy`, `corn`, `soft_labels`"
_WEIGHTS = "none, or balanced (inverse frequency in training)"
ClassWeights = Literal["none", "balanced"]


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


class CrossEntropySettings(Settings):
    """Config group `loss=cross_entropy`."""

    name: Literal["cross_entropy"] = Field(default="cross_entropy", description=_NAME)
    class_weights: ClassWeights = Field(default="none", description=_WEIGHTS)
    label_smoothing: Share = Field(
        default=0.0, description="share of the target spread over all grades (cross_entropy)"
    )

    def build(self, num_classes: int, class_counts: Sequence[int] | None = None) -> CrossEntropy:
        """The loss over `num_classes` grades, weighed by the training films of each, where they are known."""
        return CrossEntropy(num_classes, _class_weights(self.class_weights, class_counts), self.label_smoothing)


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
        grades = torch.arange(num_classes, dtype=torch.float32)
        distances = (grades[:, None] - grades[None, :]) / sigma
        self.register_buffer("targets", (-0.5 * distances.square()).softmax(dim=-1), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean of the cross-entropy to the soft target, a scalar."""
        losses = -(self.targets[labels] * logits.log_softmax(dim=-1)).sum(dim=-1)
        return _weighted_mean(losses, labels, self.class_weights)


class SoftLabelsSettings(Settings):
    """Config group `loss=soft_labels`."""

    name: Literal["soft_labels"] = Field(default="soft_labels", description=_NAME)
    class_weights: ClassWeights = Field(default="none", description=_WEIGHTS)
    sigma: float = Field(
        default=0.5, ge=1e-3, description="width of the Gaussian over neighbouring grades (soft_labels)"
    )

    def build(self, num_classes: int, class_counts: Sequence[int] | None = None) -> SoftLabels:
        """The loss over `num_classes` grades, weighed by the training films of each, where they are known."""
        return SoftLabels(num_classes, _class_weights(self.class_weights, class_counts), self.sigma)


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
        above = (labels[:, None] > thresholds).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, above, reduction="none")
        weights = (labels[:, None] >= thresholds).to(logits.dtype)  # task k sees grades >= k
        if self.class_weights is not None:
            weights = weights * self.class_weights[labels][:, None]
        return (losses * weights).sum() / weights.sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """[B, K-1] to [B, K]: differences of the chain of conditional probabilities."""
        # P(grade > k); a product, which ONNX has no cumulative one of
        above = F.logsigmoid(logits).cumsum(dim=-1).exp()
        return F.pad(above, (1, 0), value=1.0) - F.pad(above, (0, 1))

    def grades(self, probabilities: Tensor) -> Tensor:
        """Median of the probabilities [B, K]: [B]."""
        at_most = probabilities.double().cumsum(dim=-1)[:, :-1]
        return (at_most < 0.5).sum(dim=-1)


class CornSettings(Settings):
    """Config group `loss=corn`."""

    name: Literal["corn"] = Field(default="corn", description=_NAME)
    class_weights: ClassWeights = Field(default="none", description=_WEIGHTS)

    def build(self, num_classes: int, class_counts: Sequence[int] | None = None) -> Corn:
        """The loss over `num_classes` grades, weighed by the training films of each, where they are known."""
        return Corn(num_classes, _class_weights(self.class_weights, class_counts))


# A loss is its class, its settings, and its row here.
LossSettings = Annotated[CrossEntropySettings | CornSettings | SoftLabelsSettings, Field(discriminator="name")]


def _class_weights(kind: ClassWeights, counts: Sequence[int] | None) -> Tensor | None:
    """Weight of each class [K], N / (K * count) if balanced and 0 without films; None if all weigh the same."""
    if kind == "none" or counts is None:
        return None
    films = torch.tensor(counts, dtype=torch.float32)
    return torch.where(films > 0, films.sum() / (len(films) * films.clamp(min=1)), torch.zeros_like(films))


def _weighted_mean(losses: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return losses.mean()
    weights = class_weights[labels]
    return (losses * weights).sum() / weights.sum()
