"""Settings of `legradnet-predict`, and what other commands that grade films share with it."""

from typing import Annotated, Literal

from pydantic import Field

from legradnet.data.settings import ListedFilms
from legradnet.grading.shards import AUTO
from legradnet.grading.whole_films import FilmKind
from legradnet.models.named import SHIPPED, CheckpointText
from legradnet.settings import PathText, Settings

Precision = Literal["auto", "f32", "bf16"]

ONE_MODEL = f"{SHIPPED} = the shipped model, or a checkpoint, an export, a model folder"
AskedDevice = Annotated[str, Field(description="cpu, cuda, cuda:1, mps; auto = the best there is")]
AskedPrecision = Annotated[Precision, Field(description="f32, bf16; auto = bf16 where it is native")]
AskedInput = Annotated[PathText, Field(description="film, folder, or CSV or Parquet table of films")]
BatchSize = Annotated[Annotated[int, Field(ge=1)] | None, Field(description="films a batch; null = that of training")]
OneSide = Annotated[
    Literal["L", "R"] | None, Field(description="L or R for all films without a side of their own in the CSV")
]
AskedFilm = Annotated[
    FilmKind,
    Field(description="crop: each film is a knee cut close; whole: knees are looked for in each; auto = as it looks"),
]


class PredictSettings(Settings):
    """`conf/predict.yaml`."""

    checkpoint: CheckpointText | list[CheckpointText] = Field(
        default=SHIPPED,
        description=f"{ONE_MODEL}; or a list, whose probabilities are averaged",
    )
    input: PathText | None = Field(default=None, description="film, folder, or CSV or Parquet table of films")
    data: ListedFilms = ListedFilms()
    side: OneSide = None
    film: AskedFilm = "auto"
    shard: str = Field(
        default=AUTO,
        description="`I/N` (I = 0 ... N-1): grade this part of the films, into a folder of its own in `hydra.run.dir`; "
        "auto = that of a SLURM array's task, all films outside of one; all = all films",
    )
    merge: PathText | None = Field(
        default=None, description="in place of `input`: the folder of all shards, to put their predictions together"
    )
    dicom: PathText | None = Field(
        default=None,
        description="folder for a structured report and a picture of each DICOM film that is graded, in its study",
    )
    pdf: bool = Field(default=False, description="with `dicom`: also a page, as an encapsulated PDF")
    format: Literal["csv", "fhir"] = Field(
        default="csv", description="fhir = beside the tables a FHIR Observation a knee, in `fhir/`"
    )
    resume: bool = Field(default=False, description="go on with the predictions in `hydra.run.dir`")
    device: AskedDevice = "auto"
    precision: AskedPrecision = "auto"
    batch_size: BatchSize = None
    num_workers: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="reading threads; null = one a core, at most 8"
    )
