import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from legradnet.data.datamodule import KneeDataModule
from legradnet.data.sampler import EpochSampler
from legradnet.data.settings import DataSettings
from legradnet.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 4), st.integers(0, 9), st.booleans())
def test_processes_share_the_films_of_an_epoch_evenly_and_miss_none(count, world, epoch, shuffle):
    samplers = [EpochSampler(np.zeros(count, int), shuffle=shuffle, rank=rank, world=world) for rank in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    parts = [list(sampler) for sampler in samplers]
    assert {len(part) for part in parts} == {len(samplers[0])}
    assert set().union(*parts) == set(range(count))
    assert sum(map(len, parts)) - count < world


def test_the_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        sampler = EpochSampler(np.zeros(30, int), shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    torch.manual_seed(1)
    first = order(0, 4)
    torch.manual_seed(2)
    assert order(0, 4) == first
    assert order(0, 5) != first
    assert order(1, 4) != first


def test_balance_shows_all_grades_equally_often():
    labels = np.repeat([0, 1, 2], [1800, 150, 50])
    sampler = EpochSampler(labels, shuffle=True, balance=True)
    seen = np.bincount(labels[list(sampler)])
    assert seen.sum() == 2000
    assert (abs(seen - 2000 / 3) < 120).all()


def test_generated_knees_are_split_by_patient_and_batched_as_gray_bytes():
    data = KneeDataModule(DataSettings(count=60, image_size=48, batch_size=8))
    data.setup()
    assert data.table.groupby("patient")["split"].nunique().max() == 1
    batch = next(iter(data.train_dataloader()))
    assert batch.films.shape == (8, 1, 48, 48)
    assert batch.films.dtype == torch.uint8
    assert batch.labels.tolist() == data.table["label"].iloc[batch.rows.tolist()].tolist()
    assert sum(data.class_counts(split)[3] for split in ("train", "val", "test")) == (data.table["label"] == 3).sum()


@pytest.mark.parametrize("workers", [0, 2])
def test_films_are_the_same_however_many_workers_read_them(knees, workers):
    data = KneeDataModule(
        DataSettings(
            source="csv",
            dataset_path=str(knees),
            csv_path=str(knees / "knees.csv"),
            image_size=48,
            batch_size=5,
            num_workers=workers,
        )
    )
    data.setup()
    for batch in data.train_dataloader():
        for film, row in zip(batch.films, batch.rows.tolist(), strict=True):
            path = knees / data.table["filename"].iloc[row]
            assert np.array_equal(film[0].numpy(), np.asarray(Image.open(path)))


def test_left_knees_are_turned_to_look_like_right_ones(knees):
    films = {}
    for mirror_left in (False, True):
        data = KneeDataModule(
            DataSettings(
                source="csv",
                dataset_path=str(knees),
                csv_path=str(knees / "knees.csv"),
                image_size=48,
                mirror_left=mirror_left,
                num_workers=0,
            )
        )
        data.setup()
        films[mirror_left] = {int(b.rows[i]): b.films[i] for b in data.val_dataloader() for i in range(len(b.rows))}
    for row, film in films[False].items():
        left = data.table["side"].iloc[row] == "L"
        assert torch.equal(films[True][row], film.flip(-1) if left else film)


def test_mirroring_without_sides_is_an_error(knees, tmp_path):
    pd.read_csv(knees / "knees.csv").drop(columns="side").to_csv(tmp_path / "sideless.csv", index=False)
    data = KneeDataModule(
        DataSettings(source="csv", dataset_path=str(knees), csv_path=str(tmp_path / "sideless.csv"), mirror_left=True)
    )
    with pytest.raises(UserError, match="needs the side of every film, and 40 have none"):
        data.setup()


def test_films_left_out_are_listed(knees, tmp_path):
    table = pd.read_csv(knees / "knees.csv")
    table.loc[2, "filename"] = "gone.png"
    table.to_csv(tmp_path / "some.csv", index=False)
    data = KneeDataModule(
        DataSettings(source="csv", dataset_path=str(knees), csv_path=str(tmp_path / "some.csv"), on_bad_image="skip")
    )
    data.setup()
    assert data.skipped["filename"].tolist() == ["gone.png"]
    assert len(data.table) == 39
    assert data.table.index.tolist() == list(range(39))


def test_non_square_films_become_square_as_asked(tmp_path):
    for index in range(20):
        film = np.full((40, 80), 10 * index, np.uint8)
        Image.fromarray(film).save(tmp_path / f"{index}.png")
    rows = [f"{index}.png,{index % 5},p{index}" for index in range(20)]
    (tmp_path / "films.csv").write_text("\n".join(["filename,label,patient", *rows]))
    for fit, black_rows in {"pad": 32, "crop": 0, "stretch": 0}.items():
        data = KneeDataModule(
            DataSettings(
                source="csv",
                dataset_path=str(tmp_path),
                csv_path=str(tmp_path / "films.csv"),
                image_size=64,
                fit=fit,
                num_workers=0,
                val_fraction=0.3,
                test_fraction=0.3,
            )
        )
        data.setup()
        batch = next(iter(data.val_dataloader()))
        bright = batch.films[batch.films.amax(dim=(1, 2, 3)) > 0]
        assert ((bright == 0).all(dim=3).sum(dim=(1, 2)) == black_rows).all()


def test_settings_of_films_that_do_not_go_together_are_all_told():
    with pytest.raises(UserError) as told:
        KneeDataModule({"source": "csv", "fold": 3, "csv_path": "knees.csv"})
    assert str(told.value).splitlines()[1:] == [
        "  data=csv needs data.dataset_path",
        "  data.fold=3 needs data.num_folds",
    ]
    with pytest.raises(UserError, match="data=folder needs data.dataset_path"):
        KneeDataModule({"source": "folder"})
