"""Settings of `legradnet-node`."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from legradnet.grading.settings import ONE_MODEL, AskedDevice, AskedFilm, AskedPrecision
from legradnet.models.named import SHIPPED, CheckpointText
from legradnet.settings import PathText, Settings

_TITLE = r"[^\\@\x00-\x1f\x7f-\U0010ffff]{1,16}"  # PS3.5 6.2, and no @, which is before the host here
_ADDRESS = re.compile(rf"(?P<title>{_TITLE})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@\s]+):(?P<port>\d{{1,5}})")


def _title(title: str) -> str:
    if not re.fullmatch(_TITLE, title) or title != title.strip():
        raise ValueError("must be an AE title: 1 to 16 letters, digits or signs of ASCII, without \\ and @")
    return title


def _address(address: str) -> str:
    found = _ADDRESS.fullmatch(address)
    if not found or found["title"] != found["title"].strip() or not 0 < int(found["port"]) < 65_536:
        raise ValueError("must be AET@HOST:PORT, as ORTHANC@127.0.0.1:4242")
    return address


Title = Annotated[str, AfterValidator(_title)]


def receiver(address: str) -> tuple[str, str, int]:
    """AE title, host and port of a checked `send_to`."""
    found = _ADDRESS.fullmatch(address)
    assert found is not None
    return found["title"], found["host"].strip("[]"), int(found["port"])


class NodeSettings(Settings):
    """`conf/node.yaml`."""

    checkpoint: CheckpointText | list[CheckpointText] = Field(default=SHIPPED, description=f"{ONE_MODEL}; or a list")
    output: PathText = Field(
        description="folder of the queue: films that wait, objects to be sent, what became of each"
    )
    show: Literal["status"] | None = Field(
        default=None, description="status = tell what the node of `output` does, and end"
    )
    aet: Title = Field(default="LEGRADNET", description="the node's own AE title")
    host: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 = all of this machine"
    )
    port: int = Field(default=11_112, ge=0, le=65_535, description="0 = one that is free")
    send_to: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None, description="where reports and pictures go, AET@HOST:PORT; needed but for `show`"
    )
    callers: Annotated[list[Title], Field(min_length=1)] | None = Field(
        default=None, description="AE titles that may send films; null = that of `send_to`"
    )
    pdf: bool = Field(default=False, description="also a page, as an encapsulated PDF")
    film: AskedFilm = "auto"
    device: AskedDevice = "auto"
    precision: AskedPrecision = "auto"
    cert: PathText | None = Field(default=None, description="certificate for TLS, PEM; null = no TLS")
    key: PathText | None = Field(default=None, description="its private key, PEM; null = it is in `cert`")
    ca: PathText | None = Field(
        default=None, description="certificates, PEM, by one of which callers and the receiver have to be signed"
    )
    send_tls: bool = Field(default=False, description="send by TLS")
    max_associations: int = Field(default=10, ge=1, le=100, description="at once")
    max_object_mb: int = Field(default=100, ge=1, le=2000, description="size of an object; larger ones are cut off")
    max_pdu_kb: int = Field(default=64, ge=4, le=1024, description="size of a PDU; larger ones are cut off")
    max_waiting: int = Field(
        default=10_000, ge=1, description="films in the queue, graded or not; more are refused as out of resources"
    )
    timeout: float = Field(default=30.0, ge=0.1, le=600, description="seconds for a connection that says nothing")
    first_pause: float = Field(
        default=5.0, ge=0.01, le=3600, description="seconds before what was not taken is sent again; doubled each time"
    )
    longest_pause: float = Field(default=300.0, ge=0.01, le=86_400, description="seconds, at most")
