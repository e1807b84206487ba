"""`legradnet-explain`: maps of films, the gate over many of them, or a test of whether the maps mean anything."""

import errno
import logging
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from legradnet.claims import claimed
from legradnet.data.film import ImageError
from legradnet.data.film_names import output_names
from legradnet.data.inputs import InputFilm, list_films
from legradnet.errors import UserError
from legradnet.explain.faithfulness import measure_faithfulness
from legradnet.explain.film import FilmExplanation, explain_films, only_checkpoint
from legradnet.explain.gate import GatedFilms, ablation_table, gate_figure, gate_table, pass_gate
from legradnet.explain.overlay import explanation_figure
from legradnet.explain.settings import GATE, ExplainSettings
from legradnet.explain.verdict import faithfulness_figure, verdict
from legradnet.figures import picture
from legradnet.files import make_folder, told, write_text, written_whole
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, NotGraded, Prepared, Request
from legradnet.grading.loading import models_in_words
from legradnet.grading.predictions import KNEE, PredictionsTable, Record, record
from legradnet.grading.whole_films import prepare_knees
from legradnet.run_folder import RunFolder
from legradnet.settings import checked
from legradnet.statistics.bootstrap import patient_numbers
from legradnet.tables import PATHS, table_line, table_text

log = logging.getLogger(__name__)

# what some file systems say of names that others take
_OF_A_NAME = (errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTDIR)


def explain(config: Mapping[str, Any] | ExplainSettings, run_folder: str | Path) -> bool:
    """Explain the films of `input`.

    Args:
        config: `ExplainSettings` or their plain values, as `conf/explain.yaml` composes them.
        run_folder: Where maps and tables are written.

    Returns:
        Whether every film could be read.

    Raises:
        UserError: A mistake in the config, the checkpoint or the list of films; a folder that is another run's or can't
            be written. A film that can't be read is none: it gets a row with its error.
    """
    settings = checked(ExplainSettings, config)
    with claimed(Path(run_folder)):
        return _explain(settings, RunFolder(Path(run_folder)))


def _explain(settings: ExplainSettings, folder: RunFolder) -> bool:
    folder.check_other_runs(folder.last, folder.best, folder.report, folder.predictions)
    dataset_path = settings.data.dataset_path
    films = list_films(Path(settings.input), Path(dataset_path) if dataset_path else None)
    grader = Grader.from_checkpoint(
        settings.checkpoint, device=settings.device, precision=settings.precision, batch_size=settings.batch_size
    )
    folder.write_config(settings.model_dump())
    log.info("Explaining %s", models_in_words(grader.networks))
    if settings.faithfulness:
        return _test_maps(settings, folder, grader, films)
    if settings.method == GATE:
        return _look_at_gate(settings, folder, grader, films)
    return _draw_maps(settings, folder, grader, films)


def _draw_maps(settings: ExplainSettings, folder: RunFolder, grader: Grader, films: Sequence[InputFilm]) -> bool:
    """`maps/`, and `maps.csv` for films whose maps can't have the film's own name."""
    network = only_checkpoint(grader.networks)
    places = _places(films)
    rows: list[Record] = []
    with told(folder.path / "maps"):
        make_folder(folder.path / "maps", mode=0o700)  # names of films are in it
    taken = {place.casefold() for place in places}
    renamed: list[list[str]] = []
    columns = [PATHS, KNEE, "map"]
    for batch in _batches(grader, films, settings):
        good = [prepared for _, _, prepared in batch if isinstance(prepared, Prepared)]
        gradings = grader.grade_prepared(good) if good else []
        how: dict[str, Any] = {"method": settings.method, "target": settings.target}
        explanations = iter(explain_films(network, good, gradings, **how))
        for number, film, prepared in batch:
            if not isinstance(prepared, Prepared):
                rows.append(record(film, prepared))
                continue
            explained, name = next(explanations), places[number]
            side = prepared.knee.side if prepared.knee else film.knee
            if side:
                name = _free(f"{name}_{side}", taken)
            if isinstance(explained, FilmExplanation):
                title = " ".join(filter(None, [PurePosixPath(film.filename).name, side]))
                rows.append(record(film, _written(explained, folder.path / "maps" / name, title)))
            else:
                rows.append(record(film, explained))
            if rows[-1]["error"] is None and not film.filename.endswith(
                (name, name + PurePosixPath(film.filename).suffix)
            ):
                renamed.append([film.filename, side, f"maps/{name}.png"])
    if renamed:
        kept = [0, 1, 2] if any(side for _, side, _ in renamed) else [0, 2]  # a column knee where there are some
        lines = [[line[column] for column in kept] for line in [columns, *renamed]]
        write_text(folder.path / "maps.csv", "".join(table_line(line, lines[0]) for line in lines))
        log.info("%d maps have other names than their films: %s", len(renamed), folder.path / "maps.csv")
    print(folder.path / "maps")
    return _write_rows(folder, grader, films, rows)


def _places(films: Sequence[InputFilm]) -> list[str]:
    """What the map of each film is called; a film that is listed once for each knee has one name."""
    keys = [(film.filename, -1 if film.knee else number) for number, film in enumerate(films)]
    distinct = list(dict.fromkeys(keys))
    names = output_names([filename for filename, _ in distinct], (".npz", ".png"))
    place = dict(zip(distinct, names, strict=True))
    return [place[key] for key in keys]


def _free(name: str, taken: set[str]) -> str:
    """A name for a knee's map that is no film's and no other knee's."""
    while name.casefold() in taken:
        name += "_"
    taken.add(name.casefold())
    return name


def _look_at_gate(settings: ExplainSettings, folder: RunFolder, grader: Grader, films: Sequence[InputFilm]) -> bool:
    """`method=gate`: `gate.csv`, `ablation.csv`, `gate.png`."""
    listed: list[tuple[InputFilm, NotGraded | ImageError | None]] = []

    def readable() -> Iterator[list[tuple[InputFilm, Prepared]]]:
        for batch in _batches(grader, films, settings):
            good = []
            for _, film, prepared in batch:
                if isinstance(prepared, Prepared):
                    good.append((film, prepared))
                listed.append((film, None if isinstance(prepared, Prepared) else prepared))
            if good:
                yield good

    gated, gradings = pass_gate(grader, readable())
    graded = iter(gradings)
    rows = [record(film, left or next(graded)) for film, left in listed]
    complete = _write_rows(folder, grader, films, rows)
    _warn_of_patients(gated.films)
    _warn_of_labels(gated)
    weights = gate_table(gated)
    if weights is None:
        log.info("This gate gives no weights: what a backbone is worth is in ablation.csv.")
    else:
        write_text(folder.path / "gate.csv", table_text(weights), shared=True)
    ablation = ablation_table(gated, resamples=settings.resamples, seed=settings.seed)
    write_text(folder.path / "ablation.csv", table_text(ablation), shared=True)
    with written_whole(folder.path / "gate.png", shared=True) as file:
        file.write(picture(gate_figure(weights, ablation, grader.classes), "png"))
    print(ablation.to_string(index=False, float_format="{:.4f}".format))
    print(folder.path / "gate.png")
    return complete


def _test_maps(settings: ExplainSettings, folder: RunFolder, grader: Grader, films: Sequence[InputFilm]) -> bool:
    """`faithfulness=true`: `faithfulness.csv`, `.png` and `.txt`."""
    network = only_checkpoint(grader.networks)
    drawn = np.random.default_rng(settings.seed).permutation(len(films))
    sample: list[tuple[InputFilm, Prepared]] = []
    rows = []
    for number in drawn:
        if len(sample) == settings.sample:
            break
        for film, prepared in _prepared(grader, films[number], settings):
            if not isinstance(prepared, Prepared):
                rows.append(record(film, prepared))
            elif len(sample) < settings.sample:
                sample.append((film, prepared))
    gradings = list(_graded(grader, sample))
    rows = [record(film, grading) for (film, _), grading in zip(sample, gradings, strict=True)] + rows
    sample = [one for one, grading in zip(sample, gradings, strict=True) if isinstance(grading, Grading)]
    if not sample:
        raise UserError(f"input={settings.input}: there is no film that can be graded: {rows[0]['error']}.")
    patients = [film.patient for film, _ in sample]
    _warn_of_patients([film for film, _ in sample])
    measured = measure_faithfulness(
        network,
        [prepared for _, prepared in sample],
        patients,
        methods=settings.methods,
        target=settings.target,
        steps=settings.steps,
        seed=settings.seed,
        resamples=settings.resamples,
        progress=lambda methods: tqdm(methods, unit="method", disable=not sys.stderr.isatty()),
    )
    words = verdict(measured, len(sample), int(patient_numbers(patients).max()) + 1)
    write_text(folder.path / "faithfulness.csv", table_text(measured.table), shared=True)
    write_text(folder.path / "faithfulness.txt", words, shared=True)
    with written_whole(folder.path / "faithfulness.png", shared=True) as file:
        file.write(picture(faithfulness_figure(measured.table), "png"))
    print(words)
    print(folder.path / "faithfulness.png")
    return _write_rows(folder, grader, films, rows)


def _graded(grader: Grader, sample: Sequence[tuple[InputFilm, Prepared]]) -> Iterator[Grading | ImageError]:
    for start in range(0, len(sample), grader.batch_size):
        yield from grader.grade_prepared([prepared for _, prepared in sample[start : start + grader.batch_size]])


def _write_rows(folder: RunFolder, grader: Grader, films: Sequence[InputFilm], rows: Sequence[Record]) -> bool:
    """Write `predictions.csv`; whether every film could be read."""
    is_whole, labelled = any(KNEE in row for row in rows), any(film.label is not None for film in films)
    table = PredictionsTable(grader.classes, grader.weighed, labelled, whole=is_whole)
    write_text(folder.predictions, table.header() + table.rows(rows))
    failed = sum(row["error"] is not None for row in rows)
    log.info("%d films explained, %d not (column error of predictions.csv)", len(rows) - failed, failed)
    return failed == 0


def _warn_of_labels(gated: GatedFilms) -> None:
    if odd := sum(film.label is not None for film in gated.films) - int(gated.labelled.sum()):
        log.warning("%d films have a label that the network doesn't know: they count as films without one.", odd)


def _warn_of_patients(films: Sequence[InputFilm]) -> None:
    if not any(film.patient for film in films):
        log.warning("No column patient: every film counts as a patient of its own, and intervals are too narrow where "
                    "both knees of a patient are among them.")  # fmt: skip


def _batches(
    grader: Grader, films: Sequence[InputFilm], settings: ExplainSettings
) -> Iterator[list[tuple[int, InputFilm, Prepared | NotGraded | ImageError]]]:
    """All films in order, as read, each knee of a whole film on its own, with the number of its film."""
    with tqdm(total=len(films), unit="film", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(films), grader.batch_size):
            batch = films[start : start + grader.batch_size]
            yield [
                (number, of_knee, knee)
                for number, film in enumerate(batch, start=start)
                for of_knee, knee in _prepared(grader, film, settings)
            ]
            bar.update(len(batch))


def _prepared(
    grader: Grader, film: InputFilm, settings: ExplainSettings
) -> list[tuple[InputFilm, Prepared | NotGraded | ImageError]]:
    """What of a film is explained, or why it is not; where there are two knees, a label of the film is neither's."""
    request = Request(film.film, film.side or settings.side or "", film.knee)
    knees = prepare_knees(grader.networks, request, settings.film)
    return [(film if len(knees) == 1 else replace(film, label=None), knee) for knee in knees]


def _written(explained: FilmExplanation, place: Path, name: str) -> Grading | ImageError:
    """Write the files of a film; what is wrong with their names is this film's trouble alone."""
    try:
        _write(explained, place, name)
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _OF_A_NAME:
            raise
        return ImageError(f"its map can't be written as {place.name}: {cause.strerror}")
    return explained.grading


def _write(explained: FilmExplanation, place: Path, name: str) -> None:
    native = {f"native_{key}": native for key, native in explained.native.items()}
    with (
        written_whole(place.with_name(f"{place.name}.npz")) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as arrays,  # numpy's writer takes no array named "file"
    ):
        for key, array in {**explained.maps, **native}.items():
            with arrays.open(f"{key}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array)
    with written_whole(place.with_name(f"{place.name}.png")) as file:
        file.write(picture(explanation_figure(explained, name), "png"))
