"""The numbers of a run's checkpoint, through the network that grades with it."""

import json
import math
from pathlib import Path

import numpy as np
import torch

from legradnet.data.datamodule import KneeDataModule
from legradnet.data.splits import Split
from legradnet.files import write_text
from legradnet.grades import Ints
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.networks import Answers
from legradnet.training.metrics import measured


def answers_to(network: CheckpointNetwork, data: KneeDataModule, split: Split) -> tuple[Answers, Ints]:
    """What a network says of the films of a split, in row order, and their labels [N]."""
    batches = [(network(batch.films.numpy()), batch.labels.numpy()) for batch in data.loader(split, whole=True)]
    answers = [answer for answer, _ in batches]
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
    values = measured(network.loss, torch.from_numpy(answers.logits), torch.from_numpy(labels))
    metrics = {f"test/{name}": value for name, value in values.items()}
    defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}  # JSON has no nan
    write_text(path, json.dumps(defined, indent=2) + "\n")
    return metrics
