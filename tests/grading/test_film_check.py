import numpy as np
import pytest
import torch
from PIL import Image

from legradnet.data.film import Film
from legradnet.data.synthetic import synthesize
from legradnet.grading.film_check import MIN_FILMS, FilmCheck, fit_film_check


@pytest.fixture(scope="module")
def films():
    return [Film(pixels) for pixels in synthesize(160, size=64, num_classes=5, seed=1)[0]]


@pytest.fixture(scope="module")
def check(films):
    return fit_film_check(films[:120])


def test_films_of_the_training_kind_pass(check, films):
    assert [check.reason(film) for film in films[120:]].count("") >= 39


def test_a_larger_or_mirrored_film_passes(check, films):
    large = Image.fromarray(films[120].gray).resize((300, 300))
    assert check.reason(Film(np.asarray(large))) == ""
    assert check.reason(Film(films[121].gray[:, ::-1])) == ""


def test_a_knee_of_the_other_side_passes_where_all_were_turned_to_one():
    pixels, table = synthesize(200, size=64, num_classes=5, seed=2)
    marked = pixels.copy()
    marked[:, :, :20] = 20  # a dark edge on one side only
    right = (table["side"] == "R").to_numpy()
    one_sided = fit_film_check([Film(film) for film in marked[right]])
    turned = [one_sided.reason(Film(film[:, ::-1].copy())) for film in marked[right][:30]]
    assert turned.count("") >= 28


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda gray: Film(np.zeros_like(gray)), "blank"),
        (lambda gray: Film(np.full_like(gray, 128)), "blank"),
        (lambda gray: Film(255 - gray), "look like"),
        (lambda gray: Film(gray, colour=0.3), "colour"),
        (lambda gray: Film(np.random.default_rng(0).integers(0, 256, gray.shape).astype(np.uint8)), ""),
        (lambda gray: Film(np.rot90(gray).copy()), "look like"),
        (lambda gray: Film((gray * 0.15).astype(np.uint8)), ""),
    ],
    ids=["black", "gray", "inverted", "colour", "noise", "turned", "dark"],
)
def test_a_film_with_the_wrong_look_is_referred_with_a_reason(check, films, spoil, word):
    reasons = [check.reason(spoil(film.gray)) for film in films[120:140]]
    assert all(reasons) if word != "" else sum(map(bool, reasons)) >= 18
    assert all(word in reason for reason in reasons)


def test_a_tint_of_scanner_or_jpeg_is_no_colour_photograph(check, films):
    assert check.reason(Film(films[130].gray, colour=0.03)) == ""


def test_too_few_films_fit_no_check(films):
    assert fit_film_check(films[: MIN_FILMS - 1]) is None


def test_the_check_survives_the_checkpoint(tmp_path, check):
    torch.save(check.model_dump(), tmp_path / "plain")
    assert FilmCheck.model_validate(torch.load(tmp_path / "plain", weights_only=True)) == check


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_inverted_films_among_the_training_films_do_not_switch_the_check_off(films, share):
    count = int(share * 120)
    fitted = fit_film_check([Film(255 - film.gray) for film in films[:count]] + films[count:120])
    assert all(fitted.reason(Film(255 - film.gray)) for film in films[120:])
