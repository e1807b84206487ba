"""`legradnet-view`: look at graded films on a page, check them, and mark grades."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _view(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.viewer.run import view  # late: --help and --cfg must not wait for it

    view(config, run_folder)


def _keys() -> Iterable["Key"]:
    from legradnet.settings import keys
    from legradnet.viewer.settings import ViewSettings  # late too

    return keys(ViewSettings)


def main() -> None:
    """Entry point of the console script."""
    run("view", _view, _keys)
