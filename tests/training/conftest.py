"""One undisturbed run for all tests of training, which may not change it."""

import pytest

from legradnet.training.run import train
from small_runs import compose


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of four epochs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(compose("trainer.max_epochs=4"), folder)
