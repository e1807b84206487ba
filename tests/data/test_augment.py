import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from legradnet.data.augment import Augmentation, AugmentSettings, mixed
from legradnet.errors import UserError
from legradnet.settings import checked

CONF = Path(__file__).parents[2] / "conf" / "augment"
EVERYTHING = {
    "rotation": 20.0,
    "shift": 0.1,
    "scale": 0.2,
    "mirror": 0.5,
    "exposure": 0.2,
    "contrast": 0.5,
    "gamma": 0.5,
    "noise": 0.1,
    "blur": 1.5,
    "cutout": 0.3,
}


OFF = dict.fromkeys(EVERYTHING, 0.0)


def random_films(count: int, height: int = 24, width: int = 24) -> Tensor:
    own = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, height, width), dtype=torch.uint8, generator=own)


def augmented(images: Tensor, seed: int = 0, **strengths: float) -> Tensor:
    torch.manual_seed(seed)
    return Augmentation(AugmentSettings(**OFF | strengths))(images)


def dots(count: int, height: int, width: int, row: int, column: int) -> Tensor:
    """Black films with one bright 5 x 5 square, so large that resampling cannot lose it."""
    films = torch.zeros(count, 1, height, width, dtype=torch.uint8)
    films[..., row - 2 : row + 3, column - 2 : column + 3] = 255
    return films


def centres_of_gray(films: Tensor) -> Tensor:
    """[B, 2]: (x, y) in pixels from the film's centre."""
    gray = films[:, 0].double()
    height, width = gray.shape[-2:]
    x = torch.arange(width) - (width - 1) / 2
    y = torch.arange(height) - (height - 1) / 2
    mass = gray.sum((1, 2))
    return torch.stack([(gray.sum(1) * x).sum(1), (gray.sum(2) * y).sum(1)], dim=1) / mass[:, None]


@settings(max_examples=25, deadline=None)
@given(
    strengths=st.fixed_dictionaries({}, optional={key: st.sampled_from([0.0, top]) for key, top in EVERYTHING.items()}),
    size=st.tuples(st.integers(1, 3), st.integers(1, 33), st.integers(1, 33)),
    seed=st.integers(0, 1000),
)
def test_any_film_gives_a_film_of_its_own_shape_from_black_to_white(strengths, size, seed):
    images = random_films(*size)
    films = augmented(images, seed, **strengths)
    assert films.shape == images.shape
    assert films.dtype == torch.float32
    assert torch.isfinite(films).all()
    assert films.min() >= 0
    assert films.max() <= 1


@pytest.mark.parametrize("gray", [0, 255])
def test_black_and_white_films_stay_in_range(gray):
    films = augmented(torch.full((64, 1, 9, 9), gray, dtype=torch.uint8), **EVERYTHING)
    assert torch.isfinite(films).all()
    assert films.min() >= 0
    assert films.max() <= 1


def test_the_batch_itself_is_left_alone():
    images = random_films(4)
    before = images.clone()
    augmented(images, **EVERYTHING)
    assert torch.equal(images, before)


def test_none_only_divides_by_255():
    images = random_films(4, 17, 23)
    none = Augmentation(AugmentSettings(**OmegaConf.load(CONF / "none.yaml")))
    assert torch.equal(none(images), images.float() / 255)


@pytest.mark.parametrize("key", EVERYTHING)
def test_every_setting_changes_films(key):
    images = random_films(8)
    assert not torch.equal(augmented(images, **{key: EVERYTHING[key]}), images.float() / 255)


@pytest.mark.parametrize("name", ["none", "standard", "radiograph"])
def test_every_file_lists_every_setting_and_builds(name):
    settings_of_file = OmegaConf.load(CONF / f"{name}.yaml")
    assert list(settings_of_file) == [*EVERYTHING, "mixup"]  # which is of two films
    assert AugmentSettings(**settings_of_file).changes_nothing == (name == "none")
    assert (CONF / f"{name}.yaml").read_text().startswith("# ")


def test_same_seed_same_films_and_another_seed_other_films():
    images = random_films(4)
    assert torch.equal(augmented(images, 1, **EVERYTHING), augmented(images, 1, **EVERYTHING))
    for key, strength in EVERYTHING.items():
        assert not torch.equal(augmented(images, 1, **{key: strength}), augmented(images, 2, **{key: strength})), key


@pytest.mark.parametrize("key", EVERYTHING)
def test_each_film_has_its_own_draw(key):
    one = random_films(1)
    films = augmented(one.expand(16, -1, -1, -1), **{key: EVERYTHING[key]})
    different = len({film.numpy().tobytes() for film in films})
    assert different == 2 if key == "mirror" else different > 8


def test_a_setting_does_not_disturb_the_draws_of_the_others():
    gray = torch.full((8, 1, 20, 20), 128, dtype=torch.uint8)
    alone = augmented(gray, noise=0.02) - 128 / 255
    for key in ("mirror", "exposure", "contrast", "gamma", "blur"):  # those that leave plain gray plain
        other = {key: EVERYTHING[key]}
        assert (augmented(gray, noise=0.02, **other) - augmented(gray, **other)).allclose(alone, atol=1e-5), key
    point = dots(8, 41, 41, 10, 14)
    moved = augmented(point, rotation=30.0, shift=0.1)
    assert torch.equal(augmented(point, rotation=30.0, shift=0.1, gamma=0.5) > 0, moved > 0)


def test_mirror_flips_the_given_share_exactly():
    images = random_films(2000, 3, 4)
    films = augmented(images, mirror=0.3)
    plain = images.float() / 255
    flipped = torch.tensor([torch.equal(new, old.flip(-1)) for new, old in zip(films, plain, strict=True)])
    kept = torch.tensor([torch.equal(new, old) for new, old in zip(films, plain, strict=True)])
    assert (flipped | kept).all()
    assert flipped.float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert torch.equal(augmented(images, mirror=1.0), plain.flip(-1))


@pytest.mark.parametrize(("height", "width"), [(61, 61), (41, 81), (81, 41)])
def test_rotation_keeps_lengths_and_angles_on_any_film(height, width):
    right = centres_of_gray(augmented(dots(32, height, width, height // 2, width // 2 + 12), rotation=45.0))
    below = centres_of_gray(augmented(dots(32, height, width, height // 2 + 12, width // 2), rotation=45.0))
    assert right.norm(dim=1).allclose(torch.tensor(12.0, dtype=torch.float64), atol=0.15)
    assert below.norm(dim=1).allclose(torch.tensor(12.0, dtype=torch.float64), atol=0.15)
    assert (right * below).sum(1).abs().max() < 3  # of 144: within about one degree of a right angle
    degrees = torch.rad2deg(torch.atan2(right[:, 1], right[:, 0]))
    assert degrees.abs().max() <= 45.5
    assert degrees.min() < -25
    assert degrees.max() > 25


def test_shift_is_a_share_of_each_side_whatever_the_turn_and_size():
    films = augmented(dots(200, 61, 121, 30, 60), rotation=30.0, scale=0.2, shift=0.1)
    moved = centres_of_gray(films)
    assert moved[:, 0].abs().max().item() == pytest.approx(12.1, abs=0.6)
    assert moved[:, 1].abs().max().item() == pytest.approx(6.1, abs=0.4)
    assert torch.corrcoef(moved.T)[0, 1].abs() < 0.3  # each axis has its own draw


def test_scale_stays_within_its_share():
    distances = centres_of_gray(augmented(dots(200, 61, 61, 30, 50), scale=0.2)).norm(dim=1)
    assert distances.min().item() == pytest.approx(16, abs=0.4)
    assert distances.max().item() == pytest.approx(24, abs=0.4)


@settings(max_examples=15, deadline=None)
@given(
    rotation=st.floats(0, 20),
    shift=st.floats(0, 0.1),
    scale=st.floats(0, 0.15),
    row=st.integers(18, 42),
    column=st.integers(18, 42),
)
def test_no_point_moves_further_than_the_settings_allow(rotation, shift, scale, row, column):
    images = dots(16, 61, 61, row, column)
    before = centres_of_gray(images)
    moved = (centres_of_gray(augmented(images, rotation=rotation, shift=shift, scale=scale)) - before).norm(dim=1)
    radius = before.norm(dim=1)
    turned = 2 * math.sin(math.radians(rotation) / 2) * radius * (1 + scale)
    assert (moved <= turned + scale * radius + math.sqrt(2) * shift * 61 + 0.3).all()


def test_what_comes_from_outside_is_black():
    white = torch.full((50, 1, 40, 40), 255, dtype=torch.uint8)
    films = augmented(white, shift=0.2)
    assert films.amin((1, 2, 3)).median() == 0
    assert films[:, :, 20, 20].min() > 0.999


def test_exposure_adds_up_to_its_share():
    change = augmented(torch.full((500, 1, 4, 4), 128, dtype=torch.uint8), exposure=0.1) - 128 / 255
    assert change.abs().max().item() == pytest.approx(0.1, abs=0.003)
    assert change.std(dim=(1, 2, 3)).max() < 1e-6
    assert change.mean().abs() < 0.02


def test_contrast_keeps_the_mean_and_scales_the_spread():
    images = random_films(500, 8, 8) // 4 + 96  # far enough from black and white not to be cut
    before, films = images.float() / 255, augmented(images, contrast=0.2)
    assert films.mean((1, 2, 3)).allclose(before.mean((1, 2, 3)), atol=1e-5)
    factor = films.std(dim=(1, 2, 3)) / before.std(dim=(1, 2, 3))
    assert factor.min().item() == pytest.approx(0.8, abs=0.01)
    assert factor.max().item() == pytest.approx(1.2, abs=0.01)


def test_gamma_is_a_power_within_its_limits():
    films = augmented(torch.full((500, 1, 2, 2), 64, dtype=torch.uint8), gamma=0.25)
    exponents = films.log() / math.log(64 / 255)
    assert exponents.min().item() == pytest.approx(math.exp(-0.25), abs=0.01)
    assert exponents.max().item() == pytest.approx(math.exp(0.25), abs=0.01)


def test_noise_is_white_with_no_more_than_its_standard_deviation():
    noise = augmented(torch.full((200, 1, 40, 40), 128, dtype=torch.uint8), noise=0.05) - 128 / 255
    deviations = noise.std(dim=(1, 2, 3))
    assert 0.045 < deviations.max() < 0.055  # 1,600 pixels: the estimate's own error is under 2 %
    assert deviations.min() < 0.005
    assert noise.mean((1, 2, 3)).abs().max() < 0.006
    loudest = noise[deviations.argmax(), 0]
    for neighbour in (loudest.roll(1, 0), loudest.roll(1, 1)):
        assert abs(torch.corrcoef(torch.stack([loudest.flatten(), neighbour.flatten()]))[0, 1]) < 0.12


def test_saturated_films_are_noisy_too():
    films = augmented(torch.full((100, 1, 20, 20), 255, dtype=torch.uint8), exposure=0.5, noise=0.05)
    white = films.amin((2, 3)).flatten() > 0.999
    brightened = films.mean((1, 2, 3)) > 0.9
    assert brightened.sum() > 30
    assert (white & brightened).sum() < 10


def test_blur_spreads_a_point_up_to_its_sigma_and_keeps_gray():
    point = torch.zeros(300, 1, 31, 31, dtype=torch.uint8)
    point[..., 15, 15] = 255
    films = augmented(point, blur=1.5)
    assert films.sum((1, 2, 3)).allclose(torch.ones(300), atol=1e-4)
    squares = (torch.arange(31) - 15.0) ** 2
    for axis in (2, 3):
        sigma = ((films.sum(axis) * squares).sum((1, 2))).sqrt()
        assert sigma.max().item() == pytest.approx(1.5, abs=0.04)
        assert sigma.min() < 0.1
    flat = torch.full((4, 1, 9, 9), 200, dtype=torch.uint8)
    assert augmented(flat, blur=1.5).allclose(flat.float() / 255, atol=1e-5)  # no darker rim


def test_cutout_is_one_rectangle_of_mean_gray_within_its_share():
    images = torch.zeros(300, 1, 40, 60, dtype=torch.uint8)
    images[..., ::2] = 200  # columns of 0 and 200: the mean is in no pixel
    films = augmented(images, cutout=0.25)
    hole = (films - 100 / 255).abs().lt(1e-4)[:, 0]
    assert torch.equal(films[:, 0][~hole], (images.float() / 255)[:, 0][~hole])
    rows, columns = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])
    for marks, longest in ((rows, 10), (columns, 15)):
        places = [mark.nonzero().flatten() for mark in marks]
        assert all(len(place) == 0 or place[-1] - place[0] + 1 == len(place) for place in places)
        assert longest - 1 <= max(len(place) for place in places) <= longest + 1


def test_autocast_does_not_coarsen_a_film():
    images = random_films(4, 64, 64)
    plain = augmented(images, **EVERYTHING)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augmented(images, **EVERYTHING), plain)


def test_wrong_settings_are_all_named_with_their_ranges():
    wrong = {"rotation": -1, "mirror": True, "blur": float("nan"), "scale": "big", "noise": 0.6, "gamma": None}
    with pytest.raises(UserError) as caught:
        checked(AugmentSettings, wrong, group="augment", title="Mistakes:")
    lines = str(caught.value).splitlines()[1:]
    assert lines[0] == "  augment.rotation=-1 must be a number from 0 to 180"
    assert {line.split("=")[0].removeprefix("  augment.") for line in lines} == set(wrong)


@pytest.mark.parametrize("key", EVERYTHING)
def test_no_setting_may_be_negative_or_infinite(key):
    for value in (-0.01, float("inf")):
        with pytest.raises(UserError, match=rf"augment\.{key}=.* must be a number from 0 to "):
            checked(AugmentSettings, {key: value}, group="augment")


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4).byte(), torch.zeros(4, 1).byte()])
def test_only_gray_uint8_batches_are_taken(images):
    with pytest.raises(ValueError, match="expected uint8 images"):
        Augmentation(AugmentSettings())(images)


def test_mixing_gives_every_film_a_share_of_another_and_says_which():
    films = torch.rand(6, 1, 8, 8)
    torch.manual_seed(4)
    mix, partners, share = mixed(films, 0.4)
    assert sorted(partners.tolist()) == list(range(6))
    assert 0 <= share <= 1
    torch.testing.assert_close(mix, share * films + (1 - share) * films[partners])
    torch.manual_seed(4)
    assert mixed(films, 0.4)[2] == share
