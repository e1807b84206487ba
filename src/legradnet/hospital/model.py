"""Which model graded, as reports say it, and the UIDs that follow from it and from a film."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from legradnet.grading.grader import Grader
from legradnet.grading.networks import GradingNetwork
from legradnet.models.named import is_name, name_of

NAME = "LegRadNet"
RESEARCH = "Research use only, not a medical device"
_OBJECTS = "1"  # what objects say of a film and how: with another, the same film and model have other UIDs


@dataclass(frozen=True)
class Model:
    """Which model grades.

    Attributes:
        names: What a user calls its networks.
        digests: By which they are known, hex digits.
        trained_by: The versions of LegRadNet that trained them, "" where they do not say.
        classes: Grades K.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    trained_by: tuple[str, ...]
    classes: int

    @cached_property
    def in_words(self) -> list[str]:
        """A line for each network."""
        return [
            f"{name}, digest {digest}{f', trained by {NAME} {trained}' if trained else ''}"
            for name, digest, trained in zip(self.names, self.digests, self.trained_by, strict=True)
        ]

    def uid(self, kind: str, film: str, *more: str) -> str:
        """The UID of what of this `kind` is made of the film with this UID: always the same (PS3.5 B.2)."""
        parts = (NAME, _OBJECTS, kind, film, *sorted(self.digests), *more)
        digest = bytearray(hashlib.sha256("\n".join(parts).encode()).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80  # a UUID of version 8, made as its maker likes (RFC 9562)
        digest[8] = digest[8] & 0x3F | 0x80
        return f"2.25.{int.from_bytes(digest, 'big')}"


def model_of(grader: Grader) -> Model:
    """The model of a grader."""
    networks: Sequence[GradingNetwork] = grader.networks
    return Model(
        names=tuple(_name(network.path) for network in networks),
        digests=tuple(network.digest or _digest_of_files(network.path) for network in networks),
        trained_by=tuple(str(network.learned.versions.get("legradnet") or "") for network in networks),
        classes=grader.classes,
    )


def own_version() -> str:
    """The version of this package."""
    try:
        return version("legradnet")
    except PackageNotFoundError:
        return "unknown"


def _name(path: Path) -> str:
    name = name_of(path)
    return plain_text(name if is_name(name) else path.name)  # where it lies is nobody's business


def _digest_of_files(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode(errors="surrogateescape") + b"\0" + file.read_bytes())
    return digest.hexdigest()


def plain_text(text: str) -> str:
    """A text that reads the same whatever character set a film has: ASCII, on one line."""
    return " ".join(text.encode("ascii", "replace").decode().split())
