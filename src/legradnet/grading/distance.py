"""How far a film lies from the training films, in what a network's trunks see of it: does the network know such films?

A Gaussian is fitted to the channel means of all stages (`network.stages`) over training films, with a variance of its
own in the directions of their largest spread and one for all others (Tipping and Bishop 1999, "Probabilistic principal
component analysis"). The distance is Mahalanobis' (Lee et al. 2018, arXiv:1807.03888, who take several layers too). Its
limit comes from validation films alone: training films were learned, and lie too near. The film's own texture has a
Gaussian beside: trunks that learned generated knees see real ones as such. Its limit is wide, as films of other
scanners are sharper or softer and graded well nevertheless. numpy, as an export is graded without torch; scikit-learn's
covariances and pytorch-ood would need themselves, or torch, there.
"""

import base64
import binascii
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from legradnet.grades import Floats
from legradnet.settings import Settings

UNLIKE = "unlike the training films"
MIN_FILMS = 30  # training films; fewer have no spread that could be told
_DIRECTIONS = 128
_FILMS_A_DIRECTION = 4  # a variance needs some films
_TEXTURE_MARGIN = 1.5  # beyond the limit of its like: real knees are at 1.8 and more for a model of generated ones
_SURE = 0.95  # that no more than the wanted share of further films lie beyond the limit
_MOST_CHANNELS = 30_000  # of all stages of all trunks; texts of metadata have at most 100,000 characters
_OLDER = 20  # films that a centre counts for when it moves
_LEAST = 1e-6  # of a scale or a limit
_LEAST_VARIANCE = 1e-4  # where a channel's is 1 on average: what 16 bits of a direction leave open is less


def _numbers(text: str) -> str:
    try:
        values = _decoded(text)
    except (binascii.Error, ValueError):
        raise ValueError("must be numbers of 16 bits in base 64") from None
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("must be numbers in base 64, all of them finite")
    return text


def _encoded(values: Floats) -> str:
    return base64.b64encode(np.asarray(values).astype("<f2").tobytes()).decode("ascii")


def _decoded(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float64)


Numbers = Annotated[str, Field(max_length=3 * _MOST_CHANNELS), AfterValidator(_numbers)]
Variance = Annotated[float, Field(gt=0, le=1e12)]
Wide = Annotated[float, Field(ge=-1e12, le=1e12)]


class Distance(Settings):
    """The Gaussian of training films' stages, and how far from it a film may be.

    Attributes:
        means: Of each channel, [W].
        scales: What each channel is divided by, [W]: the spread of all of its trunk, so that no trunk drowns another.
        directions: Of the largest spread, R unit vectors [W]; each is the base 64 of little-endian numbers of 16 bits.
        variances: In these directions [R].
        rest: Variance in each other direction.
        limit: The largest distance of a film that is not referred.
        share: Of films like those of training that may be beyond it.
        films: Training films it was fitted on.
        held_out: Validation films that the limit follows from.
        texture: The same of the films' texture, whose channels come after the stages'; None where it is not looked at.
    """

    means: list[Wide] = Field(min_length=1, max_length=_MOST_CHANNELS)
    scales: list[Variance] = Field(min_length=1, max_length=_MOST_CHANNELS)
    directions: list[Numbers] = Field(max_length=4 * _DIRECTIONS)
    variances: list[Variance] = Field(max_length=4 * _DIRECTIONS)
    rest: Variance
    limit: float = Field(gt=0, le=1e12)
    share: float = Field(gt=0, lt=1)
    films: int = Field(ge=1)
    held_out: int = Field(ge=1)
    texture: "Distance | None" = None

    @model_validator(mode="after")
    def _fits_together(self) -> "Distance":
        width = len(self.means)
        if len(self.scales) != width or len(self.variances) != len(self.directions):
            raise ValueError("means and scales of a distance go together, and directions and variances")
        if any(len(_decoded(text)) != width for text in self.directions):
            raise ValueError(f"directions of a distance must each have {width} numbers, as its means")
        return self

    @property
    def width(self) -> int:
        """Channels W of all stages, and of the texture."""
        return len(self.means) + (self.texture.width if self.texture else 0)

    def __call__(self, stages: Floats) -> Floats:
        """Distance [B] of films by their stages [B, W], in units of the limit: above 1 is unlike the training films.

        It can also rank what is no whole film, such as squares cut out of one: the smaller, the more like a film of
        training.
        """
        means, scales, directions, variances = self._arrays
        offset = (stages[:, : len(means)].astype(np.float64) - means) / scales
        along = offset @ directions.T
        beside = (np.square(offset).sum(axis=1) - np.square(along).sum(axis=1)).clip(min=0)
        far = np.sqrt((np.square(along) / variances).sum(axis=1) + beside / self.rest) / self.limit
        return np.maximum(far, self.texture(stages[:, len(means) :])) if self.texture else far

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats, Floats, Floats]:
        directions = [_decoded(text) for text in self.directions]
        return (
            np.asarray(self.means),
            np.asarray(self.scales),
            np.stack(directions) if directions else np.zeros((0, len(self.means))),
            np.asarray(self.variances),
        )


def fit_distance(
    train: Floats, held_out: Floats, *, trunks: Sequence[int] = (), share: float = 0.02
) -> Distance | None:
    """Fit the Gaussian on the stages of training films [N, W], and its limit on those of films held out [M, W].

    Args:
        train: Of films that the network was trained on.
        held_out: Of films like them that it was not.
        trunks: How many of the channels are each trunk's; () for one. Those after them are of the texture.
        share: Of further films like these that may be beyond the limit.

    Returns:
        None for fewer than `MIN_FILMS` training films, or so few held out that none of them would be beyond a limit.
    """
    if len(train) < MIN_FILMS or not train.shape[1] or limit_rank(len(held_out), share) is None:
        return None
    ours = sum(trunks) or train.shape[1]
    own = _fitted(train[:, :ours], held_out[:, :ours], share, trunks, ours // 2)
    if ours == train.shape[1]:
        return own
    texture = _fitted(train[:, ours:], held_out[:, ours:], share, (), train.shape[1] - ours - 1)
    return own.model_copy(update={"texture": texture.model_copy(update={"limit": _TEXTURE_MARGIN * texture.limit})})


def _fitted(train: Floats, held_out: Floats, share: float, trunks: Sequence[int], most: int) -> Distance:
    """One Gaussian with at most `most` directions of their own variance."""
    means, scales = train.mean(axis=0), np.ones(train.shape[1])
    for channels in np.split(np.arange(len(scales)), np.cumsum(trunks)[:-1].astype(int)):
        scales[channels] = max(float(np.sqrt(train[:, channels].var(axis=0).mean())), _LEAST)
    offsets = (train - means) / scales
    variances, vectors = _largest_spread(offsets, min(_DIRECTIONS, len(train) // _FILMS_A_DIRECTION, most))
    rest = (np.square(offsets).sum() / len(train) - variances.sum()) / (train.shape[1] - len(variances))
    fitted = Distance(
        means=means.tolist(),
        scales=scales.tolist(),
        directions=[_encoded(vector) for vector in vectors],
        variances=variances.clip(min=_LEAST_VARIANCE).tolist(),
        rest=max(float(rest), _LEAST_VARIANCE),
        limit=1.0,
        share=share,
        films=len(train),
        held_out=len(held_out),
    )
    return with_limit(fitted, held_out)


def with_limit(distance: Distance, held_out: Floats) -> Distance:
    """The same Gaussian with its limit from the stages of films held out [M, W]; ValueError if they are too few."""
    return with_distances(distance, distance(held_out))


def with_distances(distance: Distance, held_out: Floats) -> Distance:
    """The same, from the distances [M] of films held out, in units of the limit that it has."""
    rank = limit_rank(len(held_out), distance.share)
    if rank is None:
        raise ValueError(f"{len(held_out)} films held out are too few for a limit that {distance.share:g} are beyond")
    grows = float(np.sort(held_out)[rank - 1])
    return _with_limit_times(distance, grows).model_copy(update={"held_out": len(held_out)})


def _with_limit_times(distance: Distance, grows: float) -> Distance:
    texture = _with_limit_times(distance.texture, grows) if distance.texture else None
    return distance.model_copy(update={"limit": max(grows * distance.limit, _LEAST), "texture": texture})


def recentred(distance: Distance, stages: Floats) -> Distance:
    """The same spread about another site's centre, whose films [N, W] count beside `_OLDER` of the centre before."""
    films, ours = len(stages), len(distance.means)
    means = (stages[:, :ours].sum(axis=0) + _OLDER * np.asarray(distance.means)) / (films + _OLDER)
    texture = recentred(distance.texture, stages[:, ours:]) if distance.texture else None
    # and no copy, which keeps `_arrays`
    return Distance(**{**distance.model_dump(), "means": means.tolist(), "texture": texture})


def limit_rank(films: int, share: float) -> int | None:
    """Which of the distances of `films` held out, the smallest first, counted from 1, is the limit.

    Where the limit is the largest but k, the share of further films beyond it is drawn from Beta(k + 1, `films` - k)
    (Vovk 2012, arXiv:1209.2673). k is the largest by which at most `share` of them are with a certainty of 95 %; with
    too few films for that, 0 if on average at most `share` are. None with too few for that too.
    """
    from scipy.special import bdtr  # late: only fitting needs it

    if (films + 1) * share < 1:
        return None
    beyond = 0
    while bdtr(beyond + 1, films, share) <= 1 - _SURE:
        beyond += 1
    return films - beyond


def _largest_spread(offsets: Floats, count: int) -> tuple[Floats, Floats]:
    """The `count` largest variances of `offsets` [N, W], at most, and their directions [count, W]; largest first."""
    from scipy.linalg import eigh

    films, channels = offsets.shape
    if not count:
        return np.zeros(0), np.zeros((0, channels))
    # by the smaller of two matrices: a large network has more channels than there are films
    small = offsets @ offsets.T if films < channels else offsets.T @ offsets
    values, vectors = eigh(small, subset_by_index=[len(small) - count, len(small) - 1])
    values = values.clip(min=0)
    if films < channels:
        vectors = offsets.T @ vectors / np.sqrt(values).clip(min=_LEAST)
    return values[::-1] / films, vectors.T[::-1]
