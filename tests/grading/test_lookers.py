import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from legradnet.data.film import Film
from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError
from legradnet.grading import lookers
from legradnet.grading.look import look_at
from legradnet.grading.lookers import look_apart
from legradnet.localise.knees import find_knees

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads look themselves")


def which_process(film):
    """A look that tells where it was."""
    return os.getpid()


def refuses(film):
    raise UserError(f"refused by {os.getpid()}")


def ends(film, here):
    if os.getpid() != here:
        os._exit(1)
    return "seen"


@pytest.fixture
def none_yet(monkeypatch):
    """Two may be had."""
    monkeypatch.setattr(lookers, "cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(lookers, "_lookers", found := lookers._Lookers())
    monkeypatch.syspath_prepend(Path(__file__).parent)
    yield found
    found.forget()
    if found.process:
        with suppress(ChildProcessError):
            os.waitpid(found.process.pid, 0)


@pytest.fixture
def ours(none_yet, monkeypatch):
    """Two lookers, which are there."""
    monkeypatch.setattr(lookers, "SIDE_BY_SIDE", -1)
    for _ in range(6000):
        look_apart(which_process, np.zeros((2, 2), np.uint8))
        if len(none_yet.idle) == 2:
            return none_yet
        time.sleep(0.01)
    raise AssertionError("they did not come")


@pytest.fixture(scope="module")
def films():
    return [Film(film) for film in synthesize(6, size=160, seed=2)[0]]


def seen(film):
    return look_apart(look_at, film, [None]), look_apart(find_knees, film.gray)


def test_what_other_processes_see_is_what_a_thread_sees(ours, films):
    with ThreadPoolExecutor(4) as pool:
        where = {*pool.map(look_apart, [which_process] * 40, films[:1] * 40)}
        answers = [*pool.map(seen, films)]
    assert len(where) == 2 and os.getpid() not in where
    assert answers == [(look_at(film, [None]), find_knees(film.gray)) for film in films]


def test_a_few_films_start_no_process(none_yet, films):
    for film in films:
        seen(film)
    assert none_yet.process is None and not none_yet.has_begun


def test_threads_that_look_side_by_side_start_processes_and_one_alone_does_not(none_yet, monkeypatch, films):
    monkeypatch.setattr(lookers, "SIDE_BY_SIDE", 0.0)
    assert look_apart(which_process, films[0]) == os.getpid()
    assert none_yet.process is None
    together = Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(look_apart, [lambda film: together.wait(30) >= 0] * 2, films[:2])] == [True, True]
    assert none_yet.process is not None


def test_a_process_that_was_given_one_thread_takes_no_other_core(monkeypatch, films):
    monkeypatch.setattr(lookers, "cores", lambda: 8)
    monkeypatch.setattr(lookers, "SIDE_BY_SIDE", -1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(lookers, "_lookers", found := lookers._Lookers())
    assert look_apart(which_process, films[0]) == os.getpid()
    assert found.process is None


def test_a_film_that_is_very_large_is_copied_to_no_other_process(ours, monkeypatch, films):
    monkeypatch.setattr(lookers, "_MOST_PIXELS", films[0].gray.size - 1)
    assert look_apart(which_process, films[0]) == os.getpid()


def test_what_goes_wrong_in_another_process_is_told_here(ours, films):
    with pytest.raises(UserError, match=f"refused by {os.getpid()}"):
        look_apart(refuses, films[0])
    assert look_apart(which_process, films[0]) != os.getpid()


def test_a_look_that_only_this_process_knows_is_taken_here(ours, films):
    assert look_apart(lambda film: os.getpid(), films[0]) == os.getpid()
    assert len(ours.idle) == 2


def test_lookers_that_die_cost_no_answer(ours, films):
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(look_apart, [ends] * 8, films[:1] * 8, [os.getpid()] * 8)] == ["seen"] * 8
        assert [*pool.map(seen, films)] == [(look_at(film, [None]), find_knees(film.gray)) for film in films]
    assert not ours.idle and not ours.busy


def test_where_no_process_can_be_started_threads_look_on(none_yet, monkeypatch, films):
    def refused(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(lookers, "SIDE_BY_SIDE", -1)
    for name in ("start_python", "Pipe"):
        monkeypatch.setattr(lookers, name, refused)
        none_yet.has_begun = False
        assert look_apart(which_process, films[0]) == look_apart(which_process, films[0]) == os.getpid()
        assert none_yet.process is None and not none_yet.starting


def test_a_looker_that_somebody_has_stopped_is_not_waited_for(ours, monkeypatch, films):
    monkeypatch.setattr(lookers, "LIMIT", 0.2)
    stopped = look_apart(which_process, films[0])
    os.kill(stopped, signal.SIGSTOP)
    try:
        answers = {look_apart(which_process, films[0]) for _ in range(3)}
        assert stopped not in answers and os.getpid() in answers
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_an_interrupted_question_leaves_no_answer_for_the_next(ours, films, monkeypatch):
    class Interrupted:
        def __init__(self, looker):
            self.send_bytes, self.poll, self.close = looker.send_bytes, looker.poll, looker.close

        def recv(self):
            raise KeyboardInterrupt

    ours.idle[:] = map(Interrupted, ours.idle)
    with pytest.raises(KeyboardInterrupt):
        look_apart(find_knees, films[0].gray)
    assert len(ours.idle) == 1 and not ours.busy


def test_a_fork_leaves_lookers_to_the_process_whose_they_are(ours, films):
    ours.busy.append(ours.idle.pop())  # as of a thread that waits for its answer
    if (child := os.fork()) == 0:
        is_apart = look_apart(which_process, films[0]) == os.getpid() and all(end.closed for end in ours.ends)
        os._exit(0 if is_apart else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert look_apart(which_process, films[0]) != os.getpid()
    ours.idle.append(ours.busy.pop())


SCRIPT = """
    import os, sys, threading, time
    import numpy as np
    from legradnet.grading import lookers
    from legradnet.localise.knees import is_cut_close

    print("runs", os.getpid(), flush=True)  # and no __main__ guard
    lookers.cores = lambda: 2
    os.environ.pop("OMP_NUM_THREADS", None)
    lookers.SIDE_BY_SIDE = -1
    lookers._lookers = lookers._Lookers()
    film = np.zeros((64, 64), np.uint8)
    while len(lookers._lookers.idle) < 2:
        lookers.look_apart(is_cut_close, film)
    print("has", lookers._lookers.process.pid, flush=True)
    if sys.argv[1:]:
        threading.Event().wait()
"""


def processes_of(session):
    """Processes in the session that a process leads."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its = stat.read_text("latin-1").rpartition(")")[2].split()[:4]
            found += [stat.parent.name] if int(its) == session and state != "Z" else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("end", [None, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_lookers_end_with_the_process_that_asks_however_it_ends(tmp_path, end):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    words = [sys.executable, "script.py", *(["wait"] if end else [])]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    runs, has = process.stdout.readline().split(), process.stdout.readline().split()
    assert (runs[0], has[0]) == ("runs", "has")
    if end:
        assert len(processes_of(int(has[1]))) == 2
        process.send_signal(end)
    assert process.stdout.read() == ""
    process.wait(30)
    limit = time.monotonic() + 30
    while processes_of(int(has[1])):
        assert time.monotonic() < limit
        time.sleep(0.05)
