"""What training measures after an epoch: the logits of all processes, and the numbers that follow from them."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from legradnet.network.losses import GradingLoss
from legradnet.statistics.metrics import grading_metrics


class CollectedLogits(Metric):
    """Keep the logits, labels and row numbers of an epoch, over all processes, each film once and in row order."""

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("logits", "labels", "rows"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Add a batch: `logits` [B, outputs], `labels` [B], `rows` [B]."""
        self.logits.append(logits.detach().float())
        self.labels.append(labels)
        self.rows.append(rows)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Logits [N, outputs] and labels [N] on the CPU; films that padding gave to two processes count once."""
        logits, labels, rows = (dim_zero_cat(state).cpu() for state in (self.logits, self.labels, self.rows))
        order = rows.argsort(stable=True)
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[order][1:] != rows[order][:-1]
        return logits[order][first], labels[order][first]


def measured(loss: GradingLoss, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """`loss` and the metrics of training, for the logits [N, outputs] and labels [N] of all films, on the CPU."""
    probabilities = loss.probabilities(logits)
    grades = loss.grades(probabilities)
    metrics = grading_metrics(probabilities.numpy(), grades.numpy(), labels.numpy())
    return {"loss": float(loss(logits, labels)), **metrics}
