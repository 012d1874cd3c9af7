"""Reads the rows of tables that are no text with separators: Excel, Parquet, JSON. Each cell becomes text; the header is first."""

import json
import logging
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from faceattr.data.sources.text_table import Record, decoded
from faceattr.errors import FaceattrError
from faceattr.message_text import listed

log = logging.getLogger(__name__)

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
EXCEL_SUFFIXES = (".xlsx", ".xlsm")
MOST_CELLS, MOST_BYTES = 200_000_000, 2_000_000_000
"""Of a compressed table when unpacked: a few kilobytes can hold gigabytes."""


def excel_records(path: Path) -> Iterator[Record]:
    """The rows of the first sheet that holds any, formulas as the values that Excel stored. Raises FaceattrError: damaged."""
    with _readable(path, "an Excel workbook", "openpyxl"):
        import openpyxl

        with zipfile.ZipFile(path) as archive:
            _check_size(path, sum(part.file_size for part in archive.infolist()), 0)
        with path.open("rb") as stream:  # openpyxl refuses names with another suffix
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            for sheet in book.worksheets:
                records = [Record(number, number, cells) for number, cells in enumerate(_excel_rows(path, sheet), 1)]
                if filled := [record for record in records if any(record.cells)]:
                    if len(book.worksheets) > 1:
                        log.info("%s: read is the sheet %r, one of %d", path, sheet.title, len(book.worksheets))
                    return iter(filled)
    return iter(())


def _excel_rows(path: Path, sheet: Any) -> Iterator[list[str]]:
    count = 0
    for row in sheet.iter_rows(values_only=True):
        count += len(row)
        _check_size(path, 0, count)
        yield [_text(cell) for cell in row]


def parquet_records(path: Path) -> Iterator[Record]:
    """The rows of a Parquet table. Columns of lists, structures or bytes are left out, with a message. Raises FaceattrError:
    damaged."""
    with _readable(path, "a Parquet table", "pyarrow"):
        from pyarrow import parquet, types

        file = parquet.ParquetFile(path)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        _check_size(path, sum(g.total_byte_size for g in groups), file.metadata.num_rows * file.metadata.num_columns)
        tests = (types.is_nested, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
        left_out = [field.name for field in file.schema_arrow if any(test(field.type) for test in tests)]
        if left_out:
            log.warning("%s: columns that hold no plain values are left out: %s", path, listed(left_out))
        names = [name for name in file.schema_arrow.names if name not in left_out]
        columns = [column.to_pylist() for column in file.read(names).columns]
    header = ["" if name == "__index_level_0__" else name.strip() for name in names]  # pandas' index
    return _numbered([header, *([_text(cell) for cell in row] for row in zip(*columns, strict=True))])


def json_records(path: Path) -> Iterator[Record]:
    """The rows of a file with a JSON object a line, or with one list of objects. Raises FaceattrError: the line that is none."""
    text = decoded(path)
    if text.lstrip().startswith("["):
        records = [(number, item) for number, item in enumerate(_parsed(path, 1, text), 1)]
        unit = "item"
    else:
        records = [(n, _parsed(path, n, line)) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
        unit = "line"
    names: dict[str, None] = {}
    for number, item in records:
        if not isinstance(item, dict):
            raise FaceattrError(
                f"{path} is not a readable table: {unit} {number}: {str(item)[:40]} is no object such as "
                '{"file": "1.jpg", "gender": "male"}.'
            )
        names |= dict.fromkeys(item)
    rows = ([_text(item.get(name)) for name in names] for _, item in records)
    numbers = [number for number, _ in records]
    return iter(
        [Record(0, 0, [name.strip() for name in names])][: len(records)]
        + [Record(number, number, cells) for number, cells in zip(numbers, rows, strict=True)]
    )


def _parsed(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError) as error:
        position = line + getattr(error, "lineno", 1) - 1
        reason = getattr(error, "msg", "nested too deep")
        raise FaceattrError(
            f"{path} is not a readable table: line {position}: no JSON ({reason}). Expected: an object a line, or one list of "
            "objects."
        ) from error


def _numbered(rows: Sequence[list[str]]) -> Iterator[Record]:
    return (Record(number, number, cells) for number, cells in enumerate(rows))


def _text(cell: Any) -> str:
    """A cell as a text file would have it: nothing for None, a date without the time that Excel adds."""
    if cell is None:
        return ""
    if isinstance(cell, datetime) and not (cell.hour or cell.minute or cell.second):
        return cell.date().isoformat()
    if isinstance(cell, dict | list):
        return json.dumps(cell, ensure_ascii=False)
    return str(cell).strip()


def _check_size(path: Path, size: int, cells: int) -> None:
    if size > MOST_BYTES or cells > MOST_CELLS:
        raise FaceattrError(
            f"{path}: unpacked it has {size / 1e9:.1f} GB or {cells:,} cells; at most {MOST_BYTES / 1e9:.0f} GB and "
            f"{MOST_CELLS:,} cells are read."
        )


@contextmanager
def _readable(path: Path, kind: str, package: str) -> Iterator[None]:
    """Says in one line that a package is missing, or that the file is damaged."""
    try:
        yield
    except FaceattrError:
        raise
    except ImportError as error:
        raise FaceattrError(
            f"{path} is {kind}: reading it needs the package {package}: pip install {package}. Or save it as CSV."
        ) from error
    except Exception as error:  # both packages raise many kinds
        raise FaceattrError(f"{path} is not a readable table: {kind}, but damaged: {str(error)[:200]}") from error
