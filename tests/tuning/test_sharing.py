"""A sweep's folder is its study's."""

import pytest

from legradnet.errors import UserError
from legradnet.tuning.sharing import locked, shared_by_workers


def test_a_search_is_told_that_another_study_is_at_work_in_its_folder(tmp_path):
    with shared_by_workers(tmp_path / "sweep", "first"):
        with shared_by_workers(tmp_path / "sweep", "first"):  # a second worker
            pass
        words = r"sweep is held by a search of another study \(first\)"
        with pytest.raises(UserError, match=words), shared_by_workers(tmp_path / "sweep", "second"):
            pass
    with shared_by_workers(tmp_path / "sweep", "second"):
        pass


def test_a_planted_link_is_no_file_of_a_sweep(tmp_path):
    (tmp_path / "victim").write_text("precious")
    for name in (".legradnet-study", ".record.lock"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="it is a link"), shared_by_workers(tmp_path, "first"):
        pass
    with pytest.raises(OSError), locked(tmp_path / ".record.lock"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"
