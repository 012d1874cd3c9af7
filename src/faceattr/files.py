"""How files are written: beside the target and then renamed, or by whole rows, so that a reader never sees half of one."""

import csv
import functools
import hashlib
import io
import json
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


REPLACE_TRIES = 100
"""0.1 s each: enough to read a large checkpoint."""


def cache_folder() -> Path:
    """What lasts between runs lies below it."""
    return Path(os.environ.get("FACEATTR_CACHE") or "~/.cache/faceattr").expanduser()


@contextmanager
def named_in_errors(file: Path, part: Path | None = None) -> Iterator[None]:
    """An OSError of this block names `file` where it names nothing, as that of a full disk, or `part`, which stands for it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, part and str(part)):
            error.filename = str(file)
        raise


@contextmanager
def write_atomically(file: Path) -> Iterator[IO[bytes]]:
    """A stream for the content of `file`, which gets it when the block ends; after an error the previous file is whole."""
    part = file.with_name(f".{file.name}.part")
    with named_in_errors(file, part):
        try:
            with part.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            _replace(part, file)
        finally:
            part.unlink(missing_ok=True)


def _replace(part: Path, file: Path) -> None:
    """Windows replaces no file that another process has open: this waits until it is read."""
    for _ in range(REPLACE_TRIES if sys.platform == "win32" else 0):
        try:
            part.replace(file)
            return
        except PermissionError:
            time.sleep(0.1)
    part.replace(file)


@contextmanager
def folder_atomically(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, which gets that name when the block ends; after an error nothing is left.

    Raises FileExistsError where `folder` exists and is not empty.
    """
    part = folder.with_name(f".{folder.name}.draft")  # not .part: those are files (remove_parts)
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    with named_in_errors(folder, part):
        try:
            part.mkdir(parents=True)
            yield part
            if folder.is_dir():
                folder.rmdir()  # Windows cannot replace a folder, even an empty one
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def sha256_of(file: Path) -> str:
    """Of the file's content, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_parts(folder: Path) -> None:
    """Removes what a process that was killed left half-written in `folder`. Call it only where no other process writes."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def write_array(file: Path, array: "np.ndarray") -> None:
    """As .npy. In memory first: np.save into a file does not notice a full disk."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, array)
    with write_atomically(file) as stream:
        stream.write(content.getbuffer())


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """As UTF-8, two spaces deep."""
    with write_atomically(file) as stream:
        stream.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(file: Path) -> dict[str, Any]:
    """What `write_json` wrote; empty where there is no such file, or it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_csv(file: Path, table: "pd.DataFrame") -> None:
    """Without the index. A text that a spreadsheet would compute gets an apostrophe, as `=1+1` → `'=1+1`.

    `read_csv` and every table that is read take it away again (`original`).
    """
    texts = {i: column.map(harmless) for i, (_, column) in enumerate(table.items()) if column.dtype.kind not in "iufbM"}
    safe = table.copy(deep=False)
    for position, column in texts.items():
        safe.isetitem(position, column.to_numpy())
    safe.columns = safe.columns.map(harmless)
    cells = (cell for column in texts.values() for cell in column)
    with write_atomically(file) as stream:
        safe.to_csv(stream, index=False, quoting=_quoting([*safe.columns, *cells]))


def _quoting(cells: Iterable[Any]) -> Literal[0, 2]:
    """Python writes a carriage return without quotes, and a spreadsheet begins a new row there. So quote all texts around it."""
    carriage_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
    return csv.QUOTE_NONNUMERIC if carriage_return else csv.QUOTE_MINIMAL


def read_csv(file: Path, *, texts: Sequence[str] = ()) -> "pd.DataFrame":
    """What `write_csv` wrote. The columns `texts` are text whatever they hold, such as `001` or `NA`; the others are as pandas
    reads them. Raises OSError or ValueError: no such file, or a damaged one."""
    import pandas as pd

    table = pd.read_csv(file, dtype=dict.fromkeys(texts, str), na_values={}, keep_default_na=False)
    table.columns = table.columns.map(original)
    for position, column in enumerate(table.columns):
        if table.dtypes.iloc[position].kind not in "iufb":
            text = table.iloc[:, position].map(original)
            numbers = pd.to_numeric(text.mask(text == ""), errors="coerce")
            number = column not in texts and (numbers.notna() == (text != "")).all()
            table.isetitem(position, (numbers if number else text).to_numpy())
    return table


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that Excel, LibreOffice or Google Sheets compute."""
MARKED = re.compile(r"'+[=+\-@\t\r]")


def harmless(cell: Any) -> Any:
    """The cell, with an apostrophe before a text that begins a formula; numbers stay. `original` takes it away again.

    A text that looks as if it had such an apostrophe already gets one more, so that nothing is lost.
    """
    if not isinstance(cell, str) or not (cell.startswith(FORMULA) or MARKED.match(cell)):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def original(cell: str) -> str:
    """The text of which `harmless` made this cell."""
    return cell[1:] if MARKED.match(cell) else cell


class CsvRows:
    """A CSV file that grows by whole rows, and is valid whenever the program ends. A file of that name is replaced."""

    def __init__(self, file: Path, columns: Sequence[str]) -> None:
        self._file, self._stream = file, file.open("wb", buffering=0)
        self._size = 0
        self.write([columns])

    def close(self) -> None:
        """After it, nothing can be written."""
        self._stream.close()

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        """Appends the rows, formulas as `write_csv` has them; None is an empty cell. Raises OSError, with none of them written,
        where the disk is full."""
        text = io.StringIO()
        for row in rows:
            cells = [harmless(cell) for cell in row]
            csv.writer(text, lineterminator="\n", quoting=_quoting(cells)).writerow(cells)
        content = text.getvalue().encode("utf-8", "surrogateescape")  # file names are bytes, and stay those
        try:
            with named_in_errors(self._file):
                left = memoryview(content)
                while left:
                    left = left[self._stream.write(left) :]
        except BaseException:
            self._stream.truncate(self._size)
            raise
        self._size += len(content)


def damaged_part(file: Path) -> str | None:
    """The first part of a zip file, such as torch writes, whose bytes do not have the checksum (CRC-32) stored with them.

    None where all have, and for a file of another kind. torch.load does not look. Reads the whole file, once in a process.
    """
    stat = file.stat()
    return _damaged_part(file, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=64)
def _damaged_part(file: Path, size: int, mtime_ns: int, inode: int) -> str | None:
    if not zipfile.is_zipfile(file):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]
            larger = sum(part.file_size for part in parts) > size
            if packed or larger:  # torch compresses nothing: this may be a zip bomb
                return (packed or ["its list of parts"])[0]
            return archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError):
        return "its list of parts"
