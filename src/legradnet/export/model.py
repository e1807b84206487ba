"""`format=model`: a checkpoint as a folder of safetensors and JSON, compared with what it came from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legradnet.checkpoint import KEPT_IN_BEST
from legradnet.claims import filled_whole
from legradnet.errors import UserError
from legradnet.evaluation.films import LabelledFilms, run_of
from legradnet.export.check import films_of, largest_difference, measure_quality
from legradnet.export.settings import MODEL, ExportSettings
from legradnet.files import size_in_words
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.loading import in_words
from legradnet.models.described import write_description
from legradnet.models.description import CONFIG
from legradnet.models.folder import read_trained, write_model
from legradnet.models.named import local_path
from legradnet.run_folder import versions

log = logging.getLogger(__name__)

TOLERANCE = 2e-3  # of a probability


def export_model(settings: ExportSettings) -> Path:
    """Write `checkpoint` as a model folder into `output`.

    Returns:
        The folder.

    Raises:
        UserError: A mistake in the config, the checkpoint, the films or the output folder.
    """
    if settings.precision != "f32":
        raise UserError(
            f"precision={settings.precision} with format={settings.format}: a model computes in the "
            "precision= that predict and evaluate are told. Leave precision= out."
        )
    output = Path(settings.output)
    with filled_whole(output, last=CONFIG) as folder:
        described = fill_model(folder, settings)
    _tell(output, described)
    print(output)
    return output


def fill_model(folder: Path, settings: ExportSettings) -> dict[str, Any]:
    """Write a model into an empty folder and check it; gives what its `config.json` says."""
    path = local_path(settings.checkpoint)
    checkpoint = CheckpointNetwork(path, device="cpu", precision="f32")
    if checkpoint.not_finite:
        raise UserError(f"{path} can't be exported: {checkpoint.not_finite} is not finite.")
    log.info("Exporting %s", in_words(checkpoint))
    films = _films(settings, checkpoint)
    content = read_trained(path)
    kept = {key: content[key] for key in KEPT_IN_BEST if key in content}
    said = {"parameters": checkpoint.parameters, "made_with": versions()}
    described = write_model(folder, kept, said)
    if not _grades_alike(folder, described, checkpoint, films, settings):
        log.warning("Weights in 16 bits would change more than a probability by %g: all keep 32 bits.", TOLERANCE)
        described = write_model(folder, kept, said, shortened=False)
        if not _grades_alike(folder, described, checkpoint, films, settings):
            raise UserError(f"Nothing was written: {path} does not grade twice alike. Please report it.")
    write_description(folder / CONFIG, described)
    return described


def _grades_alike(
    folder: Path,
    described: dict[str, Any],
    checkpoint: CheckpointNetwork,
    films: LabelledFilms | None,
    settings: ExportSettings,
) -> bool:
    """Whether the model changes no grade, and no probability by more than `TOLERANCE`; `described` gets the numbers."""
    model = CheckpointNetwork(folder, device="cpu", precision="f32")
    described |= {"largest_difference": (largest := largest_difference(checkpoint, model)), "quality": None}
    if not largest <= TOLERANCE or films is None:
        return largest <= TOLERANCE
    quality = measure_quality(checkpoint, model, films, workers=settings.data.num_workers)
    described["quality"] = quality.to_plain()
    return not quality.changed_grades and quality.largest_probability_change <= TOLERANCE


def _films(settings: ExportSettings, checkpoint: CheckpointNetwork) -> LabelledFilms | None:
    """The films to compare on, if they were named or are still where the training run had them."""
    own = settings.data.source == "own"
    if own and not run_of(checkpoint.path).config.is_file():
        return None
    try:
        return films_of(settings, checkpoint)
    except UserError as error:
        if not own:
            raise
        log.warning("Not compared with the checkpoint on its own films, only on generated ones: %s", error)
        return None


def _tell(output: Path, described: Mapping[str, Any]) -> None:
    size = size_in_words(sum(path.stat().st_size for path in output.iterdir()))
    log.info("%s, %s", MODEL, size)
    log.info("Probabilities of generated knees differ from the checkpoint's by %.2g at most",
             described["largest_difference"])  # fmt: skip
    if quality := described.get("quality"):
        log.info("%d grades of %d films change (split %s); the largest change of a probability is %.2g",
                 quality["changed_grades"], quality["films"], quality["split"],
                 quality["largest_probability_change"])  # fmt: skip
    else:
        log.info("On real films it was not compared: data=csv or data=folder name some")
