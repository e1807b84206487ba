"""Runs that end in the middle of an epoch, as if their process were killed."""

from legradnet.training.module import GradingModule


class Killed(BaseException):
    """Stands for kill -9: nothing in the run may catch it. Real kills are among the slow tests."""


def kill_at(monkeypatch, epoch, batch):
    step = GradingModule.training_step

    def dying(self, films, batch_idx):
        if (self.current_epoch, batch_idx) == (epoch, batch):
            raise Killed
        return step(self, films, batch_idx)

    monkeypatch.setattr(GradingModule, "training_step", dying)
