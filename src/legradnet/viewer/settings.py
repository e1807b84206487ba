"""Settings of `legradnet-view`."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from legradnet.data.settings import ListedFilms
from legradnet.grading.settings import AskedDevice, AskedFilm, AskedPrecision, OneSide
from legradnet.models.named import SHIPPED, CheckpointText
from legradnet.settings import PathText, Seed, Settings, VerbatimText

_MOST_READERS = 32


def _reader(name: str) -> str:
    if not re.fullmatch(r"\w[\w .-]{0,39}", name):
        raise ValueError("must be a name of letters, digits, spaces and . _ -, at most 40")
    return name


def _readers(names: list[str]) -> list[str]:
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("must be different names")
    return names


def _pattern(pattern: str | None) -> str | None:
    if pattern is not None:
        try:
            known = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if "patient" not in known:
            raise ValueError("must have a group (?P<patient>...)")
    return pattern


class ViewedFilms(ListedFilms):
    """Config group `data` of `legradnet-view`."""

    patient_regex: Annotated[VerbatimText | None, AfterValidator(_pattern)] = Field(
        default=None,
        description="where the CSV has no column patient: searched in a film's name, with a group `patient`, so that "
        "a patient's films stand side by side",
    )


class ViewSettings(Settings):
    """`conf/view.yaml`."""

    input: PathText | None = Field(
        default=None, description="film, folder, CSV, or a finished predict run; null = films are dropped on the page"
    )
    checkpoint: CheckpointText | list[CheckpointText] | None = Field(
        default=None, description=f"as of predict; null = that of the predict run in `input`, else {SHIPPED}"
    )
    readers: Annotated[
        list[Annotated[str, AfterValidator(_reader)]],
        Field(min_length=1, max_length=_MOST_READERS),
        AfterValidator(_readers),
    ] = Field(default_factory=lambda: ["reader"], description="who reads; each has an address of their own")
    study: Literal["blind"] | None = Field(
        default=None, description="blind = the model's answer is held back until a reader has marked the film"
    )
    seed: Seed = Field(default=0, description="of the order of films in a blind study")
    output: PathText | None = Field(
        default=None,
        description="folder for marks and dropped films, gone on with where it has some; null = marks are in "
        "`outputs/view/`, and of dropped films nothing is kept",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on; any but this machine's own needs TLS")
    port: int = Field(default=0, ge=0, le=65_535, description="0 = one that is free")
    cert: PathText | None = Field(default=None, description="certificate for TLS, PEM")
    key: PathText | None = Field(default=None, description="its private key, PEM; null = it is in `cert`")
    browser: bool = Field(default=True, description="open the page, where there is one reader and a screen")
    data: ViewedFilms = ViewedFilms()
    side: OneSide = None
    film: AskedFilm = "auto"
    device: AskedDevice = "auto"
    precision: AskedPrecision = "auto"
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="films a batch; null = a few, so that the first is there soon"
    )
