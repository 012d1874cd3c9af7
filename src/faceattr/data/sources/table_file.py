"""Reads a table of any kind that people have, every cell as text: CSV and other text, Excel, Parquet, JSON.

Nothing is lost silently; what is ambiguous is refused with its line.
"""

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pandas as pd

from faceattr.data.file_kinds import EXCEL, PARQUET, kind_of_file
from faceattr.data.sources import excel_parquet_json
from faceattr.data.sources.text_table import BLANK, SEPARATORS, Record, text_records
from faceattr.errors import FaceattrError
from faceattr.message_text import counted, did_you_mean, listed

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".parquet", ".jsonl", ".ndjson", ".json")
"""Of the files that `read` reads. What a file is, its content says; the suffix decides about JSON only."""
LONGEST_CELL = 100_000
"""Characters. A longer cell is a mistake, mostly a quote that is not closed."""
LONGEST_NAME = 200
"""Characters. A longer name of a column is a mistake."""
TOTALS = frozenset({"total", "totals", "sum", "subtotal", "grand total", "gesamt", "summe", "count", "average", "mean"})


def read(path: Path, *, header: bool = True) -> pd.DataFrame:
    """The table with all cells as stripped text, so that names such as "001" keep their zeros.

    The index is the number of each row's line (its name is `line`, or `row` where a file has no lines). In text, the separator
    is a comma, semicolon, tab, vertical bar, or blanks. Left out, with a message: empty rows, repeated headers, a first column
    without a name that numbers the rows. A column without a name, or with the name of an earlier one, gets a new name:
    `column 3`, `age (2)`. `header=False`: the first row is one of the others, and the columns are called 0, 1, …

    Raises FaceattrError with the line: more cells than columns, unless they are empty; a quote that is not closed; another
    separator; a row of totals; a cell of more than `LONGEST_CELL` characters; a file of another kind.
    """
    if not path.is_file():
        files = path.parent.iterdir() if path.parent.is_dir() else ()
        names = sorted(file.name for file in files if file.suffix.lower() in SUFFIXES)
        raise FaceattrError(
            f"data.file does not exist: {path}.{did_you_mean(path.name, names)} Tables there: {listed(names, 20) or 'none'}."
        )
    unit, separator, records = _records(path, header=header)
    first = next(records, None)
    if first is None:
        raise FaceattrError(f"{path} is not a readable table: it has no header.")
    names = first.cells if header else [str(position) for position in range(len(first.cells))]
    if long := next((name for name in names if len(name) > LONGEST_NAME), ""):
        raise FaceattrError(
            f"{path} is not a readable table: a column name of {len(long):,} characters: {long[:40]!r}…"
        )
    rows = [record for record in chain([] if header else [first], records) if any(record.cells)]
    if header:
        rows = _without_headers(path, rows, names)
    if _numbered(rows, names):
        names = ["", *names]
    for record in rows:
        _check_record(path, unit, record, names, separator)
    cells = [(record.cells + [""] * len(names))[: len(names)] for record in rows]
    index = pd.Index([record.first for record in rows], name=unit, dtype=int)
    return _with_distinct_names(path, pd.DataFrame(cells, index=index, columns=range(len(names)), dtype=object), names)


def _records(path: Path, *, header: bool) -> tuple[str, str, Iterator[Record]]:
    """What a row is called, the separator ("" where cells are not separated by text), and the rows, that of the header first."""
    kind = kind_of_file(path)
    if kind == EXCEL:
        return "row", "", excel_parquet_json.excel_records(path)
    if not kind and path.suffix.lower() in excel_parquet_json.EXCEL_SUFFIXES and path.read_bytes()[:2] == b"PK":
        raise FaceattrError(f"{path} is not a readable table: {EXCEL}, but damaged.")  # else it passes for text
    if kind != PARQUET and path.suffix.lower() not in excel_parquet_json.JSON_SUFFIXES:
        return ("line", *text_records(path))
    if not header:
        raise FaceattrError(f"data.header=false: {path} names its columns. Leave it out.")
    if kind == PARQUET:
        return "row", "", excel_parquet_json.parquet_records(path)
    return "line", "", excel_parquet_json.json_records(path)


def _without_headers(path: Path, rows: list[Record], names: list[str]) -> list[Record]:
    """The rows without those where the header comes again."""
    others = [record for record in rows if record.cells[: len(names)] != names]
    if len(others) < len(rows):
        log.warning("%s: the header comes again: left out %s", path, counted(len(rows) - len(others), "row"))
    return others


def _numbered(rows: list[Record], names: list[str]) -> bool:
    """Whether each row has one cell more than the header, its number first: R writes tables so."""
    return (
        bool(rows)
        and all(len(record.cells) == len(names) + 1 for record in rows)
        and any(record.cells[-1] for record in rows)
        and any([record.cells[0] for record in rows] == _row_numbers(len(rows), n) for n in (0, 1))
    )


def _check_record(path: Path, unit: str, record: Record, header: list[str], separator: str) -> None:
    """Raises FaceattrError if the row does not fit the header."""
    cells, columns = record.cells, len(header)
    cell_count = counted(len(cells), "cell")
    problem = ""
    if any(cells[columns:]):
        advice = "names with blanks" if separator == BLANK else f"cells that contain {separator!r}"
        decimal = "; a decimal comma needs them too" if separator == "," else ""
        problem = f"{cell_count}, but the header has {columns}. Put {advice} in double quotes{decimal}."
    elif separator and len(cells) < columns and (others := _other_separators(cells, separator)):
        problem = f"{cell_count}, but the header has {columns}: separated by {others[0]!r} instead of {separator!r}?"
    elif long := [name for name, cell in zip(header, cells, strict=False) if len(cell) > LONGEST_CELL]:
        problem = f"a cell of more than {LONGEST_CELL:,} characters in the column {long[0]!r}."
    elif (
        separator
        and record.last > record.first
        and columns > 1
        and (inside := _rows_in_a_cell(cells, separator, columns))
    ):
        problem = f"a cell in quotes holds {inside} lines that look like rows: is a quote missing?"
    elif next(filter(None, cells), "").rstrip(":").lower() in TOTALS:
        problem = f"this looks like a row of totals ({(separator or BLANK).join(cells)[:60]}). Remove it."
    if problem:
        raise FaceattrError(f"{path} is not a readable table: {unit} {record.first}: {problem}")


def _other_separators(cells: list[str], separator: str) -> list[str]:
    return [other for other in SEPARATORS if other != separator and any(other in cell for cell in cells)]


def _rows_in_a_cell(cells: list[str], separator: str, columns: int) -> int:
    """Number of lines within one cell that have as many separators as a row."""
    lines = [line for cell in cells if "\n" in cell for line in cell.splitlines()]
    return sum(line.count(separator) >= columns - 1 for line in lines)


def _with_distinct_names(path: Path, frame: pd.DataFrame, header: list[str]) -> pd.DataFrame:
    """The table with distinct column names. `attrs["repeated"]` lists the names that several columns have in the file."""
    first = frame[0] if len(header) else pd.Series(dtype=object)
    unnamed = len(header) > 1 and re.fullmatch(
        r"|Unnamed: \d+", header[0]
    )  # pandas gives a column without a name this one
    if unnamed and any(first.tolist() == _row_numbers(len(frame), n) for n in (0, 1)):
        log.info("%s: the first column has no name and numbers the rows: left out", path)
        frame, header = frame.iloc[:, 1:], header[1:]
    empty = [not name and not (frame.iloc[:, i] != "").any() for i, name in enumerate(header)]
    frame = frame.iloc[:, [i for i, is_empty in enumerate(empty) if not is_empty]]
    header = [name for name, is_empty in zip(header, empty, strict=True) if not is_empty]
    names: list[str] = []
    for position, name in enumerate(header, 1):
        base, n = name or f"column {position}", 1
        while (candidate := base if n == 1 else f"{base} ({n})") in names:
            n += 1
        names.append(candidate)
    if renamed := [new for old, new in zip(header, names, strict=True) if old != new]:
        log.warning("%s: columns without a name of their own are called %s", path, listed(renamed))
    frame.columns = pd.Index(names, dtype=object)
    frame.attrs["repeated"] = sorted({name for name in header if name and header.count(name) > 1})
    return frame


def _row_numbers(rows: int, start: int) -> list[str]:
    """`start`, `start + 1`, … as text, for so many rows."""
    return [str(number) for number in range(start, start + rows)] if rows else [""]


def cell_errors(path: Path, column: pd.Series, invalid: pd.Series, expected: str) -> FaceattrError:
    """The error for the cells of `column` where `invalid` is true: how many, file, column, and up to five lines and values."""
    cells = column[invalid]
    examples = (f"{column.index.name} {line}: {str(cell)[:60]!r}" for line, cell in cells.head(6).items())
    count = f"{counted(len(cells), 'cell')} of column {column.name!r}"
    return FaceattrError(f"{path}: {count}, not {expected}: {listed(examples, 5, separator='; ')}")
