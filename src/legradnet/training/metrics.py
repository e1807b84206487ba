"""What training measures: an epoch over all processes, and in the end what the best checkpoint answers."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from legradnet.data.datamodule import KneeDataModule
from legradnet.data.splits import Split
from legradnet.errors import UserError
from legradnet.files import write_text
from legradnet.grades import Floats, Ints
from legradnet.grading.averaging import are_finite
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.networks import Answers
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

    def compute(self) -> tuple[Floats, Ints]:
        """Logits [N, outputs] and labels [N]; films that padding gave to two processes count once.

        Plain arrays, as torchmetrics takes every dimension from a tensor of one element.
        """
        logits, labels, rows = (dim_zero_cat(state).cpu() for state in (self.logits, self.labels, self.rows))
        order = rows.argsort(stable=True)
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[order][1:] != rows[order][:-1]
        return logits[order][first].numpy(), labels[order][first].numpy()


def measured(loss: GradingLoss, logits: Floats, labels: Ints) -> dict[str, float]:
    """`loss` and the metrics of training, for the logits [N, outputs] and labels [N] of all films, on the CPU.

    All are nan, undefined, where a film's logits are not finite: an epoch like that is no better than any other.
    """
    finite = bool(np.isfinite(logits).all())
    answers = torch.from_numpy(logits if finite else np.zeros_like(logits))
    probabilities = loss.probabilities(answers)
    metrics = grading_metrics(probabilities.numpy(), loss.grades(probabilities).numpy(), labels)
    if not finite:
        return {"loss": math.nan, **dict.fromkeys(metrics, math.nan)}
    return {"loss": float(loss(answers, torch.from_numpy(labels))), **metrics}


def answers_to(network: CheckpointNetwork, data: KneeDataModule, split: Split) -> tuple[Answers, Ints]:
    """What a network says of the films of a split, in row order, and their labels [N].

    Raises:
        UserError: It is not finite.
    """
    batches = [(network(batch.films.numpy()), batch.labels.numpy()) for batch in data.loader(split, whole=True)]
    answers = [answer for answer, _ in batches]
    if spoilt := sum(int((~are_finite(answer)).sum()) for answer in answers):
        raise UserError(
            f"What {network.path} answers to {spoilt} of {len(data.films(split))} {split} films is not finite, and "
            "nothing follows from it: lower optimizer.learning_rate, or try trainer.precision=32-true."
        )
    gates = [answer.gate_weights for answer in answers if answer.gate_weights is not None]
    return Answers(
        np.concatenate([answer.logits for answer in answers]),
        np.concatenate([answer.probabilities for answer in answers]),
        np.concatenate(gates) if gates else None,
    ), np.concatenate([labels for _, labels in batches])


def measure_test_films(
    checkpoint: Path, data: KneeDataModule, path: Path, *, device: str, precision: str
) -> dict[str, float]:
    """Measure a checkpoint on the test films, and write what was found as JSON.

    Args:
        checkpoint: Of the run.
        data: Its films.
        path: Of the JSON.
        device: auto, cpu, cuda, mps.
        precision: f32 or bf16.
    """
    network = CheckpointNetwork(checkpoint, device=device, precision=precision)
    answers, labels = answers_to(network, data, "test")
    values = measured(network.loss, answers.logits, labels)
    metrics = {f"test/{name}": value for name, value in values.items()}
    defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}  # JSON has no nan
    write_text(path, json.dumps(defined, indent=2) + "\n", shared=True)
    return metrics
