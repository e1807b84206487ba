"""The node's queue, and the threads that grade and send what is in it: nothing is lost, nothing stands in the way."""

import threading
from contextlib import contextmanager

import pytest
from knee_films import UID, film

from legradnet.errors import UserError
from legradnet.files import NotWrittenError
from legradnet.hospital.settings import NodeSettings

pytest.importorskip("pynetdicom", reason="the extra [hospital] is not installed")
pytest.importorskip("highdicom", reason="the extra [hospital] is not installed")
from nodes import PATIENCE, wait_for

from legradnet.hospital import working
from legradnet.hospital.objects import Made
from legradnet.hospital.queue import Queue
from legradnet.hospital.sending import Sender
from legradnet.hospital.status import status


@pytest.fixture
def queue(tmp_path):
    made = Queue(tmp_path)
    yield made
    made.close()


def reopened(queue):
    queue.close()
    return Queue(queue.folder)


def test_whatever_a_kill_leaves_half_done_is_done_again(queue):
    """Each of the moments between two steps that are safe on disk."""
    (queue.folder / "films/1.2.3.dcm").write_bytes(b"whole, and not yet told")
    (queue.folder / "films/.legradnet-x.partial").write_bytes(b"half")
    queue.keep_film("1.2.4", b"film")
    queue = reopened(queue)
    assert queue.waiting() == 2 and len(list((queue.folder / "films").iterdir())) == 2
    first = queue.next_film()
    assert queue.begin(first)
    (queue.folder / "objects/2.25.1.dcm").write_bytes(b"made, and not yet told")
    queue = reopened(queue)
    assert not list((queue.folder / "objects").iterdir()) and queue.waiting() == 2
    assert queue.next_film().uid != first.uid, "another first than that over which a node has died"
    queue.finish(first, [Made("report", "2.25.1", b"report"), Made("picture", "2.25.2", b"picture")])
    first.path.write_bytes(b"graded, and not yet deleted")
    queue = reopened(queue)
    assert not first.path.exists() and [one.uid for one in queue.due(9)] == ["2.25.1", "2.25.2"]
    sent = queue.due(1)[0]
    queue.sent(sent)
    sent.path.write_bytes(b"sent, and not yet deleted")
    queue = reopened(queue)
    assert not sent.path.exists() and [one.path.read_bytes() for one in queue.due(9)] == [b"picture"]
    queue.close()


def test_a_film_over_which_nodes_die_comes_last_and_at_last_never(queue):
    queue.keep_film("1.2.3", b"deadly")
    for _ in range(10):
        assert queue.begin(queue.next_film())
    queue.keep_film("1.2.4", b"next")
    other = queue.next_film()
    assert other.uid == "1.2.4" and queue.begin(other)
    queue.give_up(other, "left", "no knee")
    assert not queue.begin(queue.next_film()) and queue.waiting() == 0
    assert "has ended 10 times" in status(queue.folder)


@pytest.mark.parametrize("end", ["finish", "give_up"])
def test_a_film_that_comes_again_while_it_is_graded_is_graded_again(queue, end):
    queue.keep_film("1.2.3", b"film")
    first = queue.next_film()
    assert queue.begin(first)
    queue.keep_film("1.2.3", b"mended film")
    how = ([Made("report", "2.25.1", b"report")],) if end == "finish" else ("failed", "is truncated")
    getattr(queue, end)(first, *how)
    again = queue.next_film()
    assert again.path.read_bytes() == b"mended film"
    assert queue.begin(again)
    getattr(queue, end)(again, *how)
    assert queue.next_film() is None and not again.path.exists()


@pytest.fixture
def worker(queue, monkeypatch):
    """A worker with nothing to grade by, in its thread; what `work` raises is for a test to say."""
    monkeypatch.setattr(working, "model_of", lambda grader: None)
    monkeypatch.setattr(working, "_PAUSE", 0.01)
    made = working.Worker(queue, None, "crop", pdf=False, wake=lambda: None)
    thread = threading.Thread(target=made.run)
    yield made, thread.start
    made.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_over_a_full_disk_films_wait_however_long_it_is_full(queue, worker):
    queue.keep_film("1.2.3", b"film")
    (made, start), full = worker, [NotWrittenError("the disk is full")] * 12

    def work(film):
        assert queue.begin(film)
        if full:
            raise full.pop()
        queue.finish(film, [Made("report", "2.25.1", b"report")])

    made.work = work
    start()
    wait_for(lambda: queue.due(1))
    assert queue.next_film() is None


@pytest.mark.parametrize(("errors", "end"), [(2, "1 graded"), (9, "1 failed")])
def test_what_may_have_been_the_machines_fault_is_tried_three_times(queue, worker, errors, end):
    queue.keep_film("1.2.3", b"film")
    (made, start), begun = worker, []

    def work(film):
        assert queue.begin(film)
        begun.append(film)
        if len(begun) <= errors:
            raise OSError("too many open files")
        queue.finish(film, [Made("report", "2.25.1", b"report")])

    made.work = work
    start()
    wait_for(lambda: end in status(queue.folder))
    assert len(begun) == 3


def test_a_queue_that_can_not_be_read_for_a_while_ends_no_thread(queue, worker, monkeypatch):
    (made, start), failures = worker, [NotWrittenError("disk I/O error"), UserError("is damaged")]
    whole = queue.next_film
    monkeypatch.setattr(queue, "next_film", lambda: _raised(failures) if failures else whole())
    made.work = lambda film: queue.finish(film, []) if queue.begin(film) else None
    queue.keep_film("1.2.3", b"film")
    start()
    wait_for(lambda: "1 graded" in status(queue.folder))


def _raised(failures):
    raise failures.pop()


@contextmanager
def sending(queue, port, **more):
    """The part of a node that sends."""
    pauses = {"first_pause": 0.01, "longest_pause": 0.1, "timeout": 5}
    sender = Sender(queue, NodeSettings(output="queue", send_to=f"PACS@127.0.0.1:{port}", **pauses, **more), None)
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        yield
    finally:
        sender.stop()
        thread.join(PATIENCE)


def made_of(tmp_path, *numbers):
    """Objects to send; what is in them matters to nobody."""
    secondary = "1.2.840.10008.5.1.4.1.1.7"
    return [
        Made("picture", f"{UID}.{number}", film(tmp_path / "made.dcm", number, SOPClassUID=secondary).read_bytes())
        for number in numbers
    ]


def test_an_object_over_which_connections_break_does_not_hold_up_others(queue, tmp_path, receiver):
    queue.keep_film("1.2.3", b"film")
    queue.begin(film_of := queue.next_film())
    queue.finish(film_of, made_of(tmp_path, 1, 2, 3))
    receiver.breaks = {f"{UID}.1"}
    with sending(queue, receiver.port):
        wait_for(lambda: "2 sent" in status(queue.folder))
        assert f"refused  {UID}.1: no answer came" in status(queue.folder)
        receiver.breaks = set()
        wait_for(lambda: "3 sent" in status(queue.folder))


@pytest.mark.parametrize("is_there", [True, False])
def test_status_tells_why_nothing_is_sent(queue, tmp_path, receiver, is_there):
    queue.keep_film("1.2.3", b"film")
    queue.begin(film_of := queue.next_film())
    queue.finish(film_of, made_of(tmp_path, 1))
    receiver.server.ae.require_calling_aet = ["SOMEBODY"]
    words = "refuses the connection: calling ae title not recognised" if is_there else "is not reached"
    with sending(queue, receiver.port if is_there else 9):
        wait_for(lambda: f"refused  {UID}.1: {words}" in status(queue.folder))
