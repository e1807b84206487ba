"""`legradnet-view`: a page on which films are looked at, checked and marked."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legradnet.claims import claim_for_run, claimed
from legradnet.data.inputs import InputFilm
from legradnet.errors import UserError, how_to_install
from legradnet.files import GrowingFile, write_text
from legradnet.grading.grader import Grader
from legradnet.grading.journal import json_lines
from legradnet.grading.predictions import Record
from legradnet.models.named import SHIPPED, is_name
from legradnet.settings import checked
from legradnet.viewer.background import BackgroundGrading
from legradnet.viewer.entry import Entry
from legradnet.viewer.finished import Given, OwnGrades, given_films, rows_of
from legradnet.viewer.journal import JOURNAL, Journal
from legradnet.viewer.settings import ViewSettings
from legradnet.viewer.uploads import Uploads
from legradnet.viewer.worklist import Worklist

if TYPE_CHECKING:
    from legradnet.viewer.room import ReadingRoom

log = logging.getLogger(__name__)

_KL_GRADES = 5
_FIRST_FILM = 3.0  # seconds that a model whose films are all graded leaves to the page


def view(config: Mapping[str, Any] | ViewSettings, run_folder: str | Path) -> None:
    """Serve a reading until it is stopped.

    Args:
        config: `ViewSettings` or their plain values, as `conf/view.yaml` composes them.
        run_folder: Where marks go without `output`; the working folder stands for a new one in `outputs/view/`.

    Raises:
        UserError: A mistake in the config, the films, the checkpoint, the address or the folder.
    """
    settings = checked(ViewSettings, config)
    for package in ("starlette", "uvicorn"):
        try:
            import_module(package)
        except ImportError:
            raise UserError(f"The reading room needs {package}: {how_to_install('viewer')}") from None
    with ExitStack() as open_things:
        _serve(settings, Path(run_folder), open_things)


def _serve(settings: ViewSettings, run_folder: Path, open_things: ExitStack) -> None:
    from legradnet.viewer.app import create_app  # late: what lacks is told in words
    from legradnet.viewer.server import Server, addresses, is_loopback, listen, open_browser

    listening, hosts, scheme = listen(settings)
    open_things.callback(listening.close)
    given = given_films(settings)
    folder = _folder(settings, run_folder)
    open_things.enter_context(claimed(folder))
    room = _open_room(settings, given, folder, listening.getsockname()[1], scheme == "https", open_things)
    server = Server(create_app(room, hosts=hosts, scheme=scheme), settings, closing=room.events.close)
    log.info("Marks are kept in %s%s", room.journal.path,
             "" if settings.output else f"; to go on with them: the same command with output={folder}")  # fmt: skip
    for reader, address in addresses(room.entry.tokens, hosts[0], scheme):
        print(f"{reader}: {address}" if len(settings.readers) > 1 else address, flush=True)
    if settings.browser and len(settings.readers) == 1 and is_loopback(settings.host):
        open_browser(addresses(room.entry.tokens, hosts[0], scheme)[0][1])
    gc.freeze()  # the list stays: Python need not look through it again and again
    threading.Thread(target=start_grading, args=(room,), name="start", daemon=True).start()
    threading.Thread(target=room.recall, name="recall", daemon=True).start()
    server.run([listening])
    room.grading.end()
    if room.journal.revision:
        tables = room.export(None)
        write_text(folder / "labels.csv", tables.labels)
        write_text(folder / "ungradable.csv", tables.ungradable)
        print(folder / "labels.csv")


def start_grading(room: "ReadingRoom") -> None:
    """Load the model, and grade what waits; where nothing does, a reader's first film goes before."""
    if room.grading.state == "done" and room.worklist.rows:
        room.pictures.shown.wait(_FIRST_FILM)
    room.grading.start()


def _open_room(
    settings: ViewSettings, given: Given, folder: Path, port: int, secure: bool, open_things: ExitStack
) -> "ReadingRoom":
    from legradnet.viewer.room import Model, ReadingRoom

    checkpoint = settings.checkpoint or given.checkpoint or SHIPPED
    kept: Callable[[Sequence[Record]], None] = lambda records: None  # noqa: E731
    dropped: list[InputFilm] = []
    if settings.output:
        own = OwnGrades(folder, settings)
        given.records = {**own.records, **given.records}
        dropped = own.dropped
        file = open_things.enter_context(GrowingFile(own.path))
        kept = lambda records: file.add(json_lines(records))  # noqa: E731
    given.films += dropped
    worklist = Worklist()
    worklist.add(rows_of(given, settings))

    def load() -> Grader:
        return Grader.load(
            checkpoint, device=settings.device, precision=settings.precision, batch_size=settings.batch_size
        )

    loading = load
    if not worklist.rows or any(row.record is None for row in worklist.rows):
        grader = load()  # a mistake is told before the page is there
        loading = lambda: grader  # noqa: E731
    grading = BackgroundGrading(worklist, loading, kept, settings.batch_size, settings.film)
    journal = Journal(folder / JOURNAL)
    open_things.callback(_closed, journal, is_asked=settings.output is not None)
    uploads = Uploads(folder if settings.output else None)
    open_things.callback(uploads.close)
    first = next((row.record for row in worklist.rows if row.record and row.grade is not None), {})
    classes = len(first["probabilities"]) if first else _KL_GRADES
    return ReadingRoom(
        worklist,
        journal,
        grading,
        uploads,
        Entry(settings.readers, port, secure=secure),
        readers=settings.readers,
        model=Model(_name(checkpoint), classes, tuple(first.get("gate_weights", ()))),
        blind=settings.study == "blind",
        seed=settings.seed,
        side=settings.side or "",
    )


def _closed(journal: Journal, *, is_asked: bool) -> None:
    journal.close()
    if not journal.revision and not is_asked:  # nobody has marked anything: leave no folder behind
        with suppress(OSError):
            journal.path.unlink()


def _folder(settings: ViewSettings, run_folder: Path) -> Path:
    if settings.output is not None:
        return Path(settings.output)
    if run_folder.resolve() != Path.cwd():
        return run_folder
    return claim_for_run(Path("outputs/view") / time.strftime("%Y-%m-%d_%H-%M-%S"), numbered=True)


def _name(checkpoint: str | list[str]) -> str:
    """What the page calls the model: a run and its checkpoint, or the last part of another path."""
    names = [checkpoint] if isinstance(checkpoint, str) else checkpoint
    parts = [(name,) if is_name(name) else Path(name).parts for name in names]
    return ", ".join(f"{own[-3]}/{own[-1]}" if len(own) > 2 and own[-2] == "checkpoints" else own[-1] for own in parts)
