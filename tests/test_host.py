"""A process that imports, builds, grades or trains with LegRadNet is its owner's, and stays as it was."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from host import changes, state_of_the_process
from legradnet.training.run import train
from small_runs import compose

# All modules are imported; then every part of the public face is used, first the names that need a trained network.
PROGRAM = """
import ctypes, importlib, pkgutil, sys
import host
for library in host.LIBRARIES:
    importlib.import_module(library)
ctypes.CDLL = host.Watched
before = host.state_of_the_process()
import legradnet
modules = [module.name for module in pkgutil.walk_packages(legradnet.__path__, "legradnet.")]
for name in modules:
    importlib.import_module(name)
assert len(modules) > 80 and not host.changes(before), ("imported", host.changes(before))
checkpoint, film, *exports = sys.argv[1:]
grader = legradnet.Grader.from_checkpoint(checkpoint)
grader.grade(film)
grader.explain(film, method="occlusion")
grader.explain(film, method="integrated_gradients")
assert not host.changes(before), ("graded", host.changes(before))
for export in exports:
    legradnet.Grader.from_export(export).grade(film)
    assert not host.changes(before), ("an export", host.changes(before))
assert not host.Watched.asked
"""


@pytest.mark.slow
def test_importing_building_grading_and_explaining_change_nothing_in_the_process(trained, knees):
    film = str(next(knees.glob("*.png")))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, trained / "checkpoints/best.ckpt", film],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def somebody_elses_handler():
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


def test_training_from_python_puts_back_all_that_it_sets(tmp_path, somebody_elses_handler):
    with warnings.catch_warnings():
        warnings.simplefilter("error", PendingDeprecationWarning)  # a filter of the host's own
        before = state_of_the_process()
        train(compose("trainer.max_epochs=1"), tmp_path)
        assert not changes(before)


def test_a_run_that_is_stopped_puts_back_all_that_it_sets(tmp_path, somebody_elses_handler):
    from lightning.pytorch import Callback

    class Stopped(Callback):
        def on_train_batch_end(self, *_):
            raise KeyboardInterrupt

    before = state_of_the_process()
    with pytest.raises(SystemExit):
        train(compose("trainer.max_epochs=1"), tmp_path, callbacks=[Stopped()])
    assert not changes(before)
