"""Reads a table from a text file, every cell as text. Nothing is lost silently; what is ambiguous is refused with its line."""

import csv
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from faceattr.data.image_checks import kind_of_file
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)

SEPARATORS = ",;\t|"
LONGEST_CELL = 100_000
"""Characters. A longer cell is a mistake, mostly a quote that is not closed."""
LONGEST_NAME = 200
"""Characters. A longer name of a column is a mistake."""
TOTALS = frozenset({"total", "totals", "sum", "subtotal", "grand total", "gesamt", "summe", "count", "average", "mean"})


class Record(NamedTuple):
    """A row of the file, and the numbers of its first and last line."""

    first: int
    last: int
    cells: list[str]


def decoded(path: Path) -> str:
    """The contents of a text file in UTF-8, in UTF-16 with a byte order mark, or else in latin-1.

    Raises FaceattrError: a file that is no text.
    """
    raw = path.read_bytes()
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not wide and (b"\0" in raw or (raw and kind_of_file(path))):
        raise FaceattrError(f"{path} is not a readable CSV: it is {kind_of_file(path) or 'no text'}.")
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        log.info("%s is not UTF-8: read as latin-1", path)
        return raw.decode("latin-1")


def read(path: Path) -> pd.DataFrame:
    """The table with all cells as stripped text, so that names such as "001" keep their zeros.

    The index is the number of each row's line. The separator is a comma, semicolon, tab or vertical bar. Left out, with a
    message: empty rows, repeated headers, a first column without a name that numbers the rows. A column without a name, or
    with the name of an earlier one, gets a new name: `column 3`, `age (2)`.

    Raises FaceattrError with the line: more cells than columns, unless they are empty; a quote that is not closed; another
    separator; a row of totals; a cell of more than `LONGEST_CELL` characters.
    """
    if not path.is_file():
        tables = ", ".join(sorted(file.name for file in path.parent.glob("*.csv")))
        raise FaceattrError(f"data.file does not exist: {path}. Tables there: {tables or 'none'}.")
    header, separator, records = _records(path, decoded(path))
    if long := next((name for name in header if len(name) > LONGEST_NAME), ""):
        raise FaceattrError(f"{path} is not a readable CSV: a column name of {len(long):,} characters: {long[:40]!r}…")
    rows, lines, repeated = [], [], 0
    for record in records:
        if record.cells[: len(header)] == header:
            repeated += 1
        elif any(record.cells):
            _check_record(path, record, header, separator)
            rows.append((record.cells + [""] * len(header))[: len(header)])
            lines.append(record.first)
    if repeated:
        log.warning("%s: the header comes again in %d rows: left out", path, repeated)
    index = pd.Index(lines, name="line", dtype=int)
    return _with_distinct_names(path, pd.DataFrame(rows, index=index, columns=range(len(header)), dtype=object), header)


def _records(path: Path, text: str) -> tuple[list[str], str, Iterator[Record]]:
    """The header's cells, the separator, and an iterator of the rows. A first line such as `sep=;` names the separator."""
    lines = io.StringIO(text, newline="")
    skipped, separator = 0, ""
    while line := lines.readline():
        if declared := re.fullmatch(r'"?sep=(.)"?\s*', line.replace("\\t", "\t"), re.IGNORECASE):
            separator = declared[1]
        elif line.strip():
            break
        skipped += 1
    if not line:
        raise FaceattrError(f"{path} is not a readable CSV: it has no header.")
    unquoted = re.sub(r'"[^"]*"', "", line)
    separator = separator or max(SEPARATORS, key=unquoted.count)
    lines.seek(0)
    for _ in range(skipped):
        lines.readline()
    records = _parsed(path, lines, separator, skipped)
    return next(records).cells, separator, records


def _parsed(path: Path, lines: io.StringIO, separator: str, skipped: int) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    begin = 0
    try:
        for cells in reader:
            yield Record(
                begin + skipped + 1, reader.line_num + skipped, [_without_apostrophe(cell.strip()) for cell in cells]
            )
            begin = reader.line_num
    except csv.Error as error:
        reason = str(error)
        if "unexpected end of data" in reason or "expected after" in reason:
            reason = "a quote without its partner, or text beside a quoted cell"
        elif "field larger" in reason:
            reason = "a cell of more than 131,072 characters; is a quote missing?"
        raise FaceattrError(f"{path} is not a readable CSV: line {begin + skipped + 1}: {reason}.") from error


def _without_apostrophe(cell: str) -> str:
    """The cell without the apostrophe that `write_csv` puts before formulas."""
    return cell[1:] if re.match(r"'[=+\-@]", cell) else cell


def _check_record(path: Path, record: Record, header: list[str], separator: str) -> None:
    """Raises FaceattrError if the row does not fit the header."""
    cells, columns = record.cells, len(header)
    problem = ""
    if any(cells[columns:]):
        problem = (
            f"{len(cells)} cells, but the header has {columns}. Put cells that contain {separator!r} in double quotes; "
            "a decimal comma needs them too."
        )
    elif len(cells) < columns and (others := [s for s in SEPARATORS if s != separator and any(s in c for c in cells)]):
        problem = (
            f"{len(cells)} cells, but the header has {columns}: separated by {others[0]!r} instead of {separator!r}?"
        )
    elif long := [name for name, cell in zip(header, cells, strict=False) if len(cell) > LONGEST_CELL]:
        problem = f"a cell of more than {LONGEST_CELL:,} characters in the column {long[0]!r}."
    elif record.last > record.first and columns > 1 and (inside := _rows_in_a_cell(cells, separator, columns)):
        problem = f"a cell in quotes holds {inside} lines that look like rows: is a quote missing?"
    elif next(filter(None, cells), "").rstrip(":").lower() in TOTALS:
        problem = f"this looks like a row of totals ({separator.join(cells)[:60]}). Remove it."
    if problem:
        raise FaceattrError(f"{path} is not a readable CSV: line {record.first}: {problem}")


def _rows_in_a_cell(cells: list[str], separator: str, columns: int) -> int:
    """Number of lines within one cell that have as many separators as a row."""
    lines = [line for cell in cells if "\n" in cell for line in cell.splitlines()]
    return sum(line.count(separator) >= columns - 1 for line in lines)


def _with_distinct_names(path: Path, frame: pd.DataFrame, header: list[str]) -> pd.DataFrame:
    """The table with distinct column names. `attrs["repeated"]` lists the names that several columns have in the file."""
    first = frame[0] if len(header) else pd.Series(dtype=object)
    if len(header) > 1 and not header[0] and any(first.tolist() == _row_numbers(len(frame), n) for n in (0, 1)):
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
        log.warning("%s: columns without a name of their own are called %s", path, ", ".join(renamed[:10]))
    frame.columns = pd.Index(names, dtype=object)
    frame.attrs["repeated"] = sorted({name for name in header if name and header.count(name) > 1})
    return frame


def _row_numbers(rows: int, start: int) -> list[str]:
    """`start`, `start + 1`, … as text, for so many rows."""
    return [str(number) for number in range(start, start + rows)] if rows else [""]


def cell_errors(path: Path, column: pd.Series, invalid: pd.Series, expected: str) -> FaceattrError:
    """The error for the cells of `column` where `invalid` is true: how many, file, column, and up to five lines and values."""
    cells = column[invalid]
    shown = "; ".join(f"{column.index.name} {line}: {str(cell)[:60]!r}" for line, cell in cells.head(5).items())
    more = "; …" if len(cells) > 5 else ""
    return FaceattrError(f"{path}: {len(cells):,} cells of column {column.name!r} are not {expected}: {shown}{more}")
