import shutil
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hostile_films import dicom, dicom_bytes
from legradnet import Grader
from legradnet.checkpoint import read_checkpoint
from legradnet.data.film import ImageError
from legradnet.data.images import read_image
from legradnet.data.sides import side_from_name
from legradnet.errors import UserError
from legradnet.grading.averaging import join_sets
from legradnet.grading.grading import Request
from legradnet.grading.preparing import UNKNOWN_SIDE, read_in_batches
from legradnet.training.run import train
from small_runs import compose


def rewritten(path, target, change):
    """A copy of a checkpoint with something changed."""
    content = read_checkpoint(path)
    change(content)
    torch.save(content, target)
    return target


def test_a_grading_says_all_that_it_promises(grader, films):
    grading = grader.grade(films[0])
    assert grading.grade in range(5)
    assert grading.probabilities.sum() == pytest.approx(1)
    assert grading.expected_grade == pytest.approx(sum(k * p for k, p in enumerate(grading.probabilities)))
    first, last = grading.prediction_set[0], grading.prediction_set[-1]
    assert grading.prediction_set == tuple(range(first, last + 1))
    assert grading.grade in grading.prediction_set
    assert isinstance(grading.referred, bool)
    assert set(grading.gate_weights) == {"swin", "vit"}
    assert sum(grading.gate_weights.values()) == pytest.approx(1)


def test_a_path_a_picture_an_array_and_lists_of_them_are_graded_alike(grader, films):
    path = films[1]
    gray = read_image(path)
    gradings = grader.grade([str(path), path, Image.open(path), gray, np.stack([gray] * 3, axis=2)], side="R")
    assert len({grading.probabilities.tobytes() for grading in gradings}) == 1
    assert grader.grade([]) == []


def test_what_a_film_is_graded_does_not_depend_on_its_neighbours(best, films):
    many = Grader.from_checkpoint(best, batch_size=7, precision="f32").grade(films)
    for one, film in zip(many, films[:5], strict=False):
        alone = Grader.from_checkpoint(best, batch_size=1, precision="f32").grade(film)
        assert alone.grade == one.grade
        assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-5)


def test_a_left_knee_is_mirrored_when_its_side_is_known(grader, films):
    right = read_image(next(film for film in films if film.stem.endswith("R")))
    as_right = grader.grade(right, side="R")
    as_left = grader.grade(right[:, ::-1], side="L")
    assert as_left.probabilities == pytest.approx(as_right.probabilities, abs=1e-6)
    assert UNKNOWN_SIDE not in as_left.reason


def test_an_unknown_side_averages_both_ways_and_says_so(grader, films):
    gray = read_image(films[0])
    both = grader.grade(gray)
    ways = [grader.grade(gray, side=side).raw.astype(float) for side in ("L", "R")]
    assert UNKNOWN_SIDE in both.reason
    assert both.raw == pytest.approx((ways[0] + ways[1]) / 2, abs=1e-6)
    assert not np.allclose(ways[0], ways[1], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("9001695L.png", "L"),
        ("9001695r.png", "R"),
        ("knee_left.dcm", "L"),
        ("RIGHT-knee", "R"),
        ("p12_L_2019.png", "L"),
        ("left_right.png", ""),
        ("leftover.png", ""),
        ("lateral.png", ""),
        ("12345.png", ""),
        ("img_3r7.png", ""),
        ("x9R2k.dcm", ""),
    ],
)
def test_the_side_is_read_from_a_file_name_only_where_it_is_plain(name, side):
    assert side_from_name(name) == side


def test_several_checkpoints_average_their_probabilities(best, tmp_path, films):
    def blur(content):
        for name, tensor in content["state_dict"].items():
            if name.startswith("ensemble.head"):
                content["state_dict"][name] = tensor * 0.5

    other = rewritten(best, tmp_path / "other.ckpt", blur)
    alone = [Grader.from_checkpoint(path, precision="f32").grade(films[0]) for path in (best, other)]
    together = Grader.from_checkpoint([best, other], precision="f32").grade(films[0])
    assert together.raw == pytest.approx((alone[0].raw + alone[1].raw) / 2, abs=1e-6)
    assert together.probabilities == pytest.approx((alone[0].probabilities + alone[1].probabilities) / 2, abs=1e-6)
    assert sum(together.gate_weights.values()) == pytest.approx(1)
    assert together.grade in together.prediction_set


def test_checkpoints_with_other_grades_are_not_averaged(best, tmp_path):
    folder = tmp_path / "three"
    train(compose("trainer.max_epochs=1", "model.num_classes=3", "loss=corn", "data.count=30", "test=false"), folder)
    with pytest.raises(UserError, match="classes"):
        Grader.from_checkpoint([best, folder / "checkpoints/best.ckpt"])


def test_without_calibration_probabilities_are_raw_and_there_is_no_set(best, tmp_path, films):
    bare = rewritten(best, tmp_path / "bare.ckpt", lambda content: content.pop("legradnet"))
    grading = Grader.from_checkpoint(bare).grade(films[0])
    assert (grading.probabilities == grading.raw).all()
    assert grading.prediction_set == ()
    assert not grading.referred


def test_calibration_never_changes_a_grade(best, tmp_path, grader, films):
    bare = rewritten(best, tmp_path / "bare.ckpt", lambda content: content.pop("legradnet"))
    assert [g.grade for g in grader.grade(films)] == [g.grade for g in Grader.from_checkpoint(bare).grade(films)]


def test_an_unsure_film_and_a_film_with_the_wrong_look_are_referred_with_the_reason(best, tmp_path, films):
    def strict(content):
        content["legradnet"]["calibration"]["min_confidence"] = 0.999

    unsure = Grader.from_checkpoint(rewritten(best, tmp_path / "strict.ckpt", strict)).grade(films[0])
    assert unsure.referred and unsure.reason.startswith("unsure: probability 0.")

    def lenient(content):
        content["legradnet"]["calibration"]["min_confidence"] = 0.0

    lenient = Grader.from_checkpoint(rewritten(best, tmp_path / "lenient.ckpt", lenient))
    assert not lenient.grade(films[0]).referred
    inverted = lenient.grade(255 - read_image(films[0]), side="L")
    assert inverted.referred and "look like" in inverted.reason
    photograph = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    assert "colour" in lenient.grade(photograph, side="L").reason


def test_concat_has_no_gate_weights(tmp_path, films):
    train(compose("trainer.max_epochs=1", "gating=concat", "data.count=30", "test=false"), tmp_path)
    grader = Grader.from_checkpoint(tmp_path / "checkpoints/best.ckpt")
    assert grader.grade(films[0]).gate_weights == {}
    assert grader.weighed == ()


def test_building_a_grader_needs_no_network_connection_and_is_quick(best, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    start = time.process_time()  # whatever else the machine does
    Grader.from_checkpoint(best)
    assert time.process_time() - start < 5


@pytest.mark.slow
def test_a_grader_needs_neither_hydra_nor_lightning(best, films):
    program = (
        f"import sys; from legradnet import Grader; g = Grader.from_checkpoint({str(best)!r})\n"
        f"print(g.grade({str(films[0])!r}).grade)\n"
        "assert 'hydra' not in sys.modules and 'lightning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_mistakes_are_told_in_words(best, tmp_path, grader, films):
    with pytest.raises(UserError, match="No checkpoint"):
        Grader.from_checkpoint(tmp_path / "none.ckpt")
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, other)
    with pytest.raises(UserError, match="no LegRadNet checkpoint"):
        Grader.from_checkpoint(other)
    with pytest.raises(UserError, match="precision"):
        Grader.from_checkpoint(best, precision="fp8")
    with pytest.raises(UserError, match="device=nonsense"):
        Grader.from_checkpoint(best, device="nonsense")
    with pytest.raises(UserError, match="side="):
        grader.grade(films[0], side="X")
    with pytest.raises(ImageError, match="missing"):
        grader.grade(tmp_path / "missing.png")


def test_a_bad_film_in_a_stream_costs_only_itself(grader, films, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no film")
    shutil.copy(films[0], tmp_path / "good.png")
    requests = [Request(path) for path in (films[0], bad, films[1])]
    found = [grading for batch in grader.stream(requests) for grading in batch]
    assert [isinstance(grading, ImageError) for grading in found] == [False, True, False]


def test_a_stream_reads_only_a_few_batches_ahead(grader, films):
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield Request(films[0])

    for _, _ in zip(range(3), grader.stream(endless()), strict=False):
        pass
    assert len(asked) <= 5 * grader.batch_size


@pytest.mark.parametrize(("takes_all_cores", "workers", "ahead"), [(True, 2, 0), (True, 5, 3), (False, 2, 4)])
def test_a_network_that_takes_all_cores_takes_turns_with_who_reads(takes_all_cores, workers, ahead):
    network, read = SimpleNamespace(takes_all_cores=takes_all_cores), []
    batches = read_in_batches(range(20), read.append, workers=workers, batch_size=2, networks=[network])
    for number in range(1, 8):
        assert len(next(batches)) == 2
        for _ in range(100):
            if len(read) == 2 * number + ahead:
                break
            time.sleep(0.01)
        time.sleep(0.01)
        assert len(read) == 2 * number + ahead
    batches.close()


def test_the_side_comes_from_the_dicom_tag_unless_it_was_given(tmp_path, grader, films):
    gray = read_image(films[0])
    tagged = dicom(gray)
    tagged.ImageLaterality = "L"
    path = tmp_path / "film"
    path.write_bytes(dicom_bytes(tagged))
    as_left, as_right = (grader.grade(gray, side=side) for side in ("L", "R"))
    assert grader.grade(path).probabilities == pytest.approx(as_left.probabilities, abs=1e-6)
    against = grader.grade(path, side="R")
    assert against.probabilities == pytest.approx(as_right.probabilities, abs=1e-6)
    assert "DICOM tag says L" in against.reason
    path = path.rename(tmp_path / "film_R")
    assert "taken as L by its DICOM tag, though its name says R" in grader.grade(path).reason


def test_what_a_films_reader_remarks_is_told_and_what_it_doubts_is_referred(tmp_path, best, films):
    def lenient(content):
        content["legradnet"]["calibration"]["min_confidence"] = 0.0

    sure = Grader.from_checkpoint(rewritten(best, tmp_path / "lenient.ckpt", lenient), precision="f32")
    gray = read_image(films[0])
    two = dicom(np.concatenate([gray, gray]), Rows=len(gray), NumberOfFrames="2", WindowCenter="9999", WindowWidth="9")
    # what is shown is right, and what the file says is not
    doubted = dicom(255 - gray, PresentationLUTShape="INVERSE")
    for name, dataset in (("told", two), ("doubted", doubted)):
        (tmp_path / f"{name}_L").write_bytes(dicom_bytes(dataset))
    told, doubted = sure.grade([tmp_path / "told_L", tmp_path / "doubted_L"])
    assert (told.referred, told.look) == (False, "")
    assert told.reason == "the first of 2 frames; its window can't be used and was ignored"
    assert told.remarks == ("the first of 2 frames", "its window can't be used and was ignored")
    assert told.probabilities == pytest.approx(doubted.probabilities, abs=1e-6)
    assert doubted.referred
    assert doubted.reason == doubted.look
    assert "contradicts its photometric interpretation" in doubted.look
    prepared = sure.prepare(Request(tmp_path / "told_L"))
    assert prepared.remarks == list(told.remarks)
    assert sure.explain(tmp_path / "doubted_L").grading.reason == doubted.reason


def test_sets_of_several_networks_are_joined_by_majority():
    def joined(*sets):
        return join_sets([np.array([ends]) for ends in sets], 5).tolist()

    assert joined((0, 1), (1, 2), (1, 1)) == [[1, 1]]
    assert joined((0, 1), (1, 2)) == [[0, 2]]
    assert join_sets([np.array([(0, 1)]), None], 5) is None
