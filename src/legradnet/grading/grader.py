"""Grade films with a trained model from Python: no Hydra, no Trainer, no network connection."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from legradnet.data.film import ImageError
from legradnet.data.sides import Side
from legradnet.errors import UserError
from legradnet.grades import grades_of
from legradnet.grading.averaging import answer_views, are_finite, chosen_of, distances_of, join_sets, mean_gate_weights
from legradnet.grading.distance import UNLIKE
from legradnet.grading.exported_network import ExportedNetwork
from legradnet.grading.grading import (
    NO_CHECKPOINT,
    NO_SOURCE,
    SOURCES,
    AnswerError,
    Grading,
    NotGraded,
    Prepared,
    Request,
    Source,
    check_count,
    check_stream,
    listed,
    readable,
    sides_of,
    why_unsure,
)
from legradnet.grading.loading import load_network
from legradnet.grading.networks import Answers, GradingNetwork
from legradnet.grading.preparing import Alter, prepare, read_in_batches, without_film
from legradnet.grading.whole_films import FilmKind, check_film_kind, prepare_knees
from legradnet.models.named import SHIPPED

if TYPE_CHECKING:
    from legradnet.explain.film import FilmExplanation
    from legradnet.explain.methods import Target


class Grader:
    """Grade films with one trained network, or with the mean of several.

    Of several networks (folds, seeds) probabilities are averaged; prediction sets are joined by majority vote
    (Gasparin and Ramdas 2024, arXiv:2401.09379), which promises 2 * coverage - 1 only, and a film is referred when
    their mean confidence is below their median threshold, which promises no error rate, or their median distance from
    what each was trained on is beyond its limit.
    Threads may share a grader: each gets what it would get alone, and nothing of the process is changed. Serial are
    an OpenVINO export's batches and parts of loading; what `stream` gives is for one thread.

    Args:
        networks: Networks with the same grades and the same rule from probabilities to a grade.
        batch_size: Films a batch; None: that of the first network's training.

    Raises:
        UserError: Networks that can't be averaged, as when one has weights that are not finite.
    """

    def __init__(self, networks: Sequence[GradingNetwork], *, batch_size: int | None = None) -> None:
        if not networks:
            raise UserError("A grader needs at least one checkpoint.")
        check_count("batch_size", batch_size)
        for what in ("classes", "rule"):
            if len(kinds := {getattr(network, what) for network in networks}) > 1:
                raise UserError(f"These checkpoints can't be averaged: they differ in {what}, {sorted(kinds)}.")
        if len(networks) > 1 and (spoilt := [network for network in networks if network.not_finite]):
            raise UserError(f"{spoilt[0].path} can't be averaged with others: {spoilt[0].not_finite} is not finite.")
        self.networks: list[GradingNetwork] = list(networks)
        self.classes = networks[0].classes
        self.rule = networks[0].rule
        self.backbones = tuple(dict.fromkeys(key for network in networks for key in network.backbones))
        self.batch_size = batch_size or networks[0].batch_size

    @property
    def weighed(self) -> tuple[str, ...]:
        """The backbones that gradings have gate weights of: all, or none where a gate gives none."""
        return self.backbones if all(network.weighs for network in self.networks) else ()

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path] = SHIPPED,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> "Grader":
        """Load one model, or several to average.

        Args:
            path: "oai", the shipped model; `best.ckpt` of a training run; a folder that `legradnet-export` wrote;
                "hub:OWNER/NAME@REVISION", which is downloaded once; or a list of them.
            device: auto, cpu, cuda, cuda:1, mps; an export runs on the CPU.
            precision: auto (bf16 where the hardware multiplies it natively), f32, bf16; an export has its own.
            batch_size: Films a batch; None: that of the training run.
            threads: CPU threads of an export; None: its runtime's choice. A checkpoint has those of torch.

        Raises:
            UserError: A file that is no checkpoint of ours, or checkpoints that can't be averaged.
        """
        paths = [path] if isinstance(path, (str, Path)) else listed(path, (str, Path), NO_CHECKPOINT)
        check_count("threads", threads)
        return cls([load_network(path, device, precision, threads) for path in paths], batch_size=batch_size)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path | Sequence[str | Path],
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
    ) -> "Grader":
        """The same as `load`."""
        return cls.load(checkpoint, device=device, precision=precision, batch_size=batch_size)

    @classmethod
    def from_export(cls, folder: str | Path, *, batch_size: int | None = None, threads: int | None = None) -> "Grader":
        """As `load`, of a folder that `legradnet-export` wrote and nothing else; torch is not imported."""
        (path,) = listed([folder], (str, Path), "from_export takes the path of a folder that legradnet-export wrote")
        check_count("threads", threads)
        return cls([ExportedNetwork(path, threads=threads)], batch_size=batch_size)

    @overload
    def grade(self, films: Source, side: Side | None = None) -> Grading: ...
    @overload
    def grade(self, films: list[Source], side: Side | Sequence[Side] | None = None) -> list[Grading]: ...
    def grade(self, films: Source | list[Source], side: Side | Sequence[Side] | None = None) -> Grading | list[Grading]:
        """Grade one film, or a list of films.

        Args:
            films: Path, PIL image or array ([H, W] gray or [H, W, 3] colour), or a list of them.
            side: L or R, or one for each film. Without it a model that was trained with `data.mirror_left` takes the
                side from the DICOM tag or the file name; if neither tells, both ways are averaged and `reason` says so.

        Raises:
            ImageError: A film that can't be read, or that a network answers with numbers that are not finite.
            UserError: Something else than films and sides.
        """
        single = isinstance(films, SOURCES)
        sources: list[Source] = [films] if single else listed(films, SOURCES, NO_SOURCE)  # type: ignore[list-item]
        sides = sides_of(side, len(sources))
        batches = self.stream(Request(*film) for film in zip(sources, sides, strict=True))
        gradings = [grading for batch in batches for grading in readable(batch)]
        return gradings[0] if single else gradings

    def grade_knees(
        self, film: Source, side: Side | None = None, *, kind: FilmKind = "auto"
    ) -> list[Grading | NotGraded]:
        """Grade each knee of a film of any kind: one knee cut close, one leg, both knees, hip to ankle.

        A knee of a whole film has `knee`, its side and square; what has no grade is a `NotGraded`, with the reason.

        Args:
            film: As in `grade`, which also raises the same.
            side: L or R, of a film of one knee.
            kind: crop (as `grade` takes it), whole, or auto.
        """
        (request,) = (Request(*one) for one in zip(listed([film], SOURCES, NO_SOURCE), sides_of(side, 1), strict=True))
        ((knees,),) = self.stream_knees([request], film=kind, workers=1)
        return readable(knees)

    def explain(
        self,
        film: Source,
        side: Side | None = None,
        *,
        knee: Side = "",
        method: str = "gradcam",
        target: "Target" = "predicted",
    ) -> "FilmExplanation":
        """Grade one film and show where the evidence for its grade lies.

        Args:
            film: Path, PIL image or array.
            side: L or R, as in `grade`; a film of unknown side is explained as it is.
            knee: L or R of a whole film, on all of which its maps then lie; "": the film is a knee cut close.
            method: One of `legradnet.explain.methods.METHODS`.
            target: predicted, expected (the sum of k * p_k), or a grade.

        Raises:
            ImageError: A film that can't be read, a knee that has no grade, or numbers that are not finite.
            UserError: Unknown method or target, or a grader of several checkpoints.
        """
        from legradnet.explain.film import explain_one, only_checkpoint  # late: grading needs none of it

        (prepared,) = prepare_knees(self.networks, Request(film, side or "", knee), "auto" if knee else "crop")
        return explain_one(only_checkpoint(self.networks), prepared, self.grade_prepared, method=method, target=target)

    def stream(
        self, requests: Iterable[Request], *, workers: int | None = None, alter: Alter | None = None
    ) -> Iterator[list[Grading | ImageError]]:
        """Grade any number of films in memory for a few batches.

        Args:
            requests: The films.
            workers: Reading threads; None: one a core, at most 8.
            alter: Changes what the networks see of each film, uint8 [H, W] to [H, W].

        Yields:
            For each batch, in order, a grading for each film, or why there is none.

        Raises:
            UserError: Something else than requests, or a number of workers that is none.
        """
        check_stream(requests, workers)
        return self._stream(requests, workers, alter)

    def _stream(
        self, requests: Iterable[Request], workers: int | None, alter: Alter | None
    ) -> Iterator[list[Grading | ImageError]]:
        def read(request: Request) -> Prepared | ImageError:
            return without_film(self.prepare(request, alter))

        with closing(read_in_batches(requests, read, workers, self.batch_size, self.networks)) as parts:
            yield from ([one for one in self._grade_batch(batch) if not isinstance(one, NotGraded)] for batch in parts)

    def stream_knees(
        self,
        requests: Iterable[Request],
        *,
        film: FilmKind = "auto",
        workers: int | None = None,
        alter: Alter | None = None,
    ) -> Iterator[list[list[Grading | NotGraded | ImageError]]]:
        """As `stream`, of films of any kind: for each film of a batch what each of its knees is graded.

        A request with a `knee` is for that one alone. `film`: each is crop (one knee cut close), whole, or auto.
        """
        check_stream(requests, workers)
        check_film_kind(film)
        return self._stream_knees(requests, film, workers, alter)

    def _stream_knees(
        self, requests: Iterable[Request], kind: FilmKind, workers: int | None, alter: Alter | None
    ) -> Iterator[list[list[Grading | NotGraded | ImageError]]]:
        def read(request: Request) -> list[Prepared | NotGraded | ImageError]:
            return [without_film(knee) for knee in prepare_knees(self.networks, request, kind, alter)]

        with closing(read_in_batches(requests, read, workers, self.batch_size, self.networks)) as batches:
            for batch in batches:
                graded = iter(self._grade_batch([knee for of_film in batch for knee in of_film]))
                yield [[next(graded) for _ in of_film] for of_film in batch]

    def prepare(self, request: Request, alter: Alter | None = None) -> Prepared | ImageError:
        """Read a film and bring it to the form each network wants; what is wrong with its file is given, not raised."""
        return prepare(self.networks, request, alter)

    def _grade_batch(
        self, films: Sequence[Prepared | NotGraded | ImageError]
    ) -> list[Grading | NotGraded | ImageError]:
        good = [film for film in films if isinstance(film, Prepared)]
        parts = [good[start : start + self.batch_size] for start in range(0, len(good), self.batch_size)]
        gradings = iter([grading for part in parts for grading in self.grade_prepared(part)])
        return [next(gradings) if isinstance(film, Prepared) else film for film in films]

    def grade_prepared(self, films: list[Prepared]) -> list[Grading | ImageError]:
        """Grade films that `prepare` has read, in one batch; an `AnswerError` where a network's answer isn't finite."""
        if not films:
            return []
        answers = [answer_views(network, [film.views[i] for film in films]) for i, network in enumerate(self.networks)]
        errors: dict[int, ImageError] = {}
        for network, answer in zip(self.networks, answers, strict=True):
            for i in np.flatnonzero(~are_finite(answer)).tolist():
                errors.setdefault(i, _not_finite(network))
        if errors:
            kept = [i for i in range(len(films)) if i not in errors]
            graded = iter(self._graded([films[i] for i in kept], [chosen_of(answer, kept) for answer in answers]))
            return [errors[i] if i in errors else next(graded) for i in range(len(films))]
        return [*self._graded(films, answers)]

    def _graded(self, films: list[Prepared], answers: list[Answers]) -> list[Grading]:
        alone = len(answers) == 1
        raws = [answer.probabilities for answer in answers]
        raw = raws[0] if alone else np.mean([of_network.astype(np.float64) for of_network in raws], axis=0)
        calibrations = [network.calibration for network in self.networks]
        decide = [calibration.deciding(of_network) for calibration, of_network in zip(calibrations, raws, strict=True)]
        grades = grades_of(decide[0] if alone else np.mean([one.astype(np.float64) for one in decide], 0), self.rule)
        calibrated = [c.probabilities(of_network) for c, of_network in zip(calibrations, raws, strict=True)]
        probabilities = np.mean(calibrated, axis=0)
        sets = join_sets([c.sets(p, grades) for c, p in zip(calibrations, calibrated, strict=True)], self.classes)
        threshold = float(np.median([calibration.min_confidence for calibration in calibrations]))
        gates = mean_gate_weights(self.networks, answers, self.backbones)
        distances = distances_of(answers)
        gradings = []
        for i, film in enumerate(films):
            grade = int(grades[i])
            confidence = float(probabilities[i, grade])
            unsure = "" if confidence >= threshold else why_unsure(confidence, threshold)
            distance = None if distances is None else float(distances[i])
            look = "; ".join(filter(None, [film.refer, UNLIKE if distance is not None and distance > 1 else ""]))
            gradings.append(
                Grading(
                    grade=grade,
                    probabilities=probabilities[i],
                    expected_grade=float(probabilities[i] @ np.arange(self.classes)),
                    prediction_set=() if sets is None else tuple(range(int(sets[i, 0]), int(sets[i, 1]) + 1)),
                    referred=bool(look or unsure),
                    reason="; ".join(filter(None, [look, unsure, *film.remarks])),
                    gate_weights={} if gates is None else dict(zip(self.backbones, gates[i].tolist(), strict=True)),
                    raw=raw[i],
                    look=look,
                    logits=answers[0].logits[i] if alone and len(film.views[0]) == 1 else None,
                    remarks=tuple(film.remarks),
                    distance=distance,
                    knee=film.knee,
                    measures=film.measures,
                )
            )
        return gradings


def _not_finite(network: GradingNetwork) -> AnswerError:
    why = f"{network.not_finite} is not" if network.not_finite else f"is it unstable in {network.precision}?"
    return AnswerError(f"not graded: what {network.path} answers is not finite ({why})")
