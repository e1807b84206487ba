"""Reading rooms of small knees, served inside the test's own process."""

import threading
import time
from contextlib import contextmanager
from pathlib import Path

from legradnet.data.inputs import InputFilm
from legradnet.data.sides import side_from_name
from legradnet.grading.grader import Grader
from legradnet.viewer.app import create_app
from legradnet.viewer.background import BackgroundGrading
from legradnet.viewer.entry import Entry
from legradnet.viewer.journal import Journal
from legradnet.viewer.room import Model, ReadingRoom
from legradnet.viewer.server import Server, addresses, listen
from legradnet.viewer.settings import ViewSettings
from legradnet.viewer.uploads import Uploads
from legradnet.viewer.worklist import Worklist, new_row


class Served:
    """A room that is served.

    Attributes:
        room: It.
        addresses: {reader: the page's address, good for one time}.
        entered: {reader: what a browser keeps of having entered}.
    """

    def __init__(self, room, entered, server, thread):
        self.room, self.addresses, self._server, self._thread = room, entered, server, thread
        self.entered = {}

    def stop(self):
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self.room.grading.end()
        self.room.journal.close()
        self.room.uploads.close()


def serve(folder, films, grader, readers=("A",), port=0, paused=False, **study):
    """Serve `films`, paths, with the journal of `folder`; knees of a patient have the same digits in their names."""
    settings = ViewSettings(readers=list(readers), port=port)
    listening, hosts, scheme = listen(settings)
    worklist = Worklist()
    patients = {name: number for number, name in enumerate(sorted({path.stem[:-1] for path in films}))}
    worklist.add(
        new_row(InputFilm(path.name, path), side_from_name(path.name), patient=patients[path.stem[:-1]])
        for path in map(Path, films)
    )
    entry = Entry(readers, listening.getsockname()[1], secure=False)
    journal, uploads = Journal(folder / "marks.sqlite"), Uploads(None)
    grading = BackgroundGrading(worklist, lambda: grader)
    model = Model("best.ckpt", grader.classes)
    room = ReadingRoom(worklist, journal, grading, uploads, entry, readers=readers, model=model, **study)
    room.recall()
    server = Server(create_app(room, hosts=hosts, scheme=scheme), settings, room.events.close)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    if paused:
        grading.act("pause")
    grading.start()
    thread.start()
    return Served(room, dict(addresses(entry.tokens, hosts[0], scheme)), server, thread)


@contextmanager
def serving(*arguments, graded=True, **keywords):
    """A room that is served as `serve` does, and by default graded; afterwards it is stopped."""
    served = serve(*arguments, **keywords)
    try:
        until = time.monotonic() + 60
        while graded and served.room.worklist.finished < len(served.room.worklist.rows):
            assert time.monotonic() < until and not served.room.grading.error, served.room.progress()
            time.sleep(0.01)
        yield served
    finally:
        served.stop()


def grader_of(run):
    """The grader of a small run, in f32: the numbers are the same on every machine."""
    return Grader.load(run / "checkpoints/best.ckpt", device="cpu", precision="f32")
