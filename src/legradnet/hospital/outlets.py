"""What `legradnet-predict` leaves beside its tables: DICOM objects (`dicom=FOLDER`) and FHIR (`format=fhir`)."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from legradnet.data.film import ImageError
from legradnet.data.film_names import output_names
from legradnet.data.inputs import InputFilm
from legradnet.data.sides import Side
from legradnet.errors import UserError
from legradnet.files import check_writable, make_folder, reason, told, write_text, written_whole
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, NotGraded, Request
from legradnet.grading.outlet import Outlet
from legradnet.grading.predictions import KNEE, Record
from legradnet.grading.settings import PredictSettings
from legradnet.grading.whole_films import FilmKind, prepare_knees
from legradnet.hospital.fhir import as_json, observation
from legradnet.hospital.graded import ReadKnee
from legradnet.hospital.identity import NoIdentityError, read_identity
from legradnet.hospital.model import NAME, model_of
from legradnet.hospital.objects import Made, check_installed, kinds, objects_of
from legradnet.run_folder import RunFolder

log = logging.getLogger(__name__)

_PREFIX = {"report": "sr", "picture": "sc", "page": "pdf"}
_SHOWN = 5  # films that are told by name
Knees = Sequence[Grading | NotGraded | ImageError]


def open_outlets(
    settings: PredictSettings, folder: RunFolder, grader: Grader, filenames: Sequence[str]
) -> list[Outlet]:
    """What these settings ask for beside the tables, of a run that grades films with these names.

    Raises:
        UserError: A package is not installed.
        NotWrittenError: A folder can't be written.
    """
    outlets: list[Outlet] = []
    if settings.dicom is not None:
        outlets.append(DicomFolder(Path(settings.dicom), grader, settings.film, settings.side or "", pdf=settings.pdf))
    if settings.format == "fhir":
        outlets.append(FhirFolder(folder.path / "fhir", grader, filenames))
    return outlets


class DicomFolder:
    """A folder of the objects made of each DICOM film.

    Args:
        folder: Where they are written, named by their UIDs.
        grader: That grades.
        kind: What films are taken for.
        side: Of all films that have none of their own.
        pdf: Whether there is a page too.
    """

    def __init__(self, folder: Path, grader: Grader, kind: FilmKind, side: Side, *, pdf: bool) -> None:
        check_installed("highdicom")
        check_writable(folder)
        with told(folder):
            make_folder(folder, mode=0o700)  # patients' names are in it
        self.folder, self.grader, self.kind, self.side, self.pdf = folder, grader, kind, side, pdf
        self.model = model_of(grader)
        self.counts: Counter[str] = Counter()
        self.without: list[str] = []

    def take(self, film: InputFilm, knees: Knees, rows: Sequence[Record]) -> None:
        """Write what is made of a film; of one without a grade nothing is."""
        if not isinstance(film.film, Path) or not any(isinstance(knee, Grading) for knee in knees):
            return
        try:
            identity = read_identity(film.film)
        except NoIdentityError as error:
            self.without.append(f"{film.filename} {error}")
            return
        request = Request(film.film, film.side or self.side, film.knee)
        read = prepare_knees(self.grader.networks, request, self.kind)
        if len(read) != len(knees) or any(isinstance(knee, ImageError) for knee in read):
            self.without.append(f"{film.filename} has changed while it was graded")
            return
        pairs = [
            ReadKnee(prepared, knee)
            for prepared, knee in zip(read, knees, strict=True)
            if not isinstance(prepared, ImageError) and not isinstance(knee, ImageError)
        ]
        there = [self._place(kind, self.model.uid(kind, identity.film)) for kind in _PREFIX]
        try:
            when = _made_at(there) or datetime.now().replace(microsecond=0)
        except _DamagedError as error:
            self.without.append(f"{film.filename}: {error}")
            return
        for made in objects_of(self.grader, pairs, identity, self.model, when, pdf=self.pdf):
            self._write(made)

    def _place(self, kind: str, uid: str) -> Path:
        return self.folder / f"{_PREFIX[kind]}_{uid}.dcm"

    def _write(self, made: Made) -> None:
        place = self._place(made.kind, made.uid)
        with suppress(OSError):
            if place.read_bytes() == made.content:
                self.counts["again"] += 1
                return
        with written_whole(place) as file:
            file.write(made.content)
        self.counts[made.kind] += 1

    def end(self) -> None:
        """Say what there is."""
        words = ", ".join(f"{self.counts[kind]} {kind}s" for kind in kinds(pdf=self.pdf))
        again = f"; {self.counts['again']} were there already" if self.counts["again"] else ""
        log.info("DICOM objects in %s: %s%s", self.folder, words, again)
        if self.without:
            shown = "; ".join(self.without[:_SHOWN])
            more = f"; and {len(self.without) - _SHOWN} more" if len(self.without) > _SHOWN else ""
            log.warning("%d graded films have no DICOM objects: %s%s", len(self.without), shown, more)


class _DamagedError(UserError):
    """What is there under an object's name is not that object; says which file."""


def _made_at(places: Sequence[Path]) -> datetime | None:
    """When the objects of a film were made that are there already, so that it and the model give the same bytes.

    Args:
        places: Where they would be; a damaged one is as good as none as long as another tells the time.

    Raises:
        _DamagedError: There are some, and none tells.
    """
    damaged = []
    for path in filter(os.path.lexists, places):
        try:
            return _own_time(path)
        except _DamagedError as error:
            damaged.append(error)
    if damaged:
        raise damaged[0]
    return None


def _own_time(path: Path) -> datetime:
    import pydicom

    wanted = ["SOPInstanceUID", "ManufacturerModelName", "InstanceCreationDate", "InstanceCreationTime"]
    try:
        header = pydicom.dcmread(path, specific_tags=wanted)
        uid, maker = header.SOPInstanceUID, header.ManufacturerModelName
        when = datetime.strptime(f"{header.InstanceCreationDate}{header.InstanceCreationTime}", "%Y%m%d%H%M%S")
    except Exception as error:  # pydicom meets damaged files with nearly any exception
        words = reason(path, error) if isinstance(error, OSError) else type(error).__name__
        raise _DamagedError(f"{path.name} is there and can't be read ({words}): delete it") from None
    if maker != NAME or not path.name.endswith(f"_{uid}.dcm"):
        raise _DamagedError(f"{path.name} is there and is another object: delete it")
    return when


class FhirFolder:
    """A folder of FHIR Observations, a file a knee."""

    def __init__(self, folder: Path, grader: Grader, filenames: Sequence[str]) -> None:
        self.folder, self.model = folder, model_of(grader)
        names = output_names(filenames, (".json",))
        self.names = dict(zip(filenames, names, strict=True))
        self.taken = {name.casefold() for name in names}
        self.count = 0

    def take(self, film: InputFilm, knees: Knees, rows: Sequence[Record]) -> None:
        """Write an Observation for each knee of a film that could be read."""
        for row in rows:
            if row["error"] is not None or (row["grade"] is None and not row.get("box")):
                continue
            name = self.names[film.filename]
            if len(rows) > 1:
                name = f"{name}_{row[KNEE] or rows.index(row)}"
                while name.casefold() in self.taken:  # another film is called so
                    name += "_"
            write_text(self.folder / f"{name}.json", as_json(observation(row, self.model)))
            self.count += 1

    def end(self) -> None:
        """Say what there is."""
        log.info("%d FHIR Observations in %s", self.count, self.folder)
