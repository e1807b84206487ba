"""One undisturbed run for all tests of training, which may not change it."""

import pytest

from legradnet.training.run import train
from small_runs import compose, made_once


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of four epochs that nothing disturbed."""

    def run(folder):
        qwk = train(compose("trainer.max_epochs=4"), folder)
        folder.with_suffix(".qwk").write_text(repr(qwk))

    folder = made_once(tmp_path_factory, "finished", run)
    return folder, float(folder.with_suffix(".qwk").read_text())
