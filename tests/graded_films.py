"""Graded films made up for tests of numbers."""

from dataclasses import replace

import numpy as np
import pandas as pd

from legradnet.evaluation.graded import Graded


def graded_films(count=60, *, classes=5, true_grades=None, knees=2, seed=0, sets=True, gates=True):
    """Films of `count` / `knees` patients; grades lean towards the truth. `true_grades`: which occur."""
    random = np.random.default_rng(seed)
    labels = random.choice(range(classes) if true_grades is None else true_grades, count)
    logits = random.normal(size=(count, classes)) - 0.5 * (np.arange(classes) - labels[:, None]) ** 2
    raw = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    raw[random.random(count) < 0.3] = raw[0]  # ties
    probabilities = raw.astype(np.float64) ** 0.7
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    grades = raw.argmax(axis=1)
    around = np.stack([grades - random.integers(0, 2, count), grades + random.integers(0, 2, count)], axis=1)
    return Graded(
        table=pd.DataFrame(
            {
                "filename": [f"knee{i}.png" for i in range(count)],
                "label": labels,
                "patient": [f"p{i // knees}" for i in range(count)],
                "side": ["L" if i % 2 else "R" for i in range(count)],
            }
        ),
        grades=grades,
        probabilities=probabilities,
        raw=raw.astype(np.float64),
        sets=around.clip(0, classes - 1) if sets else None,
        referred=random.random(count) < 0.3,
        reasons=[""] * count,
        gate_weights=random.dirichlet(np.ones(2), count) if gates else None,
        backbones=("swin", "vit"),
    )


def by_hand():
    """Five films of three grades: two wrong, one of them by two grades; two referred."""
    return Graded(
        table=pd.DataFrame(
            {"filename": list("abcde"), "label": [0, 0, 1, 1, 2], "patient": list("ppqqr"), "side": list("LRLRL")}
        ),
        grades=np.array([0, 2, 1, 1, 1]),
        probabilities=np.array([[0.9, 0.1, 0], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0, 0.7, 0.3]]),
        raw=np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 1, 0]]),
        sets=np.array([[0, 0], [1, 2], [1, 2], [0, 1], [1, 2]]),
        referred=np.array([False, True, True, False, False]),
        reasons=["", "unsure", "unsure", "", ""],
        gate_weights=np.array([[0.2, 0.8], [0.4, 0.6], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]),
        backbones=("swin", "vit"),
    )


def repeated(graded, times):
    """Every film of `graded` as often as `times` says, as rows of their own."""
    rows = np.repeat(np.arange(len(graded)), times)
    return replace(
        graded,
        table=graded.table.iloc[rows].reset_index(drop=True),
        grades=graded.grades[rows],
        probabilities=graded.probabilities[rows],
        raw=graded.raw[rows],
        sets=graded.sets[rows],
        referred=graded.referred[rows],
    )
