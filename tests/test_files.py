"""What is written for others to open."""

import contextlib
import errno
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from faceattr.commands.annotated_and_crops import save
from faceattr.commands.error_message import error_message
from faceattr.data.sources.table_file import read
from faceattr.files import (
    CsvRows,
    folder_atomically,
    harmless,
    original,
    read_csv,
    read_json,
    write_array,
    write_atomically,
    write_csv,
    write_json,
)


def test_write_csv_makes_formulas_harmless_and_read_takes_them_back(tmp_path):
    table = pd.DataFrame(
        {"path": ["=cmd|' /C calc'!A0", "@x.jpg", "a.jpg"], "n": [-1, 2, 3], "text": ["-5", "+1e3", "-x"]}
    )
    table["=col"] = pd.Categorical(["+a", "b", "b"])
    write_csv(tmp_path / "x.csv", table)
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0] == "path,n,text,'=col"
    assert lines[1:] == ["'=cmd|' /C calc'!A0,-1,-5,'+a", "'@x.jpg,2,+1e3,b", "a.jpg,3,'-x,b"]
    assert read(tmp_path / "x.csv")["path"].tolist() == table["path"].tolist()
    assert table["path"][1] == "@x.jpg", "the table itself is as it was"


NASTY = [
    "=1",
    "+x",
    "-x",
    "@x",
    "\tx",
    "\rx",
    "'=1",
    "''=1",
    "'tis",
    "-5",
    "+1e3",
    "'-5",
    "",
    "'",
    "a",
    "-",
    "NA",
    "001",
    "-inf",
]


@pytest.mark.parametrize("text", NASTY)
def test_original_is_the_inverse_of_harmless(text):
    cell = harmless(text)
    assert original(cell) == text
    assert not cell.startswith(("=", "@", "\t", "\r")) and (not cell.startswith(("+", "-")) or float(cell))


def test_what_write_csv_writes_is_read_back_by_read_csv_and_by_the_reader_of_tables(tmp_path):
    table = pd.DataFrame({"text": NASTY, "n": range(len(NASTY)), "=x": [0.5] * len(NASTY)})
    write_csv(tmp_path / "x.csv", table)
    again = read_csv(tmp_path / "x.csv", texts=["text"])
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    assert read(tmp_path / "x.csv")["text"].tolist() == NASTY
    rows = CsvRows(tmp_path / "y.csv", ["text"])
    rows.write([[text] for text in NASTY])
    rows.close()
    assert read_csv(tmp_path / "y.csv", texts=["text"])["text"].tolist() == NASTY


def test_csv_rows_is_whole_after_each_write_and_holds_no_formulas(tmp_path):
    rows = CsvRows(tmp_path / "x.csv", ["path", "value"])
    rows.write([["=1+1", np.float32(0.1)], ["b\udcff.jpg", None]])
    expected = b"path,value\n'=1+1,0.1\nb\xff.jpg,\n"
    assert (tmp_path / "x.csv").read_bytes() == expected
    with pytest.raises(ZeroDivisionError):
        rows.write([1 / 0] for _ in range(1))
    rows.close()
    assert (tmp_path / "x.csv").read_bytes() == expected


@contextmanager
def full_disk():
    """Files cannot grow past 10 bytes: writing fails as on a full disk, with an error that names no file."""
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_csv_rows_takes_back_what_a_full_disk_cuts(tmp_path):
    rows = CsvRows(tmp_path / "x.csv", ["path"])
    with full_disk(), pytest.raises(OSError, match="too large") as error:
        rows.write([["0123456789"]])
    assert (tmp_path / "x.csv").read_bytes() == b"path\n"
    assert error_message(error.value, "train", []) == f"{tmp_path}/x.csv: File too large"


@pytest.mark.parametrize(
    "write",
    [
        lambda file: write_json(file, {"a": 1}),
        lambda file: write_array(file, np.zeros(9)),
        lambda file: write_csv(file, pd.DataFrame({"a_column": ["text"]})),
        lambda file: save(Image.new("RGB", (9, 9)), file),
    ],
)
def test_an_error_of_a_full_disk_names_the_file(tmp_path, write):
    file = tmp_path / "x.png"
    with full_disk(), pytest.raises(OSError, match="too large") as error:
        write(file)
    assert error_message(error.value, "train", []) == f"{file}: File too large"
    assert [path.name for path in tmp_path.iterdir()] in ([], ["x.png"])


def test_an_error_inside_a_folder_that_is_made_names_it(tmp_path):
    with pytest.raises(OSError, match="No space") as error, folder_atomically(tmp_path / "export"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "export") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("tries", [3, 200])
def test_write_atomically_waits_for_a_reader_on_windows(tmp_path, monkeypatch, tries):
    """It replaces no file that another process has open."""
    replace, waits = Path.replace, list[float]()

    def read_by_another(part: Path, file: Path) -> Path:
        if len(waits) < tries:
            raise PermissionError(errno.EACCES, "Access is denied", str(part))
        return replace(part, file)

    write_json(tmp_path / "x.json", {"a": 1})
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(Path, "replace", read_by_another)
    monkeypatch.setattr(time, "sleep", waits.append)
    with contextlib.nullcontext() if tries == 3 else pytest.raises(PermissionError, match=r"denied: '.*x\.json'"):
        write_json(tmp_path / "x.json", {"a": 2})
    assert read_json(tmp_path / "x.json") == {"a": 2 if tries == 3 else 1} and len(waits) == min(tries, 100)
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_write_atomically_names_the_file_and_not_its_part(tmp_path):
    (tmp_path / "a").write_text("")
    for error in (errno.ENOTDIR, errno.EISDIR):
        file = tmp_path / ("a/x" if error == errno.ENOTDIR else "b")
        (tmp_path / "b").mkdir(exist_ok=True)
        with pytest.raises(OSError, match=os.strerror(error)) as raised:
            write_json(file, {})
        assert (raised.value.errno, raised.value.filename) == (error, str(file))
    with pytest.raises(OSError, match="other") as raised, write_atomically(tmp_path / "c"):
        raise OSError(errno.ENOENT, "other", "other.jpg")
    assert raised.value.filename == "other.jpg", "a file that was read meanwhile"
