"""`legradnet-export`: one checkpoint to one folder, written whole and checked, or not at all."""

import logging
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from legradnet.claims import filled_whole
from legradnet.errors import UserError
from legradnet.evaluation.films import LabelledFilms
from legradnet.export.check import Quality, check_parity, films_of, measure_quality
from legradnet.export.graph import write_onnx
from legradnet.export.hub import export_hub
from legradnet.export.model import export_model
from legradnet.export.quantize import MOST_FILMS, quantise
from legradnet.export.settings import HUB, MODEL, ExportSettings
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.exported_network import DESCRIPTION, ExportedNetwork
from legradnet.grading.grading import Prepared, readable
from legradnet.grading.loading import in_words
from legradnet.grading.runtimes import RUNTIMES
from legradnet.grading.runtimes.openvino import unreported
from legradnet.grading.runtimes.runtime import Films, imported
from legradnet.grading.whole_films import prepare_knees
from legradnet.models.described import digest, write_description
from legradnet.models.named import local_path
from legradnet.run_folder import versions
from legradnet.settings import checked

log = logging.getLogger(__name__)


def export(config: Mapping[str, Any] | ExportSettings) -> Path:
    """Export `checkpoint` as `conf/export.yaml` composes it.

    Returns:
        The folder.

    Raises:
        UserError: A mistake in the config, the checkpoint, the films or the output folder; or an export that does not
            grade like its checkpoint.
    """
    settings = checked(ExportSettings, config)
    kind, precision, output = settings.format, settings.precision, Path(settings.output)
    if kind == HUB:
        return export_hub(settings)
    if unused := [name for name in ("evaluation", "facts") if getattr(settings, name)]:
        raise UserError(f"{unused[0]}= is for the card of a model, which only format={HUB} has.")
    if kind == MODEL:
        return export_model(settings)
    runtime = RUNTIMES[kind]
    if precision not in runtime.precisions:
        ways = [f"precision={other}" for other in runtime.precisions]
        others = [f"format={name}" for name, other in RUNTIMES.items() if precision in other.precisions]
        raise UserError(
            f"precision={precision} with format={kind}: {runtime.name} has no {precision} on a CPU. Choose "
            f"{' or '.join(ways)}, or {' or '.join(others)}."
        )
    with filled_whole(output, last=DESCRIPTION) as folder:
        described = _fill(folder, settings)
    _tell(output, described)
    print(output)
    return output


def _fill(folder: Path, settings: ExportSettings) -> dict[str, Any]:
    """Write the export into an empty folder and check it; gives what its description says."""
    kind, precision = settings.format, settings.precision
    runtime = RUNTIMES[kind]
    for package in runtime.packages(precision):
        with unreported():
            imported(package)  # what lacks is told before the work
    checkpoint = CheckpointNetwork(local_path(settings.checkpoint), device="cpu", precision="f32")
    if checkpoint.not_finite:
        raise UserError(f"{checkpoint.path} can't be exported: {checkpoint.not_finite} is not finite.")
    log.info("Exporting %s", in_words(checkpoint))
    films = None if precision == "f32" else _films(settings, checkpoint)

    graph = folder / "network.onnx"  # the way to every format, and one of them
    write_onnx(checkpoint, graph)
    runtime.write(graph, folder, _seen(checkpoint, films) if films and precision == "int8" else (), quantise)
    if graph.name not in runtime.files:
        graph.unlink()
    described = _description(checkpoint, kind, precision, folder)
    write_description(folder / DESCRIPTION, described)
    exported = ExportedNetwork(folder)
    if films is None:
        described["largest_difference"] = check_parity(checkpoint, exported)
    else:
        quality = measure_quality(checkpoint, exported, films, workers=settings.data.num_workers)
        _refuse_worse(quality, settings.max_qwk_drop)
        described["quality"] = quality.to_plain()
        if described["distance"]:
            described["distance"]["limit"] *= quality.limit_grows
    write_description(folder / DESCRIPTION, described)
    return described


def _films(settings: ExportSettings, checkpoint: CheckpointNetwork) -> LabelledFilms:
    films = films_of(settings, checkpoint)
    log.info("%d films to %s on (split %s)", len(films.requests),
             "calibrate and compare" if settings.precision == "int8" else "compare", films.split)  # fmt: skip
    return films


def _seen(checkpoint: CheckpointNetwork, films: LabelledFilms) -> Films:
    """At most `MOST_FILMS` of the films, spread evenly over them, as the network sees them: uint8 [1, 1, S, S] each."""
    rows = np.unique(np.linspace(0, len(films.requests) - 1, MOST_FILMS).round().astype(int))
    seen = []
    for row in rows.tolist():
        for knee in readable(prepare_knees([checkpoint], films.requests[row], films.kind)):
            if isinstance(knee, Prepared):
                seen += [np.ascontiguousarray(view[None, None]) for view in knee.views[0]]
    return seen


def _refuse_worse(quality: Quality, most: float | None) -> None:
    if most is None or quality.qwk_drop <= most:
        return
    if math.isnan(quality.qwk_drop):
        raise UserError(
            f"Nothing was written: all {quality.films} films have one grade, and QWK, by which an export is judged, is "
            "not defined. Choose other films (split=, data=), or max_qwk_drop=null to accept the export as it is."
        )
    raise UserError(
        f"Nothing was written: on {quality.films} films QWK falls by {quality.qwk_drop:.4f}, from "
        f"{quality.qwk[0]:.4f} to {quality.qwk[1]:.4f}, more than max_qwk_drop={most:g}. Choose another precision, "
        "or a larger max_qwk_drop (null: any)."
    )


def _description(checkpoint: CheckpointNetwork, kind: str, precision: str, folder: Path) -> dict[str, Any]:
    grade = "KL" if checkpoint.classes == 5 else "grade"
    outputs = {
        "probabilities": "float32 [B, classes], calibrated",
        "raw": "float32 [B, classes], as trained",
        "logits": "float32 [B, outputs]",
    }
    decides = "probabilities" if checkpoint.calibration.biases else "raw"
    outputs[decides] += f": the grade is their {checkpoint.rule}"
    if checkpoint.weighs:
        outputs["gate_weights"] = "float32 [B, backbones], each row sums to 1"
    if checkpoint.distance:
        outputs["stages"] = f"float32 [B, {checkpoint.distance.width}], mean channels, which distance is measured on"
    learned = checkpoint.learned.model_dump(exclude={"calibration", "film_check", "distance"}, exclude_unset=True)
    return {
        "legradnet_export": 1,
        "format": kind,
        "precision": precision,
        "classes": checkpoint.classes,
        "class_names": [f"{grade} {number}" for number in range(checkpoint.classes)],
        "backbones": list(checkpoint.backbones),
        "weighs": checkpoint.weighs,
        "films": {
            "image_size": checkpoint.image_size,
            "fit": checkpoint.fit,
            "mirror_left": checkpoint.mirror_left,
            "input": f"films: uint8 [B, 1, {checkpoint.image_size}, {checkpoint.image_size}], any B, bone bright",
        },
        "outputs": outputs,
        "rule": checkpoint.rule,
        "batch_size": checkpoint.batch_size,
        "calibration": checkpoint.calibration.model_dump(mode="json"),
        "film_check": checkpoint.film_check.model_dump() if checkpoint.film_check else None,
        "distance": checkpoint.distance.model_dump() if checkpoint.distance else None,
        "settings": checkpoint.settings.model_dump(exclude_unset=True),
        "learned": learned,
        "parameters": checkpoint.parameters,
        "digests": {name: digest(folder / name) for name in RUNTIMES[kind].files},
        "made_with": versions() | {name: version(name) for name in RUNTIMES[kind].packages(precision)},
    }


def _tell(output: Path, described: Mapping[str, Any]) -> None:
    size = sum(path.stat().st_size for path in output.iterdir()) / 1e6
    log.info("%s, %s, %.1f MB", described["format"], described["precision"], size)
    if "largest_difference" in described:
        log.info("Probabilities of generated knees differ from the checkpoint's by %.2g at most",
                 described["largest_difference"])  # fmt: skip
        return
    quality = described["quality"]
    for name in ("qwk", "accuracy"):
        before, after = quality[f"{name}_checkpoint"], quality[f"{name}_export"]
        if before is None or after is None:  # QWK, where all films have one grade
            continue
        log.info("%-8s %.4f -> %.4f (%+.4f) on %d films, split %s", name, before, after, after - before,
                 quality["films"], quality["split"])  # fmt: skip
    if quality["unlike_checkpoint"] or quality["unlike_export"]:
        log.info("Unlike the training films: %d before, %d after, for which the limit is %.3f times what it was",
                 quality["unlike_checkpoint"], quality["unlike_export"], quality["limit_grows"])  # fmt: skip
    log.info("%d grades change; the largest change of a probability is %.4f", quality["changed_grades"],
             quality["largest_probability_change"])  # fmt: skip
    if quality["measured_in"] != described["precision"]:
        log.warning("This CPU has no %s and ran the export in %s: these numbers are not those of %s.",
                    described["precision"], quality["measured_in"], described["precision"])  # fmt: skip
