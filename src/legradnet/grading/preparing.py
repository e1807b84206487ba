"""From a request to what each network wants to see of its film, and many of them in batches."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from legradnet.data.film import Film, Gray, ImageError, fit_image
from legradnet.data.images import read_film
from legradnet.data.reading.pool import Stop
from legradnet.data.sides import Side, find_side
from legradnet.grading.grading import Prepared, Request, check_request
from legradnet.grading.look import look_at
from legradnet.grading.lookers import look_apart
from legradnet.grading.measures import measures_of
from legradnet.grading.networks import GradingNetwork
from legradnet.machine import cores

UNKNOWN_SIDE = "side unknown: graded both ways and averaged"
_NO_FILM = Film(np.zeros((0, 0), np.uint8))
_Read = TypeVar("_Read")
Alter = Callable[[Gray], Gray]  # changes what the networks see of a film [H, W]


class SidedFilm(NamedTuple):
    """A film as read, the side of its knee, and what is to be remarked of both."""

    film: Film
    side: Side
    remarks: list[str]


def prepare(networks: Sequence[GradingNetwork], request: Request, alter: Alter | None = None) -> Prepared | ImageError:
    """Read a film and bring it to the form each network wants; what is wrong with its file is given, not raised."""
    check_request(request)
    if isinstance(request.film, ImageError):
        return request.film
    try:
        return prepare_film(networks, *read(request), alter)
    except ImageError as error:
        return error


def read(request: Request) -> SidedFilm:
    """Read the film of a checked request, which has one; raises ImageError."""
    assert not isinstance(request.film, ImageError)
    source = Path(request.film) if isinstance(request.film, str) else request.film
    film = read_film(source)
    side, of_side = find_side(request.side, film.side, source.name if isinstance(source, Path) else "")
    return SidedFilm(film, side, [*(said for said in film.remarks if said not in film.doubts), *of_side])


def prepare_film(
    networks: Sequence[GradingNetwork],
    film: Film,
    side: Side,
    remarks: Sequence[str],
    alter: Alter | None = None,
) -> Prepared:
    """Bring one knee cut close to the form each network wants."""
    gray = alter(film.gray) if alter else film.gray
    remarks = list(remarks)
    views = []
    for network in networks:
        square = fit_image(gray, network.image_size, network.fit)
        mirrored = square[:, ::-1]
        kinds = {"": [square, mirrored], "L": [mirrored], "R": [square]}
        views.append(kinds[side] if network.mirror_left else [square])
    if any(len(of_network) > 1 for of_network in views):
        remarks.append(UNKNOWN_SIDE)
    look = look_apart(look_at, film, [network.film_check for network in networks])
    refer, measures = "; ".join([*film.doubts, *look.refer]), measures_of(film, views[0][0])
    return Prepared(film, side, views, refer, [*remarks, *look.remarks], measures=measures)


def without_film(prepared: Prepared | _Read) -> Prepared | _Read:
    """What was prepared without the film itself: many wait in memory."""
    return prepared._replace(film=_NO_FILM, whole=None) if isinstance(prepared, Prepared) else prepared


def read_in_batches(
    requests: Iterable[Request],
    read: Callable[[Request], _Read],
    workers: int | None,
    batch_size: int,
    networks: Sequence[GradingNetwork],
) -> Generator[list[_Read], None, None]:
    """What threads `read` of each request, in order and in batches.

    While networks work, films are read for the next two batches. With networks that take all cores who reads takes
    turns, but for what `workers` have begun: side by side each waits for the other, and both take longer.
    """
    workers = max(1, min(8, cores()) if workers is None else workers)
    most = max(batch_size, workers) if any(network.takes_all_cores for network in networks) else 3 * batch_size
    remaining = iter(requests)
    stop = Stop()
    with ThreadPoolExecutor(workers, initializer=stop.heed) as pool:
        reading: deque[Future[_Read]] = deque()
        try:
            while True:
                ahead = islice(remaining, most - len(reading))
                reading.extend(pool.submit(read, request) for request in ahead)
                if not reading:
                    return
                count = min(batch_size, len(reading))
                yield [reading.popleft().result() for _ in range(count)]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            stop.set()  # whoever is interrupted waits for no decoder
