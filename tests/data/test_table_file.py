"""Tables as people have them: read right, or refused with the line."""

import json
import logging
import re
import sys
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from faceattr.data.sources import excel_parquet_json
from faceattr.data.sources.table_file import read
from faceattr.errors import FaceattrError

HEADER = "Filename,Age,Gender\n"


def table(tmp_path: Path, text: str):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    return read(tmp_path / "x.csv")


# fmt: off
REFUSED = {
    "an unquoted decimal comma": (HEADER + "1.jpg,30,0\n2.jpg,30,5,1\n", "line 3: 4 cells, but the header has 3"),
    "an unbalanced quote": (HEADER + '1.jpg,30,0\n"2.jpg,31,1\n3.jpg,32,0\n', "line 3: a quote without its partner"),
    "a quote that another closes": (HEADER + '"1.jpg,30,0\n2.jpg,31",31,1\n', "line 2: a cell in quotes holds 1 lines that look"),
    "text behind a quote": (HEADER + '"1".jpg,30,0\n', "line 2: a quote without its partner, or text beside"),
    "another separator": (HEADER + "1.jpg,30,0\n2.jpg;31;1\n", "line 3: 1 cell, but the header has 3: separated by ';'"),
    "a row of totals": (HEADER + "1.jpg,30,0\nTotal,,200\n", "line 3: this looks like a row of totals (Total,,200)"),
    "a row of totals without name": (HEADER + "1.jpg,30,0\n,Total:,200\n", "line 3: this looks like a row of totals"),
    "a long cell": (HEADER + f"1.jpg,{'9' * 101_000},0\n", "line 2: a cell of more than 100,000 characters in the column 'Age'"),
    "a cell of a million characters": (HEADER + f"{'x' * 1_000_000},30,0\n", "line 2: a cell of more than 131,072 characters"),
    "a long name": (f"Filename,{'x' * 300}\n1.jpg,1\n", "a column name of 300 characters"),
    "a name with blanks": ("Filename Gender\n1.jpg 0\nmy photo.jpg 1\n", "line 3: 3 cells, but the header has 2. Put names with"),
    "nothing": ("", "it has no header"),
    "blank lines": ("\n\n", "it has no header"),
    "a page": ("<!DOCTYPE html><html></html>", "it is a web page"),
    "binary": ("a\0b", "it is no text"),
}
READ = {
    "plain": HEADER + "1.jpg,30,0\n2.jpg,31,1\n",
    "a declared separator": "sep=;\n" + HEADER.replace(",", ";") + "1.jpg;30;0\n2.jpg;31;1\n",
    "a declared tab": "sep=\\t\n" + HEADER.replace(",", "\t") + "1.jpg\t30\t0\n2.jpg\t31\t1\n",
    "quotes after a blank": "Filename, Age, Gender\n" + '1.jpg, "30", "0"\n2.jpg, "31", "1"\n',
    "a repeated header": HEADER + "1.jpg,30,0\n" + HEADER + "2.jpg,31,1\n",
    "empty rows and cells": "\n" + HEADER + "1.jpg,30,0,,\n,,\n\n2.jpg,31,1\n",
    "an index": ",Filename,Age,Gender\n0,1.jpg,30,0\n1,2.jpg,31,1\n",
    "blanks": "Filename Age  Gender\n1.jpg   30 0 \n 2.jpg\t31 1\n",
    "blanks and quotes": '"Filename" "Age" "Gender"\n"1.jpg" 30 0\n"2.jpg" 31 1\n',
    "row names of R": '"Filename" "Age" "Gender"\n"1" "1.jpg" 30 0\n"2" "2.jpg" 31 1\n',
    "row names of R with commas": '"Filename","Age","Gender"\n"1","1.jpg",30,0\n"2","2.jpg",31,1\n',
    "an index that pandas has read and written": "Unnamed: 0,Filename,Age,Gender\n0,1.jpg,30,0\n1,2.jpg,31,1\n",
    "an empty column": "Filename,Age,Gender,\n1.jpg,30,0,\n2.jpg,31,1,\n",
    "old line ends": HEADER.replace("\n", "\r") + "1.jpg,30,0\r2.jpg,31,1\r",
}
# fmt: on


@pytest.mark.parametrize("name", REFUSED)
def test_read_refuses_with_the_line(tmp_path, name):
    text, message = REFUSED[name]
    with pytest.raises(FaceattrError, match=re.escape(message)) as error:
        table(tmp_path, text)
    assert "is not a readable table" in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("name", READ)
def test_read_gives_the_same_table(tmp_path, name):
    frame = table(tmp_path, READ[name])
    assert frame.columns.tolist() == ["Filename", "Age", "Gender"]
    assert frame.to_numpy().tolist() == [["1.jpg", "30", "0"], ["2.jpg", "31", "1"]]


def test_read_keeps_lines_quotes_and_short_rows(tmp_path):
    frame = table(tmp_path, 'a;b\n"x; ""y""";1\n\n5" tall;2\n"two\nlines";3\nlast\n')
    assert frame["a"].tolist() == ['x; "y"', '5" tall', "two\nlines", "last"]
    assert frame["b"].tolist() == ["1", "2", "3", ""]
    assert frame.index.tolist() == [2, 4, 5, 7]


def test_read_names_columns_that_have_no_name_of_their_own(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        frame = table(tmp_path, "a,a,,a\n1,2,3,4\n")
    assert frame.columns.tolist() == ["a", "a (2)", "column 3", "a (3)"]
    assert frame.attrs["repeated"] == ["a"] and "a (2), column 3" in caplog.text


def test_read_takes_back_the_apostrophe_of_write_csv(tmp_path):
    assert table(tmp_path, "a,b\n'=1+1,'tis\n'@x,'-y\n").to_numpy().tolist() == [["=1+1", "'tis"], ["@x", "-y"]]


def test_read_without_header_numbers_the_columns(tmp_path):
    frame = (tmp_path / "list.txt").write_text("1.jpg  1 -1\n2.jpg -1  1\n") and read(
        tmp_path / "list.txt", header=False
    )
    assert frame.columns.tolist() == ["0", "1", "2"] and frame.index.tolist() == [1, 2]
    assert frame.to_numpy().tolist() == [["1.jpg", "1", "-1"], ["2.jpg", "-1", "1"]]
    (tmp_path / "one.txt").write_text("my photo.jpg\nother.jpg\n")
    assert read(tmp_path / "one.txt", header=False).to_numpy().tolist() == [["my photo.jpg"], ["other.jpg"]]


ROWS = [{"Filename": "001.jpg", "Age": 30, "Gender": None}, {"Filename": "2.jpg", "Age": 31.5, "Gender": "é"}]


def write_excel(file: Path, *sheets: list[list[object]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    book.save(file)


def test_read_takes_the_first_sheet_that_holds_something(tmp_path, caplog):
    rows: list[list[object]] = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    write_excel(tmp_path / "x.xlsx", [], [[], *rows, [], ["3.jpg", datetime(2024, 9, 3), True]], [["other"]])
    with caplog.at_level(logging.INFO):
        frame = read(tmp_path / "x.xlsx")
    assert frame.columns.tolist() == ["Filename", "Age", "Gender"] and frame.index.name == "row"
    assert frame.to_numpy().tolist() == [
        ["001.jpg", "30", ""],
        ["2.jpg", "31.5", "é"],
        ["3.jpg", "2024-09-03", "True"],
    ]
    assert frame.index.tolist() == [3, 4, 6] and "'sheet 1', one of 3" in caplog.text
    (tmp_path / "labels.csv").write_bytes((tmp_path / "x.xlsx").read_bytes())  # the content says what it is
    assert len(read(tmp_path / "labels.csv")) == 3


def test_read_says_that_no_sheet_holds_anything(tmp_path):
    write_excel(tmp_path / "x.xlsx", [], [[None, " "]])
    with pytest.raises(FaceattrError, match=r"x\.xlsx is not a readable table: it has no header"):
        read(tmp_path / "x.xlsx")


def test_read_takes_parquet_without_columns_of_bytes(tmp_path, caplog):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(ROWS).assign(image=[{"bytes": b"x"}, {"bytes": b"y"}]).iloc[::-1]
    frame.reset_index(drop=True).to_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").to_numpy().tolist() == [["2.jpg", "31.5", "é"], ["001.jpg", "30.0", ""]]
    assert "left out: image" in caplog.text
    pd.concat([frame, frame[:1]]).set_index(pd.Index([7, 3, 1])).to_parquet(
        tmp_path / "x.parquet"
    )  # with an index that is no numbering from 0
    assert read(tmp_path / "x.parquet").columns.tolist() == ["Filename", "Age", "Gender", "column 4"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_read_takes_json_objects(tmp_path, name):
    lines = [json.dumps(row) for row in ROWS]
    text = "\n".join([lines[0], "", *lines[1:]]) if name == "x.jsonl" else f"[{', '.join(lines)}]"
    (tmp_path / name).write_text(text)
    frame = read(tmp_path / name)
    assert frame.columns.tolist() == ["Filename", "Age", "Gender"]
    assert frame.to_numpy().tolist() == [["001.jpg", "30", ""], ["2.jpg", "31.5", "é"]]


def test_read_keeps_a_list_or_an_object_of_json_as_json(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"file": "1.jpg", "box": [1, 2.5], "of": {"name": "é", "known": null}}\n')
    assert read(tmp_path / "x.jsonl").to_numpy().tolist() == [["1.jpg", "[1, 2.5]", '{"name": "é", "known": null}']]


BROKEN = {
    "x.jsonl": ('{"a": 1}\n{"a": }\n', "line 2: no JSON (Expecting value)"),
    "y.jsonl": ('{"a": 1}\n3\n', "line 2: 3 is no object"),
    "x.json": ('{\n "images": []\n}\n', "line 1: no JSON"),
    "y.json": ("[" * 100_000, "no JSON"),
    "x.parquet": ("PAR1....", "a Parquet table, but damaged"),
    "x.xlsx": ("PK\x03\x04....", "it is a damaged ZIP archive"),
    "y.xlsx": ("PK damaged\nan Excel workbook", "an Excel workbook, but damaged"),
    "x.xls": ("\xd0\xcf\x11\xe0", "it is an old Office document. Tables are text, .xlsx, .parquet or .jsonl."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_read_refuses_a_damaged_table_in_one_line(tmp_path, name):
    pytest.importorskip("pyarrow")
    text, message = BROKEN[name]
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(FaceattrError, match=re.escape(message)) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_read_says_which_package_a_workbook_needs(tmp_path, monkeypatch):
    write_excel(tmp_path / "x.xlsx", [["a"], ["1"]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(FaceattrError, match="needs the package openpyxl: pip install openpyxl"):
        read(tmp_path / "x.xlsx")


def test_read_refuses_a_workbook_that_unpacks_to_too_much(tmp_path, monkeypatch):
    write_excel(tmp_path / "x.xlsx", [["a", "b"], ["1", "2"]])
    monkeypatch.setattr(excel_parquet_json, "MOST_CELLS", 3)
    with pytest.raises(FaceattrError, match="at most 2 GB and 3 cells are read"):
        read(tmp_path / "x.xlsx")
