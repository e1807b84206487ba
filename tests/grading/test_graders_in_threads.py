"""Threads that share a grader, or have graders of their own, get what each would get alone."""

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import numpy as np
import pytest
import torch

from legradnet import Grader
from legradnet.data.inputs import InputFilm
from legradnet.explain.gate import pass_gate
from legradnet.grading.grading import Request

METHODS = ("gradcam", "attention_rollout", "eigencam", "integrated_gradients")


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def films(knees):
    return sorted(knees.glob("*.png"))[:4]


def told(grading):
    numbers = (grading.raw, grading.probabilities, list(grading.gate_weights.values()))
    return [grading.grade, grading.reason, *(np.asarray(values).tobytes() for values in numbers)]


def asked(grader, what, film):
    """All that a method of the grader gives, to the last bit."""
    match what:
        case "grade":
            return told(grader.grade(film))
        case "stream":
            requests = [Request(film)] * 3
            return [told(grading) for batch in grader.stream(requests, workers=2) for grading in batch]
        case "prepare":
            prepared = grader.prepare(Request(film))
            return [prepared.side, prepared.remarks, *(view.tobytes() for views in prepared.views for view in views)]
        case method:
            explained = grader.explain(film, method=method)
            maps = {**explained.maps, **{f"native {key}": native for key, native in explained.native.items()}}
            return [told(explained.grading), {key: values.tobytes() for key, values in maps.items()}]


def test_four_threads_get_from_one_grader_what_one_gets_after_the_other(best, films):
    grader = Grader.load(best)
    tasks = [(what, film) for film in films for what in ("grade", "stream", "prepare", *METHODS)]
    random.Random(0).shuffle(tasks)
    alone = [asked(grader, *task) for task in tasks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda task: asked(grader, *task), tasks))
    assert together == alone


def test_graders_of_two_threads_leave_each_other_and_the_random_numbers_of_a_third_alone(best, films):
    alone = asked(Grader.load(best), "gradcam", films[0])
    torch.manual_seed(3)
    expected = torch.rand(200)
    loaded, got = Event(), []

    def load():
        got.extend(asked(Grader.load(best), "gradcam", films[0]) for _ in range(2))

    def watch():
        for thread in threads:
            thread.join()
        loaded.set()

    threads = [Thread(target=load) for _ in range(2)]
    torch.manual_seed(3)
    for thread in [*threads, watching := Thread(target=watch)]:
        thread.start()
    drawn = []
    while not loaded.wait(0.01) and len(drawn) < 200:
        drawn.append(torch.rand(1))
    watching.join()
    assert got == [alone] * 4
    assert torch.equal(torch.cat(drawn), expected[: len(drawn)])


def test_the_gate_is_told_of_its_own_films_while_another_thread_grades(best, films):
    grader = Grader.load(best)

    def batches():
        for film in films[:2]:
            yield [(InputFilm(film.name, film), grader.prepare(Request(film)))]
            other = Thread(target=grader.grade, args=[films])
            other.start()
            other.join()

    gated, gradings = pass_gate(grader, batches())
    assert len(gradings) == 2 == len(gated.tokens) == len(gated.film)
