"""Settings of films: where they are, how they are read, split, batched and changed."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from legradnet.data.film import Fit
from legradnet.settings import PathText, Seed, Settings, Share, VerbatimText

CacheKey = Literal["stat", "hash"]
OnBadImage = Literal["error", "skip"]
Verify = Literal["decode", "header"]

Pixels = Annotated[int, Field(ge=32, le=4096)]
GradedPixels = Annotated[int, Field(ge=16, le=4096)]  # what trained networks and exports have always been let say
Classes = Annotated[int, Field(ge=2, le=1000)]


class FilmSettings(Settings):
    """How a film becomes what a network sees; a checkpoint keeps it for whoever grades new films."""

    image_size: GradedPixels = 224
    fit: Fit = "pad"
    mirror_left: bool = False


class DataSettings(Settings):
    """Config group `data`."""

    source: Literal["csv", "folder", "synthetic"] = Field(
        default="synthetic", description="set by `data=synthetic`, `data=csv`, `data=folder`"
    )
    dataset_path: PathText | None = Field(
        default=None, description="folder that file names are relative to; nothing outside it is opened"
    )
    csv_path: PathText | None = Field(
        default=None,
        description="the CSV or Parquet file (data=csv): `filename,label` and perhaps `patient,side,split`",
    )
    count: int = Field(default=600, ge=10, description="films to generate (data=synthetic)")
    image_size: Pixels = Field(default=224, description="side of a film in pixels as it reaches the network")
    fit: Fit = Field(default="pad", description="how a film becomes square: pad (keeps the aspect), crop, stretch")
    batch_size: int = Field(default=16, ge=1, description="films a batch")
    num_workers: Annotated[int, Field(ge=0, le=256)] | None = Field(
        default=None,
        description="reading processes; null = none for generated or cached films, else half the cores, at most 4",
    )
    val_fraction: Share = Field(default=0.15, description="share of patients for validation where no split is given")
    test_fraction: Share = Field(default=0.15, description="share of patients for the test; 0 = no test")
    fold: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="validate on fold k of data.num_folds; test films stay test films"
    )
    num_folds: Annotated[int, Field(ge=2)] | None = Field(default=None, description="number of folds")
    patient_regex: VerbatimText | None = Field(
        default=None,
        description="finds `patient` and perhaps `side` in file names without such columns; "
        r"data=folder: `^(?P<patient>\d+)(?P<side>[LRlr])?`",
    )
    mirror_left: bool = Field(default=False, description="turn left knees to look like right ones")
    balance: bool = Field(default=False, description="sampler that shows all grades equally often")
    on_bad_image: OnBadImage = Field(default="error", description="error, or skip (listed in skipped.csv)")
    verify: Verify = Field(
        default="decode", description="decode every film beforehand and compare pixels, or only its header"
    )
    cache: Literal["auto", "off"] = Field(
        default="auto",
        description="auto = films are decoded once and kept as squares for later epochs and runs, or off",
    )
    cache_dir: PathText | None = Field(
        default=None,
        description="folder for that; null = `.legradnet-cache` in `data.dataset_path`, readable by you only",
    )
    cache_key: CacheKey = Field(
        default="stat", description="a film has changed when its size or times have (stat), or its content (hash)"
    )
    feature_views: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description="if every backbone is frozen: augmented views of each training film whose features are computed "
        "once; 0 = films pass through the backbones each epoch; null = 1 where films are not augmented, else 0",
    )
    seed: Seed = Field(default=0, description="seed of split, order, generated knees; that of the run unless set")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        """Raise ValueError with all that is missing or contradicts itself."""
        mistakes = []
        needed = {"csv": ("dataset_path", "csv_path"), "folder": ("dataset_path",)}.get(self.source, ())
        if missing := [f"data.{name}" for name in needed if getattr(self, name) is None]:
            mistakes.append(f"data={self.source} needs {' and '.join(missing)}")
        if self.fold is not None and self.num_folds is None:
            mistakes.append(f"data.fold={self.fold} needs data.num_folds")
        if self.fold is not None and self.num_folds is not None and self.fold >= self.num_folds:
            span = f"from 0 to {self.num_folds - 1} with data.num_folds={self.num_folds}"
            mistakes.append(f"data.fold={self.fold} must be {span}")
        if mistakes:
            raise ValueError("\n  ".join(mistakes))
        return self

    @property
    def films(self) -> FilmSettings:
        """How the network sees these films."""
        return FilmSettings(image_size=self.image_size, fit=self.fit, mirror_left=self.mirror_left)


class ListedFilms(Settings):
    """Config group `data` of commands that take `input`."""

    dataset_path: PathText | None = Field(
        default=None, description="folder that a CSV's names are relative to; null = the CSV's own"
    )


class SynthesizeSettings(Settings):
    """`conf/synthesize.yaml`."""

    output: PathText = Field(description="a folder that is new or empty")
    count: int = Field(default=50, ge=1, description="films to generate")
    image_size: Pixels = Field(default=224, description="side of a film in pixels")
    num_classes: Classes = Field(default=5, description="grades; 5 = Kellgren-Lawrence")
    seed: Seed = Field(default=0, description="the same seed gives the same films")
