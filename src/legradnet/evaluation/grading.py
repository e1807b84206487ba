"""The films of an evaluation as a network grades them, and what of them it gives no grade."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from tqdm import tqdm

from legradnet.data.film import Gray
from legradnet.errors import UserError
from legradnet.evaluation.films import LabelledFilms
from legradnet.evaluation.graded import Graded, Left, graded_films
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, Knee, NotGraded, readable
from legradnet.grading.predictions import BOX, KNEE

_WHOSE = "two knees were found, and no column knee says whose the label is"


class GradedFilms(NamedTuple):
    """The films that have a grade: with all that was known of them, together, and one by one; and the others."""

    films: LabelledFilms
    graded: Graded
    gradings: list[Grading]
    left: list[Left]


def grade_films(
    grader: Grader, films: LabelledFilms, workers: int | None, alter: Callable[[Gray], Gray] | None = None
) -> GradedFilms:
    """Grade the films of an evaluation.

    Args:
        grader: Of one checkpoint or more.
        films: Each a knee, by itself or in a whole film.
        workers: Reading threads; None: one a core, at most 8.
        alter: Changes what the networks see of each knee, uint8 [H, W] to [H, W].

    Raises:
        ImageError: A film that can't be read.
        UserError: None has a grade.
    """
    answers = answers_of(grader, films, workers, alter, progress=sys.stderr.isatty())
    films, left = _without_left(films, answers)
    gradings = [answer for answer in answers if isinstance(answer, Grading)]
    graded = graded_films(films.table, gradings, grader.backbones)
    return GradedFilms(films, graded, gradings, left)


def answers_of(
    grader: Grader,
    films: LabelledFilms,
    workers: int | None,
    alter: Callable[[Gray], Gray] | None = None,
    *,
    progress: bool = False,
) -> list[Grading | NotGraded]:
    """What each film, which is one knee or tells which, is graded, or why not; errors are those of `grade_films`."""
    answers: list[Grading | NotGraded] = []
    with tqdm(total=len(films.requests), unit="film", disable=not progress) as bar:
        for batch in grader.stream_knees(films.requests, film=films.kind, workers=workers, alter=alter):
            for of_film in batch:
                knees: list[Grading | NotGraded] = readable(of_film)
                answers.append(knees[0] if len(knees) == 1 else NotGraded(Knee("", None), _WHOSE))
            bar.update(len(batch))
    return answers


def left_in_words(left: Sequence[Left]) -> str:
    """How many knees have no grade, and why; "" if all have."""
    if not left:
        return ""
    reasons = Counter(one.answer.reason.partition("; ")[0] for one in left)
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    knees = "1 knee has no grade and is" if len(left) == 1 else f"{len(left)} knees have no grade and are"
    return f"{knees} in none of these numbers: {told}."


def _without_left(films: LabelledFilms, answers: Sequence[Grading | NotGraded]) -> tuple[LabelledFilms, list[Left]]:
    """The films that have a grade, whose table has `knee` and `box` where there are whole films; and the others."""
    films_of = films.table.to_dict("records")
    left = [
        Left(sum(isinstance(other, Grading) for other in answers[:row]), films_of[row], answer)
        for row, answer in enumerate(answers)
        if isinstance(answer, NotGraded)
    ]
    if len(left) == len(answers):
        raise UserError(f"No film has a grade; the first, {films_of[0]['filename']}: {left[0].answer.reason}.")
    kept = [row for row, answer in enumerate(answers) if isinstance(answer, Grading)]
    table = films.table.iloc[kept].reset_index(drop=True) if left else films.table
    knees = [answer.knee for answer in answers if isinstance(answer, Grading)]
    if KNEE in table or any(knees) or left:
        named = table[KNEE] if KNEE in table else [""] * len(kept)
        whose = [(knee.side if knee else "") or given for knee, given in zip(knees, named, strict=True)]
        boxes = [str(knee.box) if knee and knee.box else "" for knee in knees]
        table = table.assign(**{KNEE: whose, BOX: boxes})
    prints = [films.fingerprints[row] for row in kept] if films.fingerprints else []
    requests = [films.requests[row] for row in kept]
    return replace(films, table=table, requests=requests, fingerprints=prints), left
