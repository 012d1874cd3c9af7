"""Reads the rows of a text file, each cell as text: CSV and its relatives, and columns separated by blanks."""

import csv
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from faceattr.data.file_kinds import kind_of_file
from faceattr.errors import FaceattrError
from faceattr.files import original

log = logging.getLogger(__name__)

SEPARATORS = ",;\t|"
BLANK = " "
"""The separator of a file whose columns are separated by one or more blanks or tabs, as `identity_CelebA.txt` has them."""


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
        raise FaceattrError(
            f"{path} is not a readable table: it is {kind_of_file(path) or 'no text'}. Tables are text, .xlsx, .parquet or .jsonl."
        )
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        log.info("%s is not UTF-8: read as latin-1", path)
        return raw.decode("latin-1")


def text_records(path: Path) -> tuple[str, Iterator[Record]]:
    """The separator, and an iterator of the rows. A first line such as `sep=;` names the separator."""
    lines = io.StringIO(decoded(path), newline="")
    skipped, separator = 0, ""
    while line := lines.readline():
        if declared := re.fullmatch(r'"?sep=(.)"?\s*', line.replace("\\t", "\t"), re.IGNORECASE):
            separator = declared[1]
        elif line.strip():
            break
        skipped += 1
    second = next((text for text in lines if text.strip()), "")
    separator = separator or _separator(line, second)
    lines.seek(0)
    for _ in range(skipped):
        lines.readline()
    return separator, _parsed(path, lines, separator, skipped)


def _separator(first: str, second: str) -> str:
    """The separator of a file with these first two rows: the commonest in the first one; a blank where there is none, and blanks
    cut both rows into as many cells, or the second one into one more, which is its number (R writes such files)."""
    first, second = (re.sub(r'"[^"]*"', '"', line) for line in (first, second))
    best = max(SEPARATORS, key=first.count)
    if best in first.strip(" \r\n"):
        return best
    above, below = first.split(), second.split()
    numbered = len(below) == len(above) + 1 > 2 and re.fullmatch(r'"|\d+', below[0])
    return BLANK if len(above) == len(below) > 1 or numbered else best


def _parsed(path: Path, lines: io.StringIO, separator: str, skipped: int) -> Iterator[Record]:
    rows = (line.replace("\t", BLANK).strip() + "\n" for line in lines) if separator == BLANK else lines
    reader = csv.reader(rows, delimiter=separator, skipinitialspace=True, strict=True)
    begin = 0
    try:
        for cells in reader:
            yield Record(begin + skipped + 1, reader.line_num + skipped, [original(cell.strip()) for cell in cells])
            begin = reader.line_num
    except csv.Error as error:
        reason = str(error)
        if "unexpected end of data" in reason or "expected after" in reason:
            reason = "a quote without its partner, or text beside a quoted cell"
        elif "field larger" in reason:
            reason = "a cell of more than 131,072 characters; is a quote missing?"
        raise FaceattrError(f"{path} is not a readable table: line {begin + skipped + 1}: {reason}.") from error
