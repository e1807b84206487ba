import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from legradnet.errors import UserError
from legradnet.network.ensemble import NetworkSettings
from legradnet.network.losses import (
    Corn,
    CornSettings,
    CrossEntropy,
    CrossEntropySettings,
    Cumulative,
    CumulativeSettings,
    SoftLabels,
    SoftLabelsSettings,
)
from legradnet.settings import checked

LOSSES = [CrossEntropy, SoftLabels, Corn, Cumulative]
SETTINGS = [CrossEntropySettings, SoftLabelsSettings, CornSettings, CumulativeSettings]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(LOSSES), st.integers(2, 9), st.integers(0, 2**31))
def test_probabilities_sum_to_one_and_grades_are_classes_for_any_number_of_classes(kind, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    loss = kind(classes)
    logits = torch.randn(7, loss.num_outputs, generator=generator) * 4
    probabilities = loss.probabilities(logits)
    assert probabilities.shape == (7, classes)
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(7))
    grades = loss.grades(probabilities)
    assert grades.shape == (7,)
    assert ((grades >= 0) & (grades < classes)).all()
    assert torch.isfinite(loss(logits, torch.randint(0, classes, (7,), generator=generator)))


@pytest.mark.parametrize("kind", LOSSES)
def test_training_on_the_loss_recovers_the_grades(kind):
    loss = kind(5)
    labels = torch.arange(5)
    logits = torch.zeros(5, loss.num_outputs, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        loss(logits, labels).backward()
        optimizer.step()
    assert loss.grades(loss.probabilities(logits.detach())).tolist() == [0, 1, 2, 3, 4]


def test_corn_is_the_mean_over_the_tasks_that_each_grade_takes_part_in():
    logits = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.4]])
    labels = torch.tensor([1, 3])  # K = 4; grade 1: tasks 0, 1; grade 3: tasks 0, 1, 2
    terms = [
        -F.logsigmoid(torch.tensor(0.3)),  # film 0 is above 0
        -F.logsigmoid(torch.tensor(1.0)),  # and not above 1
        *(-F.logsigmoid(torch.tensor(x)) for x in (1.5, 0.2, -0.4)),
    ]
    torch.testing.assert_close(Corn(4)(logits, labels), torch.stack(terms).mean())


def test_corn_grades_by_the_thresholds_that_are_likelier_passed_than_not():
    loss = Corn(5)
    conditional = torch.tensor([[0.9, 0.9, 0.5, 0.9]])  # P(>0) .9, P(>1) .81, P(>2) .405
    assert loss.grades(loss.probabilities(conditional.logit())).item() == 2


def test_soft_labels_cost_a_far_miss_more_than_a_near_one():
    loss = SoftLabels(5, sigma=0.7)
    near, far = F.one_hot(torch.tensor([[2], [4]]), 5).float().squeeze(1) * 5
    label = torch.tensor([1])
    assert loss(near[None], label) < loss(far[None], label)
    plain = CrossEntropy(5)
    torch.testing.assert_close(plain(near[None], label), plain(far[None], label))


def test_narrow_soft_labels_are_cross_entropy():
    logits, labels = torch.randn(6, 5), torch.randint(0, 5, (6,))
    torch.testing.assert_close(SoftLabels(5, sigma=0.05)(logits, labels), CrossEntropy(5)(logits, labels))


@pytest.mark.parametrize("shape", ["gaussian", "beta", "poisson"])
@pytest.mark.parametrize("classes", [2, 5, 9])
def test_soft_targets_of_every_shape_are_unimodal_about_the_true_grade(shape, classes):
    for sigma in (0.05, 0.5, 0.9):
        targets = SoftLabels(classes, sigma=sigma, shape=shape).targets
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(classes))
        for grade, target in enumerate(targets):
            assert target.argmax() == grade
            assert (target[: grade + 1].diff() >= 0).all()
            assert (target[grade:].diff() <= 0).all()


def test_a_beta_target_has_the_width_asked_for_and_a_poisson_one_is_wider_for_higher_grades():
    grades = torch.arange(9.0)
    targets = SoftLabels(9, sigma=1.2, shape="beta").targets
    deviation = ((targets @ grades.square()) - (targets @ grades).square()).sqrt()
    torch.testing.assert_close(deviation[4], torch.tensor(1.2), atol=0.1, rtol=0)  # grades are steps of width 1
    poisson = SoftLabels(9, shape="poisson").targets
    assert poisson[1].max() > poisson[4].max()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**31), st.floats(0.1, 30))
def test_cumulative_loss_is_minus_the_log_of_its_probability(classes, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, classes - 1, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(0, classes, (7,), generator=generator)
    loss = Cumulative(classes)
    likelihoods = loss.probabilities(logits).gather(1, labels[:, None])
    assume(likelihoods.min() > 1e-9)
    torch.testing.assert_close(loss(logits, labels).double(), -likelihoods.log().mean(), rtol=1e-4, atol=1e-4)


def test_a_cumulative_loss_still_pulls_where_the_network_is_sure_of_what_is_wrong():
    logits = torch.tensor([[200.0, 0.0, 0.0, 0.0]], requires_grad=True)
    Cumulative(5)(logits, torch.tensor([0])).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0] > 0.9


@pytest.mark.parametrize("kind", SETTINGS)
def test_balanced_weights_make_every_grade_count_the_same(kind):
    loss = kind(class_weights="balanced").build(2, class_counts=[90, 10])
    assert loss.class_weights.tolist() == pytest.approx([100 / 180, 100 / 20])
    labels = torch.tensor([0] * 90 + [1] * 10)
    logits = torch.zeros(100, loss.num_outputs)
    logits.requires_grad_()
    loss(logits, labels).backward()
    assert logits.grad.sum().abs() < 1e-6  # 90 light pulls one way balance 10 heavy ones the other


def test_a_class_without_films_gets_no_weight_and_no_infinity():
    loss = CrossEntropySettings(class_weights="balanced").build(3, class_counts=[5, 0, 5])
    assert loss.class_weights[1] == 0
    assert math.isfinite(loss(torch.zeros(2, 3), torch.tensor([0, 2])))


def test_label_smoothing_is_torchs():
    logits, labels = torch.randn(6, 5), torch.randint(0, 5, (6,))
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(CrossEntropy(5, label_smoothing=0.1)(logits, labels), expected)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ({"name": "mse"}, "loss.name=mse must be one of cross_entropy, corn, cumulative, soft_labels"),
        ({"name": "corn", "class_weights": "some"}, "loss.class_weights=some must be one of none, balanced"),
        ({"name": "corn", "sigma": 1.0}, "loss.sigma is unknown; there are name, class_weights"),
        ({"name": "soft_labels", "sigma": 0.0}, "loss.sigma=0.0 must be a number of at least 0.001"),
        ({"name": "cross_entropy", "label_smoothing": 1.0}, "loss.label_smoothing=1.0 must be a number from 0 to 0.99"),
    ],
)
def test_a_wrong_loss_is_told(loss, words):
    with pytest.raises(UserError, match=words):
        checked(NetworkSettings, {"backbone": {"vit": {"timm_name": "tiny_vit"}}, "loss": loss})


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_loss_is_built_with_its_own_settings(kind):
    own = (
        {"label_smoothing": 0.2}
        if kind is CrossEntropySettings
        else {"sigma": 0.9}
        if kind is SoftLabelsSettings
        else {}
    )
    loss = kind(**own).build(4)
    logits, labels = torch.randn(6, loss.num_outputs), torch.randint(0, 4, (6,))
    assert (loss(logits, labels) == kind().build(4)(logits, labels)) == (not own)
