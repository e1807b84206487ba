"""What a checkpoint, and an export of it, say of the network and of its training: `hyper_parameters`."""

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from legradnet.data.settings import FilmSettings
from legradnet.grading.metadata import Count
from legradnet.network.ensemble import NetworkSettings
from legradnet.settings import Seed, Settings


class RunSettings(Settings):
    """What a run that goes on has to repeat; the rest of it is for training to check."""

    model_config = ConfigDict(extra="allow")

    batch_size: int = Field(default=16, ge=1, le=10**6)


class HyperParameters(NetworkSettings):
    """The network as it was built, and how it was trained; what only training uses is shown, and not checked here."""

    optimizer: dict[str, Any] = Field(default_factory=dict)
    scheduler: dict[str, Any] = Field(default_factory=dict)
    augment: dict[str, Any] | None = None
    films: FilmSettings | None = None
    run: RunSettings | None = None
    class_counts: list[Count] | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _counts_every_class(self) -> "HyperParameters":
        if self.class_counts is not None and len(self.class_counts) != self.model.num_classes:
            raise ValueError(f"there are {len(self.class_counts)} class_counts for {self.model.num_classes} classes")
        return self
