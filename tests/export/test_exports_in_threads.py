"""Threads that share a grader of an export get what each would get alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from exports import needs_runtimes
from legradnet import Grader
from legradnet.grading.grading import Request


@needs_runtimes
@pytest.mark.parametrize("fixture", ["folder", "onnx_folder"])
def test_four_threads_get_from_an_export_what_one_gets_after_the_other(fixture, knees, request):
    grader = Grader.from_export(request.getfixturevalue(fixture))
    films = sorted(knees.glob("*.png"))

    def graded(number):
        request = Request(films[number])
        match number % 3:
            case 0:
                return grader.grade(films[number]).raw.tolist()
            case 1:
                ((grading,),) = grader.stream([request], workers=1)
                return grading.raw.tolist()
            case _:
                prepared = grader.prepare(request)
                return [view.tolist() for view in prepared.views[0]], grader.grade_prepared([prepared])[0].raw.tolist()

    alone = [graded(number) for number in range(len(films))]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(graded, range(len(films)))) == alone


@needs_runtimes
def test_exports_are_loaded_in_several_threads_at_once(folder):
    with ThreadPoolExecutor(4) as pool:
        graders = list(pool.map(Grader.from_export, [folder] * 4))
    assert len({grader.classes for grader in graders}) == 1
