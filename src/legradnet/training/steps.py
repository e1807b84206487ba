"""What every step of training is: drawn from its place in the run, its loss looked at, its rate on a curve."""

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from legradnet.errors import UserError
from legradnet.training.optimizer import LearningRateCurve, SchedulerSettings


def seed_step(module: LightningModule, seed: int, batch_idx: int) -> None:
    """One stream of random numbers a batch: a run that was killed and resumed draws what it would have drawn."""
    place = np.random.SeedSequence([seed, module.current_epoch, batch_idx, module.global_rank])
    # torch.manual_seed takes a millisecond to note the seed for each kind of device that isn't there
    put = torch.default_generator.manual_seed if module.device.type == "cpu" else torch.manual_seed
    put(int(place.generate_state(1)[0]))


def log_loss(module: LightningModule, loss: Tensor, batch_idx: int, size: int) -> None:
    """Log `train/loss` of a batch of `size` films.

    Raises:
        UserError: It is not finite.
    """
    if not torch.isfinite(loss):
        raise UserError(
            f"The loss became {loss.item()} in epoch {module.current_epoch}, batch {batch_idx}: "
            "lower optimizer.learning_rate, or try trainer.precision=32-true."
        )
    module.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True)


def stepped_each_batch(
    optimizer: torch.optim.Optimizer, scheduler: SchedulerSettings, trainer: Trainer
) -> OptimizerLRSchedulerConfig:
    """An optimiser and the curve that its learning rate follows through the run of `trainer`."""
    epochs, total = max(1, trainer.max_epochs or 1), int(trainer.estimated_stepping_batches)
    curve = torch.optim.lr_scheduler.LambdaLR(optimizer, LearningRateCurve(scheduler, total_steps=total, epochs=epochs))
    return OptimizerLRSchedulerConfig(optimizer=optimizer, lr_scheduler={"scheduler": curve, "interval": "step"})
