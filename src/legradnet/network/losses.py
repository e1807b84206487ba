"""Losses, and with each the one way in which its logits become probabilities and a grade."""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from legradnet.errors import UserError
from legradnet.grades import NO_GRADE, Rule
from legradnet.settings import Settings, Share

_NAME = "set by `loss=cross_entropy`, `corn`, `cumulative`, `soft_labels`"
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
        """The grade [B] that stands for `probabilities` [B, K]; a UserError where they are not finite."""


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
        return _finite(probabilities).argmax(dim=-1)


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


Shape = Literal["gaussian", "beta", "poisson"]


class SoftLabels(CrossEntropy):
    """Cross-entropy against a distribution over neighbouring grades.

    Args:
        num_classes: Classes K.
        class_weights: Weight of each true class [K], or None.
        sigma: Standard deviation of the target in grades; towards 0 it becomes plain cross-entropy. A Poisson
            distribution has its own.
        shape: gaussian (Diaz and Marathe, CVPR 2019); beta, which has no weight to lose beyond the first and the last
            grade (Vargas et al., Neurocomputing 2022); poisson, wider the higher the grade (Beckham and Pal,
            ICML 2017).
    """

    targets: Tensor

    def __init__(
        self, num_classes: int, class_weights: Tensor | None = None, sigma: float = 0.5, shape: Shape = "gaussian"
    ) -> None:
        super().__init__(num_classes, class_weights)
        self.register_buffer("targets", _soft_targets(num_classes, sigma, shape), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean of the cross-entropy to the soft target, a scalar."""
        losses = -(self.targets[labels] * logits.log_softmax(dim=-1)).sum(dim=-1)
        return _weighted_mean(losses, labels, self.class_weights)


class SoftLabelsSettings(Settings):
    """Config group `loss=soft_labels`."""

    name: Literal["soft_labels"] = Field(default="soft_labels", description=_NAME)
    class_weights: ClassWeights = Field(default="none", description=_WEIGHTS)
    shape: Shape = Field(default="gaussian", description="of the target over neighbouring grades (soft_labels)")
    sigma: float = Field(
        default=0.5, ge=1e-3, description="width of a gaussian or beta target, in grades (soft_labels)"
    )

    def build(self, num_classes: int, class_counts: Sequence[int] | None = None) -> SoftLabels:
        """The loss over `num_classes` grades, weighed by the training films of each, where they are known."""
        return SoftLabels(num_classes, _class_weights(self.class_weights, class_counts), self.sigma, self.shape)


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
        at_most = _finite(probabilities).double().cumsum(dim=-1)[:, :-1]
        return (at_most < 0.5).sum(dim=-1)


class CornSettings(Settings):
    """Config group `loss=corn`."""

    name: Literal["corn"] = Field(default="corn", description=_NAME)
    class_weights: ClassWeights = Field(default="none", description=_WEIGHTS)

    def build(self, num_classes: int, class_counts: Sequence[int] | None = None) -> Corn:
        """The loss over `num_classes` grades, weighed by the training films of each, where they are known."""
        return Corn(num_classes, _class_weights(self.class_weights, class_counts))


class Cumulative(Corn):
    """Cumulative logits (McCullagh 1980, J. R. Stat. Soc. B 42); the distances of thresholds are the film's own.

    Output 0 is the logit of P(grade > 0), and each further output, made positive, is by how much the next logit lies
    lower, so P(grade > k) falls with k whatever the network says. The grade is the median of the probabilities.

    Args:
        num_classes: Classes K.
        class_weights: Weight of each true class [K], or None.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean of -log p(label), a scalar."""
        above, steps = self._above(logits.float())
        # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)): no difference that rounds to 0
        log_passed = F.pad(F.logsigmoid(above), (1, 0))
        log_stopped = F.pad(F.logsigmoid(-above), (0, 1))
        log_apart = F.pad(torch.log(-torch.expm1(-steps)), (1, 1))
        losses = -(log_passed + log_stopped + log_apart).gather(1, labels[:, None])[:, 0]
        return _weighted_mean(losses, labels, self.class_weights)

    def probabilities(self, logits: Tensor) -> Tensor:
        """[B, K-1] to [B, K]: differences of P(grade > k)."""
        above = self._above(logits)[0].sigmoid()
        return F.pad(above, (1, 0), value=1.0) - F.pad(above, (0, 1))

    def _above(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K-1] of P(grade > k), and how far each lies below the one before [B, K-2]."""
        steps = F.softplus(logits[:, 1:])
        return logits[:, :1] - F.pad(steps.cumsum(dim=-1), (1, 0)), steps


class CumulativeSettings(Settings):
    """Config group `loss=cumulative`."""

    name: Literal["cumulative"] = Field(default="cumulative", description=_NAME)
    class_weights: ClassWeights = Field(default="none", description=_WEIGHTS)

    def build(self, num_classes: int, class_counts: Sequence[int] | None = None) -> Cumulative:
        """The loss over `num_classes` grades, weighed by the training films of each, where they are known."""
        return Cumulative(num_classes, _class_weights(self.class_weights, class_counts))


# A loss is its class, its settings, and its row here.
LossSettings = Annotated[
    CrossEntropySettings | CornSettings | CumulativeSettings | SoftLabelsSettings, Field(discriminator="name")
]


def _class_weights(kind: ClassWeights, counts: Sequence[int] | None) -> Tensor | None:
    """Weight of each class [K], N / (K * count) if balanced and 0 without films; None if all weigh the same."""
    if kind == "none" or counts is None:
        return None
    films = torch.tensor(counts, dtype=torch.float32)
    return torch.where(films > 0, films.sum() / (len(films) * films.clamp(min=1)), torch.zeros_like(films))


def _soft_targets(num_classes: int, sigma: float, shape: Shape) -> Tensor:
    """Target of each true grade [K, K], each row sums to 1."""
    from scipy import special, stats  # late: a third of a second, and few networks need it

    grades = np.arange(num_classes)
    if shape == "poisson":
        rows = stats.poisson.pmf(grades[None, :], grades[:, None] + 0.5)
    elif shape == "gaussian":
        rows = np.exp(special.log_softmax(-0.5 * ((grades[:, None] - grades[None, :]) / sigma) ** 2, axis=1))
    else:  # on 0 to 1, of which each grade has an equal part, with its mean in the middle of the true one's
        mean = (grades[:, None] + 0.5) / num_classes
        concentration = mean * (1 - mean) / np.minimum(sigma / num_classes, 0.99 * np.sqrt(mean * (1 - mean))) ** 2 - 1
        edges = np.arange(num_classes + 1)[None, :] / num_classes
        rows = np.diff(stats.beta.cdf(edges, mean * concentration, (1 - mean) * concentration), axis=1)
    return torch.from_numpy(rows / rows.sum(axis=1, keepdims=True)).float()


def _finite(probabilities: Tensor) -> Tensor:
    if not probabilities.isfinite().all():
        raise UserError(NO_GRADE)
    return probabilities


def _weighted_mean(losses: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return losses.mean()
    weights = class_weights[labels]
    return (losses * weights).sum() / weights.sum()
