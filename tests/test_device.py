"""A device that is not there is told in our words, not in those of torch and Lightning."""

import pytest
import torch

from legradnet.device import check_trainer_devices, choose_device, devices
from legradnet.errors import UserError


@pytest.fixture
def cards(monkeypatch, request):
    """A machine with so many GPUs, as torch tells of them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("cards", [0, 2], indirect=True)
@pytest.mark.parametrize("name", ["cuda:3", "cuda:", "mps", "tpu", "meta", "CPU", "", None])
def test_a_device_that_is_not_there_is_told_with_those_that_are(cards, name):
    with pytest.raises(
        UserError, match=rf"device={name}: there is no such device here; choose one of auto, cpu"
    ) as told:
        choose_device(name)
    assert all(device in str(told.value) for device in devices())


@pytest.mark.parametrize("cards", [0], indirect=True)
def test_auto_is_the_cpu_where_there_is_nothing_else(cards):
    assert choose_device().type == choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("cards", "accelerator", "wanted", "words"),
    [
        (0, "gpu", 1, "trainer.accelerator=gpu: there is no such device, here is cpu. trainer=cpu needs none."),
        (0, "mps", 1, "trainer.accelerator=mps: there is no such device, here is cpu."),
        (0, "tpu", 1, "trainer.accelerator=tpu must be one of auto, gpu, cuda, mps, cpu."),
        (0, "auto", 7, "trainer.devices=7: there are no such devices, here is cpu. trainer.accelerator=cpu trains in"),
        (0, "cpu", -1, "trainer.devices=-1 must be a number of processes, or auto."),
        (0, "cpu", [0, 3], r"trainer.devices=[0, 3]: there are no such devices, here is cpu."),
        (0, "cpu", "some", "trainer.devices=some must be a number of processes, or auto."),
        (2, "auto", 7, "trainer.devices=7: there are no such devices, here are cpu, cuda:0, cuda:1."),
        (2, "gpu", "0,3", "trainer.devices=0,3: there are no such devices, here are cpu, cuda:0, cuda:1."),
        (2, "gpu", [-3], "trainer.devices=[-3]: there are no such devices, here are cpu, cuda:0, cuda:1."),
        (2, "gpu", 0, "trainer.devices=0 must be a number, a list of their numbers, -1 for all, or auto."),
        (2, "gpu", "", "trainer.devices= must be a number"),
    ],
    indirect=["cards"],
)
def test_training_on_devices_that_are_not_there_is_told(cards, accelerator, wanted, words):
    with pytest.raises(UserError) as told:
        check_trainer_devices(accelerator, wanted)
    assert str(told.value).startswith(words)


@pytest.mark.parametrize(
    ("cards", "accelerator", "wanted"),
    [
        *((0, "auto", 1), (0, "auto", "auto"), (0, "cpu", 7), (0, "cpu", "2")),
        *((2, "auto", 2), (2, "gpu", -1), (2, "cuda", [1]), (2, "gpu", "0,1"), (2, "gpu", "1,"), (2, "cpu", 3)),
    ],
    indirect=["cards"],
)
def test_devices_that_are_there_are_taken(cards, accelerator, wanted):
    check_trainer_devices(accelerator, wanted)
