"""The gate over a data set: what it listens to, and what it gains by it."""

import numpy as np
import pandas as pd
import pytest
import torch

from legradnet import Grader
from legradnet.data.inputs import list_films
from legradnet.explain.gate import ablation_table, gate_figure, gate_table, pass_gate
from legradnet.grading.grading import Request
from legradnet.statistics.metrics import grading_metrics
from legradnet.training.run import train
from small_runs import compose


def gated_by(grader, films, batch=8):
    """What comes to the gate for these films, and their gradings."""
    prepared = [(film, grader.prepare(Request(film.film, film.side))) for film in films]
    return pass_gate(grader, [prepared[i : i + batch] for i in range(0, len(prepared), batch)])


@pytest.fixture(scope="module")
def films(knees):
    return list_films(knees / "knees.csv")


@pytest.fixture(scope="module", params=["bf16", "f32"])
def seen(request, trained, films):
    return gated_by(Grader.from_checkpoint(trained / "checkpoints/best.ckpt", precision=request.param), films)


def qwk(grades, labels):
    return grading_metrics(np.eye(5)[grades], np.array(grades), np.array(labels))["qwk"]


def test_the_table_has_the_mean_weights_of_the_films_of_each_group(seen):
    gated, gradings = seen
    table = gate_table(gated)
    mean = table[table["head"] == "mean"].set_index(["group", "value"])
    weights = pd.DataFrame([grading.gate_weights for grading in gradings])
    groups = {
        "label": gated.labels.astype(str),
        "grade": gated.grades.astype(str),
        "right": np.where(gated.labels == gated.grades, "right", "wrong"),
    }
    assert mean.loc[("all", ""), ["swin", "vit"]].astype(float).tolist() == pytest.approx(weights.mean().tolist())
    for group, of_film in groups.items():
        for value in set(of_film):
            row = mean.loc[(group, value)]
            assert row["films"] == (of_film == value).sum()
            assert [row["swin"], row["vit"]] == pytest.approx(weights[of_film == value].mean().tolist())
    assert len(mean) == 1 + sum(len(set(of_film)) for of_film in groups.values())


def test_the_weights_of_the_heads_have_the_gates_weight_as_their_mean(seen):
    table = gate_table(seen[0])
    for _, rows in table.groupby(["group", "value"]):
        assert sorted(rows["head"]) == ["0", "1", "2", "3", "mean"]
        heads = rows[rows["head"] != "mean"]
        assert heads["vit"].mean() == pytest.approx(rows[rows["head"] == "mean"]["vit"].item())


def test_a_token_is_replaced_by_its_mean_over_the_films_and_the_change_of_qwk_is_told(seen):
    gated, gradings = seen
    table = ablation_table(gated, resamples=200, seed=0).set_index("backbone")
    network = gated.network
    for index, key in enumerate(("swin", "vit")):
        tokens = gated.tokens.clone()
        tokens[:, index] = gated.tokens[:, index].mean(dim=0)
        with torch.no_grad(), network.autocast():
            grades = network.loss.grades(
                network.loss.probabilities(network.ensemble.head(network.ensemble.gate(tokens)[0]))
            )
        before, after = qwk([grading.grade for grading in gradings], gated.labels), qwk(grades.tolist(), gated.labels)
        row = table.loc[key]
        assert row["qwk"] == pytest.approx(before)
        assert row["qwk_without"] == pytest.approx(after)
        assert row["change"] == pytest.approx(after - before)
        assert row["low"] <= row["change"] <= row["high"]
        assert row["grades_changed"] == pytest.approx((grades.numpy() != gated.grades).mean())


def test_a_backbone_that_says_the_same_of_every_film_has_weight_but_no_worth(trained, films):
    grader = Grader.from_checkpoint(trained / "checkpoints/best.ckpt", precision="f32")
    norm = grader.networks[0].ensemble.backbones["vit"].projection[-1]
    norm.weight.zero_()
    norm.bias.copy_(30 * torch.randn(norm.bias.shape, generator=torch.Generator().manual_seed(0)))
    gated, _ = gated_by(grader, films)
    worth = ablation_table(gated, resamples=50, seed=0).set_index("backbone")
    assert gate_table(gated)["vit"].min() > 0
    assert worth.loc["vit", ["change", "low", "high", "grades_changed"]].tolist() == [0, 0, 0, 0]


def test_a_film_that_is_seen_both_ways_counts_once(knees, tmp_path):
    config = compose("data=csv", f"data.dataset_path={knees}", f"data.csv_path={knees}/knees.csv",
                     "data.mirror_left=true", "trainer.fast_dev_run=true", "augment.mirror=0")  # fmt: skip
    config["trainer"]["fast_dev_run"] = False
    config["trainer"]["max_epochs"] = 1
    train(config, tmp_path / "run")
    films = [type(film)(film.filename, film.film, film.label) for film in list_films(knees / "knees.csv")[:6]]
    copies = []
    for i, film in enumerate(films):
        copies.append(type(film)(f"{i}.png", tmp_path / f"{i}.png", film.label))  # no side, not even in the name
        copies[-1].film.write_bytes(film.film.read_bytes())
    grader = Grader.from_checkpoint(tmp_path / "run/checkpoints/best.ckpt", precision="f32")
    gated, gradings = gated_by(grader, copies, batch=4)
    assert len(gated.tokens) == 12
    table = gate_table(gated)
    assert table["films"].max() == 6
    weights = np.mean([grading.gate_weights["vit"] for grading in gradings])
    assert table["vit"].iat[0] == pytest.approx(weights, abs=1e-6)
    assert gated.grades.tolist() == [grading.grade for grading in gradings]


def test_concat_has_no_weights_but_its_backbones_have_worth(knees, films, tmp_path):
    config = compose("data=csv", f"data.dataset_path={knees}", f"data.csv_path={knees}/knees.csv", "gating=concat",
                     "trainer.max_epochs=1")  # fmt: skip
    train(config, tmp_path)
    gated, _ = gated_by(Grader.from_checkpoint(tmp_path / "checkpoints/best.ckpt", precision="f32"), films)
    table = ablation_table(gated, resamples=20, seed=0)
    assert gate_table(gated) is None
    assert list(table["backbone"]) == ["swin", "vit"]
    assert table["qwk_without"].notna().all()
    assert len(gate_figure(None, table, 5).axes) == 1


def test_films_without_true_grades_are_told_by_how_many_grades_change(seen):
    gated, _ = seen
    films = [type(film)(film.filename, film.film) for film in gated.films]
    unlabelled = type(gated)(gated.network, films, gated.grades, gated.tokens, gated.film)
    table = ablation_table(unlabelled, resamples=20, seed=0)
    assert list(table) == ["backbone", "grades_changed"]
    weights = gate_table(unlabelled)
    assert set(weights["group"]) == {"all", "grade"}
    assert len(gate_figure(weights, table, 5).axes) >= 3
