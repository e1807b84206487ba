"""Files written whole or not at all, and what is said of one that is not what it should be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from yaml import YAMLError  # type: ignore[import-untyped] # comes with OmegaConf

from legradnet.errors import UserError

NOT_YAML = (YAMLError, UnicodeError, RecursionError)


@contextmanager
def written_whole(target: Path) -> Iterator[BinaryIO]:
    """Open a file beside `target` that takes its place, safe on disk, only when all went well; folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")  # one writer a run folder, so a kill leaves at most one
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with written_whole(path) as file:
        file.write(text.encode())


def not_yaml(path: Path, error: Exception) -> UserError:
    """What is wrong with a file that is no YAML, without quoting it: it need not be the file that it was taken for."""
    mark = getattr(error, "problem_mark", None)
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    words = getattr(error, "problem", None) or "it is nested too deep"
    words = "it is no UTF-8 text" if isinstance(error, UnicodeError) else words
    return UserError(f"{path} can't be read as YAML{place}: {words}.")
