"""Predictions as a Parquet file, for those who have an archive: every column always, whatever the films."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legradnet.data.film_tables import imported_parquet
from legradnet.files import written_whole
from legradnet.grading.predictions import BOX, KNEE, Record

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 20_000  # a group


def write_parquet(path: Path, records: Iterable[Record], classes: int, gates: Sequence[str]) -> None:
    """Write records as `predictions.csv` has them, but lists as lists; a value that is not known is null.

    Args:
        path: The file.
        records: Of films.
        classes: K, for `p0..p{K-1}`.
        gates: Backbones, for `gate_<key>`.

    Raises:
        UserError: pyarrow is not installed.
        NotWrittenError: It can't be written.
    """
    pq = imported_parquet(f"{path} is a Parquet file")
    import pyarrow as pa

    schema = _schema(classes, gates)
    with written_whole(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        rows = _rows(records, classes, gates)
        while group := list(islice(rows, _ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema))


def check_parquet() -> None:
    """Raise UserError where no Parquet file can be written: before films are graded, not after."""
    imported_parquet("A shard leaves a Parquet file")


def _schema(classes: int, gates: Sequence[str]) -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(
        [
            ("filename", pa.string()),
            (KNEE, pa.string()),
            (BOX, pa.list_(pa.int32())),
            ("label", pa.int32()),
            ("grade", pa.int32()),
            *((f"p{k}", pa.float64()) for k in range(classes)),
            ("expected_grade", pa.float64()),
            ("prediction_set", pa.list_(pa.int32())),
            ("referred", pa.bool_()),
            ("reason", pa.string()),
            *((f"gate_{key}", pa.float64()) for key in gates),
            ("error", pa.string()),
        ]
    )


def _rows(records: Iterable[Record], classes: int, gates: Sequence[str]) -> Iterator[dict[str, Any]]:
    for record in records:
        probabilities = record.get("probabilities") or [None] * classes
        weights = record.get("gate_weights") or {}
        yield {
            **record,
            **{f"p{k}": probability for k, probability in enumerate(probabilities)},
            **{f"gate_{key}": weights.get(key) for key in gates},
        }
