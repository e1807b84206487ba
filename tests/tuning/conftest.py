"""A search typed in this process, and the databases that a study may be in."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import optuna
import pretended
import pytest

from legradnet.tuning.storage import open_storage


@pytest.fixture
def run(typed):
    """Type `legradnet-train ...` in this process: (exit status, stdout, stderr)."""

    def words(*arguments):
        done = typed("legradnet-train", *arguments)
        return done.returncode, done.stdout, done.stderr

    return words


@pytest.fixture
def search_with_figures(run, tmp_path, monkeypatch):
    """The same with `-m`, a sweep in `tmp_path/sweep`, and the pretended training."""
    monkeypatch.setattr("legradnet.tuning.objective.train", pretended.train)
    return lambda *arguments: run("-m", f"hydra.sweep.dir={tmp_path}/sweep", *arguments)


@pytest.fixture
def search(search_with_figures, monkeypatch):
    """The same without figures, which take longer than the trials."""
    monkeypatch.setattr("legradnet.tuning.sweep.write_figures", lambda *_: None)
    return search_with_figures


@pytest.fixture(scope="session")
def postgresql():
    """URL of an empty database in a server of our own on 127.0.0.1."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = binaries[-1].parent if binaries else None
    if found is None and (there := shutil.which("initdb")):
        found = Path(there).resolve().parent
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp())  # not below pytest's own folder, which only root may enter
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        if not shutil.which("runuser") or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    data, options = folder / "data", f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="

    def run(*words):
        done = subprocess.run([*user, *words], capture_output=True, text=True, cwd="/", timeout=120)
        assert done.returncode == 0, done.stderr + done.stdout

    run(found / "initdb", "-D", data, "-U", "legradnet", "-A", "trust")
    run(found / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql://legradnet@127.0.0.1:{port}/postgres"
    finally:
        run(found / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "journal", pytest.param("postgresql", marks=pytest.mark.slow)])
def storage(request, tmp_path):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
        if "mine" in optuna.get_all_study_names(open_storage(url)):
            optuna.delete_study(study_name="mine", storage=open_storage(url))
        return url
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else f"journal:{tmp_path}/study.log"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"
