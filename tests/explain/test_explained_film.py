from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from legradnet import Grader
from legradnet.data.film import fit_image
from legradnet.data.images import read_image
from legradnet.errors import UserError
from legradnet.explain.film import explain_films, over_film, spread
from legradnet.explain.overlay import explanation_figure
from legradnet.explain.run import _write
from legradnet.training.run import train
from small_runs import compose


@pytest.fixture(scope="module")
def grader(trained):
    return Grader.from_checkpoint(trained / "checkpoints/best.ckpt")


@pytest.fixture(scope="module")
def film(knees):
    return next(path for path in sorted(knees.glob("*.png")) if path.stem.endswith("L"))


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("height", "width"), [(90, 60), (60, 90), (64, 64)])
def test_a_place_that_the_network_saw_lies_at_the_same_place_of_the_film(fit, mirrored, height, width):
    film = np.zeros((height, width), np.uint8)
    film[30:38, 36:44] = 255
    square = fit_image(film, 64, fit)
    seen = np.ascontiguousarray(square[:, ::-1] if mirrored else square)
    laid = over_film(torch.from_numpy(seen).float(), film.shape, fit, mirrored)
    assert laid.shape == film.shape
    row, column = np.unravel_index(laid.argmax(), laid.shape)
    assert 29 <= row <= 38 and 35 <= column <= 44
    assert laid[28:40, 34:46].sum() > 0.9 * laid.sum()


def test_evidence_is_told_as_a_multiple_of_an_even_spread():
    evidence = np.array([[3.0, 1.0], [0.0, -5.0]], np.float32)
    assert spread(evidence) == pytest.approx(np.array([[3, 1], [0, 0]]))
    assert spread(np.ones((4, 4), np.float32)) == pytest.approx(1)


def test_a_map_without_positive_evidence_is_empty_and_not_stretched_to_full_colour():
    assert not spread(np.array([[-1.0, -2.0], [0.0, 1e-9]], np.float32)).any()
    assert not spread(np.zeros((3, 3), np.float32)).any()


def test_an_explained_film_has_a_map_for_each_backbone_and_a_fused_one_at_its_own_size(grader, film):
    explained = grader.explain(film)
    gray = read_image(film)
    assert set(explained.maps) == {"fused", "swin", "vit"}
    assert all(one.shape == gray.shape for one in explained.maps.values())
    assert set(explained.native) == {"swin", "vit"}
    assert explained.grading.probabilities == pytest.approx(grader.grade(film).probabilities, abs=1e-6)
    expected = sum(explained.shares[key] * explained.maps[key] for key in ("swin", "vit"))
    assert explained.maps["fused"] == pytest.approx(expected)
    if any(explained.shares.values()):
        assert sum(explained.shares.values()) == pytest.approx(1)


def test_a_left_knee_is_explained_the_way_it_lies(grader, film):
    gray = read_image(film)
    left = grader.explain(gray, side="L").maps["vit"]
    right = grader.explain(np.ascontiguousarray(gray[:, ::-1]), side="R").maps["vit"]
    assert left == pytest.approx(right[:, ::-1], abs=1e-3)


def test_what_is_asked_for_changes_the_map(grader, film):
    natives = [grader.explain(film, target=target).native["vit"] for target in (0, 4, "expected")]
    assert not np.allclose(natives[0], natives[1])
    assert not np.allclose(natives[0], natives[2])


def test_a_gate_without_weights_is_explained_by_effect_alone(tmp_path, film):
    train(compose("gating=concat", "trainer.max_epochs=1", "data.count=30", "test=false"), tmp_path)
    explained = Grader.from_checkpoint(tmp_path / "checkpoints/best.ckpt").explain(film)
    assert explained.grading.gate_weights == {}
    assert set(explained.shares) == {"swin", "vit"}


def test_the_picture_names_grade_backbones_and_an_empty_map_in_words(grader, film):
    explained = grader.explain(film)
    explained.maps["vit"][:] = 0
    figure = explanation_figure(explained, "knee $x$")
    words = [text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts]]
    assert any(word.startswith("vit: ") for word in words)
    assert words.count("nothing speaks for it") >= 1
    assert f"Graded {explained.grading.grade}" in figure.get_suptitle()
    tops = {image.get_clim() for axes in figure.axes[2:4] for image in axes.images[1:]}
    assert len(tops) == 1  # one scale for all backbones


def test_several_checkpoints_are_not_explained_at_once(trained, film):
    path = trained / "checkpoints/best.ckpt"
    with pytest.raises(UserError, match="one checkpoint at a time"):
        Grader.from_checkpoint([path, path]).explain(film)


def test_a_backbone_may_be_called_as_a_word_of_numpy_but_not_as_the_map_of_all(grader, film, tmp_path):
    explained = grader.explain(film)
    odd = replace(
        explained,
        maps={"fused": explained.maps["fused"], "file": explained.maps["vit"]},
        shares={"file": 1.0},
        native={},
    )
    _write(odd, tmp_path / "knee", "knee")
    assert set(np.load(tmp_path / "knee.npz")) == {"fused", "file"}
    with pytest.raises(UserError, match="backbone fused can't be explained"):
        explain_films(SimpleNamespace(backbones=("fused",)), [], [])
