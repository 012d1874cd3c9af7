"""What `input=` of predict.py may be: files, folders, globs, lists and tables, and where their entries are looked for."""

import os
from pathlib import Path

import pytest
from checkpoints import untrained

from faceattr.commands.predict_input import input_files
from faceattr.config.schema import InputTable
from faceattr.errors import FaceattrError


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.mark.parametrize("text", ["path\nä.jpg\nb.jpg\n", "id;Filename\n1;ä.jpg\n2;b.jpg\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_csv_of_one_column_or_more_in_any_encoding(tmp_path, text, encoding):
    make(tmp_path, "ä.jpg", "b.jpg")
    (tmp_path / "list.csv").write_text(text, encoding=encoding)
    assert input_files(str(tmp_path / "list.csv")) == [str(tmp_path / name) for name in ("ä.jpg", "b.jpg")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_a_list_file_in_any_encoding(tmp_path, encoding):
    make(tmp_path, "ä.jpg", "b.jpg")
    (tmp_path / "list.txt").write_text("ä.jpg\n\n b.jpg \n", encoding=encoding)
    assert input_files(str(tmp_path / "list.txt")) == [str(tmp_path / name) for name in ("ä.jpg", "b.jpg")]


def test_a_csv_without_a_path_column_lists_its_columns(tmp_path):
    (tmp_path / "list.csv").write_text("name,age\na,3\n", encoding="utf-8")
    with pytest.raises(FaceattrError, match="Columns there: name, age"):
        input_files(str(tmp_path / "list.csv"))


@pytest.mark.parametrize("text", ["x.jpg\nsub/y.jpg\n", "path\nx.jpg\nsub/y.jpg\n"])
def test_entries_are_looked_for_beside_their_list_first(tmp_path, monkeypatch, text):
    make(tmp_path, "x.jpg", "b/x.jpg", "sub/y.jpg")
    name = "list.csv" if "path" in text else "list.txt"
    (tmp_path / "b" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert input_files(f"b/{name}") == [str(tmp_path / "b" / "x.jpg"), str(tmp_path / "sub" / "y.jpg")]


def test_a_table_is_read_with_the_keys_of_training(tmp_path):
    make(tmp_path, "data/images/001.jpg", "data/images/002.png", "labels/x")
    (tmp_path / "data" / "results.csv").write_text("Filename;Photo;Gender\n9;001;0\n9;002;1\n")
    expected = [str(tmp_path / "data" / "images" / name) for name in ("001.jpg", "002.png")]
    source = str(tmp_path / "data" / "results.csv")
    assert input_files(source, InputTable(image_column="Photo", image_dir="images")) == expected
    assert input_files(source, stored={"image_column": "Photo", "image_dir": "images", "root": "/gone"}) == expected
    moved = (tmp_path / "data" / "results.csv").rename(tmp_path / "labels" / "results.csv")
    keys = InputTable(root=str(tmp_path / "data"), image_column="Photo", image_dir="images")
    assert input_files(str(moved), keys) == expected
    with pytest.raises(FaceattrError, match=r"data\.image_column=File: .*Its columns: Filename, Photo, Gender"):
        input_files(str(moved), InputTable(image_column="File"))
    with pytest.raises(FaceattrError, match=r"none of its 2 images is there, e\.g\. 001.* data\.root=FOLDER"):
        input_files(str(moved), InputTable(image_column="Photo"))


def test_a_runs_own_table_is_relative_to_the_runs_data(tmp_path):
    make(tmp_path, "data/a/1.jpg", "data/b/2.jpg")
    untrained(tmp_path / "run" / "checkpoints" / "best.ckpt", "data=folders", f"data.root={tmp_path / 'data'}")
    (tmp_path / "run" / "table.csv").write_text("path,label,split\na/1.jpg,a,train\nb/2.jpg,b,val\n")
    expected = [str(tmp_path / "data" / name) for name in ("a/1.jpg", "b/2.jpg")]
    assert input_files(str(tmp_path / "run" / "table.csv")) == expected


def test_a_name_without_suffix_that_fits_two_images_is_refused(tmp_path):
    make(tmp_path, "1.jpg", "1.png")
    (tmp_path / "list.txt").write_text("1\n")
    with pytest.raises(FaceattrError, match=r"1\.jpg or .*1\.png"):
        input_files(str(tmp_path / "list.txt"))


def test_folders_and_globs_take_images_and_videos_and_no_pipes(tmp_path):
    make(tmp_path, "b.jpg", "a/c.MP4", "a/.hidden.jpg", "notes.md")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert input_files(str(tmp_path)) == [str(tmp_path / "a/c.MP4"), str(tmp_path / "b.jpg")]
    assert input_files(f"{tmp_path}/*.jpg") == [str(tmp_path / "b.jpg")]
    assert input_files(str(make(tmp_path / "set[1]", "1.jpg"))) == [str(tmp_path / "set[1]" / "1.jpg")]
    with pytest.raises(FaceattrError, match="a pipe or a device"):
        input_files(str(tmp_path / "pipe.jpg"))
    for empty in ("absent", "*.png"):
        with pytest.raises(FaceattrError, match=r"no such file|no file matches"):
            input_files(str(tmp_path / empty))
    for near in ("B.jpeg", "aa/c.MP4", "aa/*.jpg"):
        with pytest.raises(FaceattrError, match=rf"Did you mean {tmp_path}/(b\.jpg|a)\?"):
            input_files(str(tmp_path / near))


def test_a_table_of_any_kind_that_training_reads(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl")
    make(tmp_path, "a.jpg", "b.jpg")
    table = pd.DataFrame({"gender": ["male", "female"], "file": ["a.jpg", "b"]})
    table.to_excel(tmp_path / "list.xlsx", index=False)
    table.to_json(tmp_path / "list.jsonl", orient="records", lines=True)
    for name in ("list.xlsx", "list.jsonl"):
        assert input_files(str(tmp_path / name)) == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]


def test_a_table_without_header_takes_columns_by_number(tmp_path):
    make(tmp_path, "a.jpg", "b.jpg")
    source, expected = str(tmp_path / "list.txt"), [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    (tmp_path / "list.txt").write_text("a.jpg 0\nb.jpg 1\n")
    assert input_files(source, InputTable(header=False, image_column="0")) == expected
    assert input_files(source, stored={"file": "labels.txt", "header": False, "image_column": "0"}) == expected
    with pytest.raises(FaceattrError, match=r"Is it a table\? data.header=false data.image_column=0"):
        input_files(source)
    (tmp_path / "other.csv").write_text("gender,path\n0,a.jpg\n1,b.jpg\n")  # it has a header, that of training had none
    assert input_files(str(tmp_path / "other.csv"), stored={"header": False, "image_column": "0"}) == expected


def test_a_list_stays_a_list_for_a_model_that_was_trained_on_a_txt_table(tmp_path):
    make(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n")
    files = input_files(
        str(tmp_path / "list.txt"), stored={"file": "labels.txt", "header": True, "image_column": "file"}
    )
    assert files == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]


def test_names_are_found_in_another_form_of_unicode(tmp_path):
    make(tmp_path, "Jose\u0301.jpg")  # e and an accent, as some systems store it
    (tmp_path / "list.txt").write_text("Jos\u00e9.jpg\n", encoding="utf-8")
    assert input_files(str(tmp_path / "list.txt")) == [str(tmp_path / "Jose\u0301.jpg")]


def test_a_long_entry_is_not_repeated_whole(tmp_path):
    (tmp_path / "list.txt").write_text("x" * 3_000_000)
    with pytest.raises(FaceattrError) as error:
        input_files(str(tmp_path / "list.txt"))
    assert "… (3,000,000 characters)" in str(error.value) and len(str(error.value)) < 1000
