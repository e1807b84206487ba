"""Settings of `legradnet-crop`."""

from typing import Annotated, Literal

from pydantic import Field

from legradnet.data.settings import ListedFilms
from legradnet.settings import PathText, Settings


class CropSettings(Settings):
    """`conf/crop.yaml`."""

    input: PathText = Field(description="film, folder or CSV")
    output: PathText = Field(description="a folder that is new or empty")
    data: ListedFilms = ListedFilms()
    side: Literal["L", "R"] | None = Field(
        default=None, description="L or R for all films of one knee without a side of their own in the CSV"
    )
    image_size: Annotated[int, Field(ge=32, le=4096)] | None = Field(
        default=None, description="side of the squares in pixels; null = as large as they are on their films"
    )
