"""An experiment file may be somebody else's: what is wrong in it is told once, in words."""

import pytest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense: 3", ["nonsense is unknown; there are "]),
        ("model: {width: 3}", ["model.width is unknown; there are feature_dim"]),
        ("model: {feature_dim: wide}", ["model.feature_dim=wide must be a whole number"]),
        ("data: {image_size: 8}", ["data.image_size=8 must be a whole number from 32 to 4096"]),
        ("data: 3", ["data"]),
        ("gating: {name: oracle}", ["gating.name=oracle must be one of mha, mlp, concat, mean"]),
        ("gating: {name: mlp, num_heads: 2}", ["gating.num_heads is unknown"]),
        ("seed: -1\nmodel: {dropout: 2}", ["seed=-1 must be", "model.dropout=2 must be"]),
        ("defaults: [{override /gating: oracle}]", ["gating/oracle"]),
        ("- 3", ["best"]),
    ],
)
def test_each_mistake_in_an_experiment_file_is_told_in_words(typed, tmp_path, text, words):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/best.yaml").write_text(f"# @package _global_\n{text}\n")
    done = typed("legradnet-train", "--config-dir", tmp_path, "experiment=best", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "run/checkpoints").exists()
