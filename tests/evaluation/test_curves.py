import pandas as pd
import pytest

from legradnet.errors import UserError
from legradnet.evaluation.curves import SHOWN, best_epochs, curves_figure, read_curves


@pytest.fixture
def runs(tmp_path):
    """Two runs of three epochs; the second is better, in its second epoch."""
    for name, qwk in {"a": [0.1, 0.2, 0.3], "b": [0.4, 0.8, 0.6]}.items():
        columns = {f"val/{metric}": [0.5, 0.4, 0.45] for metric in SHOWN} | {
            "val/qwk": qwk,
            "train/loss": [1, 0.8, 0.7],
        }
        (tmp_path / name).mkdir()
        pd.DataFrame({"epoch": [0, 1, 2], **columns}).to_csv(tmp_path / name / "metrics.csv", index=False)
    return [tmp_path / "a", tmp_path / "b"]


def test_the_best_epoch_of_each_run_is_told_the_best_run_first(runs):
    best = best_epochs(read_curves(runs))
    assert best["run"].tolist() == ["b", "a"]
    assert best["epoch"].tolist() == [1, 2]


def test_curves_have_a_line_a_run_and_a_mark_at_the_best_epoch(runs):
    loss, qwk, *_ = curves_figure(read_curves(runs)).axes
    assert [line.get_ydata().tolist() for line in qwk.lines] == [[0.1, 0.2, 0.3], [0.3], [0.4, 0.8, 0.6], [0.8]]
    assert len(loss.lines) == 6
    assert qwk.get_xlabel() == "Epoch"
    assert qwk.get_ylabel() == "val/qwk"


def test_a_folder_without_metrics_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no .*metrics\.csv: train first"):
        read_curves([tmp_path])
