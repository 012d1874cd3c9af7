"""What is written for others to open."""

import pandas as pd

from faceattr.data.sources.text_table import read
from faceattr.files import write_csv


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
