"""What a checkpoint or an export says of itself: untrusted, and checked before anything is built from it."""

from pydantic import Field, model_validator

from legradnet.grading.calibration import Calibration
from legradnet.grading.distance import Distance
from legradnet.grading.film_check import FilmCheck
from legradnet.grading.reference import ReferenceFilms
from legradnet.grading.seen_films import SeenFilms
from legradnet.models.described import Count, Versions
from legradnet.settings import Settings


class FalseReferrals(Settings):
    """How many validation films would be referred for their look."""

    films: int = Field(ge=1)
    referred: Count

    @model_validator(mode="after")
    def _refers_what_was_there(self) -> "FalseReferrals":
        if self.referred > self.films:
            raise ValueError(f"{self.referred} of {self.films} validation films can't have been referred")
        return self


class TrainingFilms(Settings):
    """Films of each grade in every split."""

    source: str
    films: dict[str, list[Count]]


class CalibratedAtSite(Settings):
    """What `legradnet-calibrate` fitted calibration, film check and distance on.

    Attributes:
        films: Of the site.
        patients: Of the site.
        older_films: Films of the calibration before that took part in the prediction sets.
        older_share: Their share of the weight there, 0-1.
        scaling: What was chosen for the probabilities: temperature, biases, vector or matrix.
        model: Digest of the model that it began with.
        weights: SHA-256 of its weights, which are those of that model.
    """

    films: int = Field(ge=1)
    patients: int = Field(ge=1)
    older_films: Count = 0
    older_share: float = Field(default=0.0, ge=0, le=1)
    scaling: str
    model: str
    weights: str = ""


class Learned(Settings):
    """What training found out beside the weights; calibration, film check and distance stand apart in an export."""

    calibration: Calibration | None = None
    film_check: FilmCheck | None = None
    distance: Distance | None = None
    false_referrals: FalseReferrals | None = None
    seen: SeenFilms | None = None
    reference: ReferenceFilms | None = None
    site: CalibratedAtSite | None = None
    data: TrainingFilms | None = None
    versions: Versions = Field(default_factory=dict)
