"""What `input=` of predict.py may be: lists in the encodings and shapes that people have."""

from pathlib import Path

import pytest

from faceattr.errors import FaceattrError
from faceattr.predictor import image_files


@pytest.mark.parametrize("text", ["path\nä.jpg\nb.jpg\n", "id;Filename\n1;ä.jpg\n2;b.jpg\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_csv_of_one_column_or_more_in_any_encoding(tmp_path: Path, text: str, encoding: str):
    (tmp_path / "list.csv").write_text(text, encoding=encoding)
    assert image_files(str(tmp_path / "list.csv")) == [str(tmp_path / name) for name in ("ä.jpg", "b.jpg")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_a_list_file_in_any_encoding(tmp_path: Path, encoding: str):
    (tmp_path / "list.txt").write_text("ä.jpg\n\n b.jpg \n", encoding=encoding)
    assert image_files(str(tmp_path / "list.txt")) == [str(tmp_path / name) for name in ("ä.jpg", "b.jpg")]


def test_a_csv_without_a_path_column_lists_its_columns(tmp_path: Path):
    (tmp_path / "list.csv").write_text("name,age\na,3\n", encoding="utf-8")
    with pytest.raises(FaceattrError, match="Columns there: name, age"):
        image_files(str(tmp_path / "list.csv"))
