"""The manifest: one checked table of all films, from a CSV file or from class folders.

Whatever is wrong (columns, cells, files, pixels) is told in one `ManifestError`, by row of the CSV file: a row is a
line of the file, the header is row 1, and a record with line breaks inside quotes goes by its first line.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from legradnet.data.cache import CacheSettings, FilmCache, opened_cache
from legradnet.data.cached import CachedFilms
from legradnet.data.checks import Draft
from legradnet.data.knee_rows import join_knees, name_knees, refuse_squares
from legradnet.data.settings import OnBadImage, Verify
from legradnet.data.sources import ManifestError, has_grades, read_all, read_csv, read_folders, with_patients

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """The films of a data set.

    Attributes:
        table: One row a film: `filename` relative to `root`, `label` int64, `patient`, `side` (L, R) and `split` as
            strings with "" for unknown, then the other named columns of the CSV file as strings.
        root: The resolved `dataset_path`.
        skipped: `filename` and `error` of the films left out by `on_bad_image="skip"`.
        cached: The films that are in the cache, by row; None if none is.
        fingerprints: Of each film's picture, b"" where it was not decoded; () where none was.
    """

    table: pd.DataFrame
    root: Path
    skipped: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"filename": [], "error": []}, dtype=str))
    cached: CachedFilms | None = None
    fingerprints: Sequence[bytes] = ()


def load_manifest(
    dataset_path: Path,
    csv_path: Path | None = None,
    *,
    num_classes: int,
    patient_regex: str | None = None,
    verify: Verify = "decode",
    on_bad_image: OnBadImage = "error",
    workers: int | None = None,
    progress: bool = False,
    cache: CacheSettings | None = None,
    labelled: bool = True,
    knees: bool = False,
) -> Manifest:
    """Read and check a data set: from `csv_path`, or without one from the folders in `dataset_path`.

    Args:
        dataset_path: The folder that holds every film; no film outside it is opened.
        csv_path: UTF-8 CSV file with at least `filename,label`; names are relative to `dataset_path`. Without it
            `{train,val,test}/{0..K-1}/*` or `{0..K-1}/*` is expected in `dataset_path`.
        num_classes: K; labels are 0 to K-1.
        patient_regex: Searched in a film's base name where the column is missing; groups `patient` and maybe `side`.
        verify: "decode" reads every film and compares their pixels, "header" only opens them.
        on_bad_image: "skip" leaves missing and unreadable films out; all other problems are still errors.
        workers: Threads that open films, default one a core.
        progress: Show a progress bar.
        cache: Where decoded films are kept; with `verify="header"` they are only looked up. None: nowhere.
        labelled: Whether every film needs a grade; else a film without one has -1, and folders may have any names.
        knees: Whether a row may be one `knee` of a whole film, R or L, which is then named once for each.

    Raises:
        ManifestError: With every problem that was found.
        UserError: `patient_regex` can't be used, or the folder that a cache names.
    """
    root = Path(os.path.realpath(dataset_path))
    if not root.is_dir():
        raise ManifestError(f"data.dataset_path={dataset_path} is not a folder")
    if csv_path is not None:
        draft = read_csv(Path(csv_path), root, labelled=labelled)
    else:
        draft = read_folders(root, num_classes) if labelled or has_grades(root, num_classes) else read_all(root)
    if patient_regex is not None:
        draft.table = with_patients(draft.table, patient_regex)
    draft.check_cells(num_classes, labelled=labelled)
    if knees:
        name_knees(draft)
    else:
        refuse_squares(draft)
    draft.check_files()
    if draft.knees:
        join_knees(draft)
    with opened_cache(root, cache) as store:
        draft.check_images(verify, workers, progress, store)
        return _finish(draft, on_bad_image, store)


def _finish(draft: Draft, on_bad_image: OnBadImage, store: FilmCache | None) -> Manifest:
    """Tell all problems, or make a manifest of what is left."""
    bad = sorted(draft.bad)
    if on_bad_image == "error" or len(bad) == len(draft.table):
        draft.add_rows("film is missing or unreadable", bad, draft.bad.__getitem__)
    if draft.problems:
        raise ManifestError("\n".join([f"{draft.source} cannot be used:", *draft.problems]))
    good = [position for position in range(len(draft.table)) if position not in draft.bad]
    keys, prints = (
        [getattr(draft.looks.get(position), what, None) or b"" for position in good] for what in ("key", "pixels")
    )
    cached = store.films(keys) if store else None
    if not bad:
        return Manifest(draft.table, draft.root, cached=cached, fingerprints=prints)
    _log.warning(
        "%d of %d films are left out, e.g. %s: %s", len(bad), len(draft.table), draft.place(bad[0]), draft.bad[bad[0]]
    )
    names = draft.table["filename"].iloc[bad].tolist()
    skipped = pd.DataFrame({"filename": names, "error": [draft.bad[position] for position in bad]})
    table = draft.table.drop(draft.table.index[bad]).reset_index(drop=True)
    return Manifest(table, draft.root, skipped, cached, prints)
