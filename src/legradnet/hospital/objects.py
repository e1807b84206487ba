"""The DICOM objects made of one film: a report, a picture and, if asked for, a page."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING

from legradnet.errors import UserError, how_to_install
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading
from legradnet.hospital.graded import ReadKnee
from legradnet.hospital.identity import Identity
from legradnet.hospital.model import Model

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Made:
    """An object, as it is written to disk.

    Attributes:
        kind: report, picture or page.
        uid: Its SOP Instance UID.
        content: The whole file.
    """

    kind: str
    uid: str
    content: bytes


def check_installed(*packages: str) -> None:
    """Raise UserError if one of the packages of the extra is not there."""
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            raise UserError(f"This needs {package}: {how_to_install('hospital')}") from None


def kinds(*, pdf: bool) -> list[str]:
    """What is made of each film."""
    return ["report", "picture", *(["page"] if pdf else [])]


def objects_of(
    grader: Grader, knees: Sequence[ReadKnee], identity: Identity, model: Model, when: datetime, *, pdf: bool
) -> list[Made]:
    """The objects of a film of which at least one knee is graded, none of them if none is.

    The same film, model and time give the same bytes.

    Args:
        grader: What graded it.
        knees: What was graded.
        identity: Whose film it is.
        model: What the grader is called.
        when: When it was graded.
        pdf: Whether a page is made.
    """
    if not any(isinstance(knee.grading, Grading) for knee in knees):
        return []
    from legradnet.hospital.capture import encapsulated_page, secondary_capture  # late: they need the extra
    from legradnet.hospital.evidence import graded_film  # and torch
    from legradnet.hospital.report import structured_report

    graded = graded_film(grader, knees)
    with _own_logs_silent():
        made = {
            "report": structured_report(graded, identity, model, when),
            "picture": secondary_capture(graded, identity, model, when),
        }
        if pdf:
            made["page"] = encapsulated_page(graded, identity, model, when)
    return [Made(kind, str(dataset.SOPInstanceUID), _written(dataset)) for kind, dataset in made.items()]


@contextmanager
def _own_logs_silent() -> Iterator[None]:
    """Keep what libraries log of headers out of the logs of runs."""
    loggers = [logging.getLogger(name) for name in ("highdicom", "pydicom")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _written(dataset: "Dataset") -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
