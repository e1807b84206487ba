"""Tables that list films: CSV files, and Parquet files as the same rows of text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from legradnet.errors import UserError
from legradnet.tables import Table, TableError, check_header, read_table

PARQUET = b"PAR1"  # what such a file begins with


def read_film_table(path: Path, needed: Sequence[str]) -> Table:
    """As `read_table`, of a CSV or a Parquet file, told by its content; what Parquet nests is left out.

    Raises:
        TableError: As `read_table`, or a Parquet file that is damaged.
        UserError: A Parquet file, and pyarrow is not installed.
    """
    return _read_parquet(path, needed) if _is_parquet(path) else read_table(path, needed)


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(PARQUET)) == PARQUET
    except OSError:
        return False  # which reading it as a CSV tells


def _read_parquet(path: Path, needed: Sequence[str]) -> Table:
    pq = imported_parquet(f"{path} is a Parquet file")
    import pyarrow as pa

    try:
        with pq.ParquetFile(path) as file:
            names = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            read = file.read(columns=[*dict.fromkeys(names)])
        columns = [[cell or "" for cell in column.cast(pa.string()).to_pylist()] for column in read.columns]
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path} is a damaged Parquet file: {str(error).splitlines()[0]}") from None
    table = Table(path, [name.strip() for name in read.column_names])
    check_header(table, needed)
    table.rows.extend(map(list, zip(*columns, strict=True)))
    table.numbers.extend(range(1, len(table.rows) + 1))
    table.faults.update({at: "a NUL byte" for at, cells in enumerate(table.rows) if "\0" in "".join(cells)})
    return table


def imported_parquet(why: str) -> Any:
    """`pyarrow.parquet`; UserError, which begins with `why`, where it is not installed."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{why}, for which pyarrow is needed: pip install 'legradnet[archive]'.") from None
    return pq
