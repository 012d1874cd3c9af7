"""Tables as people have them: read right, or refused with the line."""

import logging
import re
from pathlib import Path

import pytest

from faceattr.data.sources.text_table import read
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
    "another separator": (HEADER + "1.jpg,30,0\n2.jpg;31;1\n", "line 3: 1 cells, but the header has 3: separated by ';'"),
    "a row of totals": (HEADER + "1.jpg,30,0\nTotal,,200\n", "line 3: this looks like a row of totals (Total,,200)"),
    "a row of totals without name": (HEADER + "1.jpg,30,0\n,Total:,200\n", "line 3: this looks like a row of totals"),
    "a long cell": (HEADER + f"1.jpg,{'9' * 101_000},0\n", "line 2: a cell of more than 100,000 characters in the column 'Age'"),
    "a cell of a million characters": (HEADER + f"{'x' * 1_000_000},30,0\n", "line 2: a cell of more than 131,072 characters"),
    "a long name": (f"Filename,{'x' * 300}\n1.jpg,1\n", "a column name of 300 characters"),
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
    "an empty column": "Filename,Age,Gender,\n1.jpg,30,0,\n2.jpg,31,1,\n",
    "old line ends": HEADER.replace("\n", "\r") + "1.jpg,30,0\r2.jpg,31,1\r",
}
# fmt: on


@pytest.mark.parametrize("name", REFUSED)
def test_read_refuses_with_the_line(tmp_path, name):
    text, message = REFUSED[name]
    with pytest.raises(FaceattrError, match=re.escape(message)) as error:
        table(tmp_path, text)
    assert "is not a readable CSV" in str(error.value) and len(str(error.value)) < 400


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
