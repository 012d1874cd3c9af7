"""Each source reads its true on-disk layout: as the sample writer makes it, its odd variants by hand, and real data."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from faceattr.data.sources import celeba, csv, folders, imfdb, sample
from faceattr.errors import FaceattrError

S0_MAP = {0: "male", 1: "female"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A layout of 40 generated faces, written once."""
    roots: dict[str, Path] = {}

    def write(layout: str) -> Path:
        if layout not in roots:
            roots[layout] = sample.write(layout, tmp_path_factory.mktemp(layout), n=40, image_size=16)
        return roots[layout]

    return write


def make(root: Path, *files: str, **texts: str | bytes) -> Path:
    """Empty files, and tables by name (`results__csv` is results.csv)."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    for name, text in texts.items():
        raw = text if isinstance(text, bytes) else text.encode()
        (root / name.replace("__", ".")).write_bytes(raw)
    return root


def labels(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["path"], table["label"], strict=True))


@pytest.mark.parametrize(
    ("layout", "load", "classes"),
    [
        ("csv", csv.load, ["male", "female"]),
        ("folders", folders.load, ["Female", "Male"]),
        ("celeba", celeba.load, ["female", "male"]),
        ("imfdb", imfdb.load, ["young", "middle", "old"]),
    ],
)
def test_load_gives_a_table_of_all_images(written, layout, load, classes):
    root = written(layout)
    table = load(root, **({"label_map": S0_MAP} if layout == "csv" else {}))
    files = {path.relative_to(root).as_posix() for path in root.rglob("*.jpg")}
    assert len(table) == 40
    assert set(table["path"]) == files
    assert table.attrs["classes"] == classes
    assert table.attrs["ordinal"] == (layout == "imfdb")
    assert set(table["label"]) <= set(classes)


@pytest.mark.parametrize("source", [csv, folders, celeba, imfdb])
@pytest.mark.parametrize("root", ["nowhere", ""])
def test_load_refuses_a_missing_root_and_describes_the_layout(source, root, tmp_path):
    with pytest.raises(FaceattrError, match=r"data\.root is not .*Expected there: "):
        source.load(tmp_path / root if root else None)


# csv ---------------------------------------------------------------------------------------------------------------


def test_csv_load_reads_s0_with_its_map_only(tmp_path):
    make(tmp_path, "images/1.jpg", results__csv="Filename,Gender,Age\n1.jpg,0,31\n2.jpg,1,4\n")
    table = csv.load(tmp_path, label_map=S0_MAP)
    assert labels(table) == {"images/1.jpg": "male", "images/2.jpg": "female"}
    assert table["Age"].tolist() == [31, 4]
    assert csv.load(tmp_path, label_map=S0_MAP, classes=["female", "male"]).attrs["classes"] == ["female", "male"]
    with pytest.raises(FaceattrError, match=r"'Gender' has numbers, .*: 0 \(1\), 1 \(1\)\.\n.*data\.label_map="):
        csv.load(tmp_path)


@pytest.mark.parametrize("raw", ["0", " 0 ", "0.0", '"0"', "00"])
@pytest.mark.parametrize("key", [0, "0", 0.0])
def test_csv_load_compares_label_map_as_text(tmp_path, raw, key):
    make(tmp_path, "images/1.jpg", results__csv=f"Filename,sex\n1.jpg,{raw}\n2.jpg,1\n3.jpg,\n")
    table = csv.load(tmp_path, label_column="sex", label_map={key: "man", 1: "woman"})
    same = raw != "00"
    assert table["label"].tolist()[:2] == ["man" if same else "00", "woman"]
    assert table["label"].isna().tolist() == [False, False, True]
    assert table.attrs["classes"] == ["man", "woman"]


def test_csv_load_keeps_unknown_labels_and_sorts_classes_without_a_map(tmp_path):
    make(tmp_path, "images/1.jpg", results__csv="Filename,kind\n1.jpg,b\n2.jpg,a\n3.jpg,None\n")
    assert csv.load(tmp_path, label_column="kind").attrs["classes"] == ["a", "b"]
    table = csv.load(tmp_path, label_column="kind", label_map={"a": "x"})
    assert table["label"].tolist()[:2] == ["b", "x"] and pd.isna(table["label"][2])


def test_csv_load_bins_are_right_open_and_keep_the_number(tmp_path):
    make(tmp_path, "images/1.jpg", results__csv="Filename,age\n1.jpg,29.9\n2.jpg,30\n3.jpg,49\n4.jpg,50\n5.jpg,\n")
    table = csv.load(tmp_path, label_column="age", bins=[30, 50], classes=["young", "middle", "old"])
    assert table["label"].tolist()[:4] == ["young", "middle", "middle", "old"]
    assert table["label"].isna().tolist() == [False] * 4 + [True]
    assert table.attrs == {"classes": ["young", "middle", "old"], "ordinal": True}
    assert table["age"].tolist()[:4] == [29.9, 30, 49, 50]


def test_csv_load_bins_lists_cells_that_are_no_numbers(tmp_path):
    make(tmp_path, "images/1.jpg", results__csv="Filename,age\n1.jpg,29\n2.jpg,old\n3.jpg,1e999\n4.jpg,nan\n")
    with pytest.raises(FaceattrError, match=r"2 cells of column 'age', not numbers: line 3: 'old'; line 4: '1e999'"):
        csv.load(tmp_path, label_column="age", bins=[30], classes=["young", "old"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bins": [30, 50]}, r"makes 3 classes; name them in data\.classes"),
        ({"bins": [30, 50], "classes": ["a", "b"]}, r"makes 3 classes; data\.classes names 2"),
        ({"bins": [50, 30], "classes": ["a", "b", "c"]}, "increasing numbers"),
        ({"bins": [30], "classes": ["a", "b"], "label_map": {0: "a"}}, "exclude each other"),
        ({"file": "other.csv"}, r"data\.file does not exist: .*other\.csv\. Tables there: results\.csv"),
        ({"file": "result.csv"}, r"data\.file does not exist: .*result\.csv\. Did you mean results\.csv\?"),
        ({"label_column": "gendre"}, r"no such column\. Did you mean Gender\?"),
        ({"image_dir": "image"}, r"data\.image_dir does not exist: .*image\. Did you mean .*images\?"),
        ({"image_column": "name"}, r"data\.image_column=name: .*Its columns: Filename, Gender"),
        ({"label_column": "sex"}, r"data\.label_column=sex: .*Its columns: Filename, Gender"),
        ({"split_column": "part"}, r"data\.split_column=part"),
        ({"group_column": "who"}, r"data\.group_column=who"),
        ({"image_dir": "pictures"}, r"data\.image_dir does not exist: .*pictures"),
    ],
)
def test_csv_load_refuses_invalid_settings(tmp_path, keys, message):
    make(tmp_path, "images/1.jpg", results__csv="Filename,Gender\n1.jpg,0\n")
    with pytest.raises(FaceattrError, match=message) as error:
        csv.load(tmp_path, **keys)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_csv_load_detects_separator_and_encoding(tmp_path, separator, encoding):
    rows = [["Filename", "Gender", "Name, full"], ["josé.jpg", "1", '"a, b; c"']]
    text = "\r\n".join(separator.join(f'"{c}"' if separator in c and '"' not in c else c for c in row) for row in rows)
    make(tmp_path, "images/josé.jpg", results__csv=text.encode(encoding))
    table = csv.load(tmp_path, label_map=S0_MAP)
    assert labels(table) == {"images/josé.jpg": "female"}
    assert table["Name, full"].tolist() == ["a, b; c"]


@pytest.mark.parametrize("text", ["", "Filename,Gender\n1.jpg,0\n2.jpg,1,2,3\n", 'Filename,Gender\n"1.jpg,0\n'])
def test_csv_load_refuses_a_file_that_is_no_csv(tmp_path, text):
    make(tmp_path, "images/1.jpg", results__csv=text)
    with pytest.raises(FaceattrError, match="is not a readable table"):
        csv.load(tmp_path)


def test_csv_load_without_rows_gives_an_empty_table(tmp_path):
    make(tmp_path, "images/1.jpg", results__csv="Filename,Gender,Age\n")
    assert csv.load(tmp_path).empty


def test_csv_load_completes_image_names_without_extension(tmp_path):
    files = ["images/001.jpg", "images/v1.2.PNG", "images/003", "images/notes.txt"]
    make(tmp_path, *files, results__csv="Filename,Gender\n001,0\nv1.2,1\n003,0\n004,1\nnotes,1\n,0\n")
    paths = csv.load(tmp_path, label_map=S0_MAP)["path"].tolist()
    assert paths[:5] == ["images/001.jpg", "images/v1.2.PNG", "images/003", "images/004", "images/notes"]
    assert pd.isna(paths[5])


def test_csv_load_refuses_an_ambiguous_image_name(tmp_path):
    make(tmp_path, "images/1.jpg", "images/1.png", results__csv="Filename,Gender\n1,0\n")
    with pytest.raises(FaceattrError, match=r"'1' may be 1\.jpg or 1\.png in .*images: give names with extension"):
        csv.load(tmp_path)


@pytest.mark.parametrize("image_dir", [None, "", "."])
def test_csv_load_paths_are_relative_to_root(tmp_path, image_dir):
    make(tmp_path, "Train/1.jpg", results__csv="Filename,Gender\nTrain\\1.jpg,0\n")
    assert [Path(path) for path in csv.load(tmp_path, image_dir=image_dir, label_map=S0_MAP)["path"]] == [
        Path("Train/1.jpg")
    ]


def test_csv_load_reads_split_and_group_and_keeps_other_columns(tmp_path, caplog):
    text = (
        "Filename,Gender,part,who,split\n1.jpg,0,Training,007,x\n2.jpg,1,VALID,7,y\n3.jpg,1,dev,,z\n4.jpg,1,later,7,\n"
    )
    make(tmp_path, "images/1.jpg", results__csv=text)
    table = csv.load(tmp_path, label_map=S0_MAP, split_column="part", group_column="who")
    assert table["split"].tolist() == ["train", "val", "val", "later"]
    assert table["group"].tolist()[:2] == ["007", "7"]
    assert table["group"].isna().tolist() == [False, False, True, False]
    with caplog.at_level(logging.INFO):
        table = csv.load(tmp_path, label_map=S0_MAP)
    assert "split" not in table
    assert table["csv_split"].tolist() == ["x", "y", "z", ""]
    assert "split as csv_split" in caplog.text


def test_csv_load_keeps_columns_apart_that_would_get_one_name(tmp_path):
    make(tmp_path, "images/1.jpg", results__csv="Filename,Gender,split,csv_split\n1.jpg,0,a,b\n2.jpg,1,c,d\n")
    table = csv.load(tmp_path, label_map=S0_MAP)
    assert table["csv_split"].tolist() == ["b", "d"] and table["csv_csv_split"].tolist() == ["a", "c"]


def test_csv_load_refuses_a_repeated_column_that_a_key_names(tmp_path):
    make(tmp_path, "images/1.jpg", results__csv="Filename,Gender,Gender,Age,Age\n1.jpg,0,1,5,6\n")
    with pytest.raises(FaceattrError, match=r"data\.label_column=Gender: .* several columns"):
        csv.load(tmp_path)
    assert csv.load(tmp_path, label_column="Filename")["Age (2)"].tolist() == [6]


# folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "splits"),
    [(("Train", "Validation", "Test"), ["train", "val", "test"]), (("TRAINING", "valid", "testing"), None)],
)
def test_folders_load_recognises_split_names(tmp_path, names, splits):
    make(tmp_path, *(f"{name}/{c}/{name}.jpg" for name in names for c in ("Female", "Male")))
    table = folders.load(tmp_path)
    assert dict(zip(table["path"].str.split("/").str[0], table["split"], strict=True)) == dict(
        zip(names, splits or ["train", "val", "test"], strict=True)
    )
    assert table.attrs["classes"] == ["Female", "Male"]


def test_folders_load_without_splits_finds_images_at_any_depth(tmp_path):
    files = ["man/a/b/1.JPG", "man/2.webp", "man/notes.txt", "man/.hidden.jpg", "woman/3.bmp"]
    make(tmp_path, *files, "loose.jpg", "__MACOSX/man/1.jpg", ".cache/man/1.jpg")
    table = folders.load(tmp_path, class_map={"man": "male", "woman": "female"})
    assert labels(table) == {"man/a/b/1.JPG": "male", "man/2.webp": "male", "woman/3.bmp": "female"}
    assert "split" not in table
    assert table.attrs["classes"] == ["male", "female"]  # in the order of the folders' names


def test_folders_load_ignores_other_folders_unless_in_split_map(tmp_path, caplog):
    make(tmp_path, *(f"{part}/{c}/1.jpg" for part in ("all", "train", "val") for c in ("man", "woman")))
    with caplog.at_level(logging.INFO):
        table = folders.load(tmp_path)
    assert not table["path"].str.startswith("all/").any()
    assert sum("all" in record.message for record in caplog.records) == 1
    table = folders.load(tmp_path, split_map={"all": "test"})
    assert table["split"].value_counts().to_dict() == {"train": 2, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"class_map": {"men": "male"}},
            r"data\.class_map names men\. Did you mean man\? The folders there: man, woman",
        ),
        ({"split_map": {"everything": "test"}}, r"data\.split_map names everything\. The folders there: train"),
        ({"identity_file": "none.txt"}, r"data\.identity_file does not exist: .*none\.txt"),
        ({"identity_file": "train/man/1.jpg"}, r"1\.jpg has no identity of 2 images, e\.g\. train/man/1\.jpg"),
    ],
)
def test_folders_load_refuses_invalid_settings(tmp_path, keys, message):
    make(tmp_path, "train/man/1.jpg", "train/woman/1.jpg")
    with pytest.raises(FaceattrError, match=message):
        folders.load(tmp_path, **keys)


def test_folders_load_leaves_out_what_systems_leave_and_says_it(tmp_path, caplog):
    leftovers = (
        "a/.ipynb_checkpoints/1-checkpoint.jpg",
        "a/._1.jpg",
        "__MACOSX/a/1.jpg",
        "a/deep/@eaDir/1.jpg/thumb.jpg",
    )
    make(tmp_path, "a/1.jpg", "a/deep/2.JFIF", "b/3.tiff", "b/Thumbs.db", "b/4.tga", *leftovers)
    (tmp_path / "b" / "folder.png").mkdir()
    with caplog.at_level(logging.INFO):
        table = folders.load(tmp_path)
    assert labels(table) == {"a/1.jpg": "a", "a/deep/2.JFIF": "a", "b/3.tiff": "b"}
    assert "left out: no images: 1 .tga; hidden or left by a system: 5" in caplog.text


@pytest.mark.parametrize("classes", ["", "train/"])
def test_folders_load_says_that_a_split_folder_is_flat(tmp_path, caplog, classes):
    make(tmp_path, f"{classes}a/1.jpg", f"{classes}b/2.jpg", "test/3.jpg", "test/4.jpg", "5.jpg")
    table = folders.load(tmp_path)
    assert labels(table) == {f"{classes}a/1.jpg": "a", f"{classes}b/2.jpg": "b"}
    assert "split" in table if classes else "split" not in table
    assert f"left out: 2 in {tmp_path / 'test'}, 1 in {tmp_path}." in caplog.text


def test_folders_load_reads_identities(tmp_path):
    make(tmp_path, "train/man/1.jpg", "val/man/2.jpg", "train/woman/3.jpg", identity__txt="1.jpg 7\n2.jpg 7\n3.jpg 8\n")
    table = folders.load(tmp_path, identity_file="identity.txt")
    assert dict(zip(table["path"].str[-5:], table["group"], strict=True)) == {"1.jpg": "7", "2.jpg": "7", "3.jpg": "8"}


def test_folders_load_split_map_null_leaves_the_split_open(tmp_path):
    make(tmp_path, "train/man/1.jpg", "val/man/2.jpg")
    table = folders.load(tmp_path, split_map={"train": None, "val": "test"}).set_index("path")["split"]
    assert pd.isna(table["train/man/1.jpg"]) and table["val/man/2.jpg"] == "test"


def test_folders_load_refuses_a_root_without_class_folders(tmp_path):
    make(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(
        FaceattrError, match=r"no images in class folders\. Expected there: <split>/<class>.*\n.*predict\.py"
    ):
        folders.load(tmp_path)


# celeba ------------------------------------------------------------------------------------------------------------

ATTRIBUTES = "3\nMale Smiling \n1.jpg  1 -1\n2.jpg -1  1\n3.jpg -1 -1\n"
PARTITION = "1.jpg 0\n2.jpg 1\n3.jpg 2\n"
IDENTITY = "1.jpg 11\n2.jpg 12\n3.jpg 11\n"


def make_celeba(root: Path, images: str = "img_align_celeba", files: str = "") -> Path:
    make(root, *(f"{images}/{i}.jpg" for i in (1, 2, 3)))
    (root / files).mkdir(exist_ok=True)
    texts = {"list_attr_celeba": ATTRIBUTES, "list_eval_partition": PARTITION, "identity_CelebA": IDENTITY}
    for name, text in texts.items():
        (root / files / f"{name}.txt").write_text(text)
    return root


@pytest.mark.parametrize(
    ("images", "files"),
    [("img_align_celeba", ""), ("celeba/img_align_celeba", "celeba"), ("Img/img_align_celeba", "Anno")],
)
def test_celeba_load_reads_text_files_in_all_layouts(tmp_path, images, files):
    table = celeba.load(make_celeba(tmp_path, images, files))
    assert labels(table) == {f"{images}/1.jpg": "male", f"{images}/2.jpg": "female", f"{images}/3.jpg": "female"}
    assert table["split"].tolist() == ["train", "val", "test"]
    assert table["group"].tolist() == ["11", "12", "11"]
    assert table["Smiling"].tolist() == [False, True, False]
    assert table.attrs == {"classes": ["female", "male"], "ordinal": False}


@pytest.mark.parametrize("images", ["img_align_celeba", "img_align_celeba/img_align_celeba"])
def test_celeba_load_reads_the_csv_files_of_kaggle(tmp_path, images):
    make(
        tmp_path,
        *(f"{images}/{i}.jpg" for i in (1, 2)),
        list_attr_celeba__csv="image_id,Male,Smiling\n1.jpg,1,-1\n2.jpg,-1,1\n",
        list_eval_partition__csv="image_id,partition\n2.jpg,1\n1.jpg,0\n",
    )
    table = celeba.load(tmp_path, attribute="Smiling")
    assert labels(table) == {f"{images}/1.jpg": "not_smiling", f"{images}/2.jpg": "smiling"}
    assert table["split"].tolist() == ["train", "val"]
    assert table["Male"].tolist() == [True, False]
    assert table.attrs["classes"] == ["not_smiling", "smiling"]
    assert "group" not in table


def celeba_of(root: Path, male: str) -> Path:
    """Images 0.jpg, 1.jpg, … of which `male` says + or -, each with an identity and all in the official train part."""
    names = [f"{i}.jpg" for i in range(len(male))]
    make(root, *(f"img_align_celeba/{name}" for name in names))
    rows = "".join(f"{name} {sign}1\n" for name, sign in zip(names, male.replace("+", " "), strict=True))
    (root / "list_attr_celeba.txt").write_text(f"{len(names)}\nMale\n{rows}")
    (root / "list_eval_partition.txt").write_text("".join(f"{name} 0\n" for name in names))
    (root / "identity_CelebA.txt").write_text("".join(f"{name} {i % 2}\n" for i, name in enumerate(names)))
    return root


def test_celeba_load_first_and_last_rows_of_each_class(tmp_path):
    table = celeba.load(celeba_of(tmp_path, "+-++--+-+-"), first_per_class=2, last_per_class=1)
    table = table.assign(name=table["path"].str.rpartition("/")[2])
    assert table["name"][table["split"].isna()].tolist() == ["0.jpg", "1.jpg", "2.jpg", "4.jpg"]
    assert table["name"][table["split"] == "test"].tolist() == ["8.jpg", "9.jpg"]
    assert len(table) == 6 and set(table["group"]) == {"0", "1"}
    with pytest.raises(FaceattrError, match=r"ask for 6 rows of each class; one has 5"):
        celeba.load(tmp_path, first_per_class=4, last_per_class=2)
    with pytest.raises(FaceattrError, match=r"data\.last_per_class=1 needs data\.first_per_class too"):
        celeba.load(tmp_path, last_per_class=1)


def test_celeba_load_lists_the_attributes_for_an_unknown_one(tmp_path):
    with pytest.raises(FaceattrError, match=r"data\.attribute=Bald is not in .* Its attributes: Male, Smiling\."):
        celeba.load(make_celeba(tmp_path), attribute="Bald")


def test_celeba_load_refuses_missing_images_unless_allowed(tmp_path, caplog):
    root = make_celeba(tmp_path)
    (root / "img_align_celeba/2.jpg").unlink()
    with pytest.raises(FaceattrError, match=r"(?s)1 of 3 images is missing.*2\.jpg.*data\.allow_missing=true"):
        celeba.load(root)
    table = celeba.load(root, allow_missing=True)
    assert table[["path", "label", "split", "group", "Smiling"]].to_numpy().tolist() == [
        ["img_align_celeba/1.jpg", "male", "train", "11", False],
        ["img_align_celeba/3.jpg", "female", "test", "11", False],
    ]
    assert "1 of 3 images is missing" in caplog.text


def test_celeba_load_refuses_a_root_without_files_or_images(tmp_path):
    with pytest.raises(FaceattrError, match=r"no list_attr_celeba\.txt"):
        celeba.load(tmp_path)
    make(tmp_path, list_attr_celeba__txt=ATTRIBUTES)
    with pytest.raises(FaceattrError, match=r"no folder img_align_celeba\. Expected there"):
        celeba.load(tmp_path)
    make(tmp_path, "img_align_celeba/9.jpg")
    with pytest.raises(FaceattrError, match="3 of 3 images are missing"):
        celeba.load(tmp_path, allow_missing=True)


def test_celeba_load_refuses_another_format(tmp_path):
    root = make_celeba(tmp_path)
    (root / "list_attr_celeba.txt").write_text("<html>\n<p>quota</p>\nnot it\n")
    with pytest.raises(FaceattrError, match=r"list_attr_celeba\.txt is not in CelebA's format"):
        celeba.load(root)


def test_celeba_load_downloads_through_torchvision(tmp_path, monkeypatch):
    import torchvision.datasets  # type: ignore[import-untyped]

    def fetch(root, split, download):
        assert (split, download) == ("all", True)
        make_celeba(Path(root), "celeba/img_align_celeba", "celeba")

    monkeypatch.setattr(torchvision.datasets, "CelebA", fetch)
    (tmp_path / "new").mkdir()
    assert len(celeba.load(tmp_path / "new", download=True)) == 3

    def fail(root, split, download):
        raise RuntimeError("quota exceeded\nmore")

    monkeypatch.setattr(torchvision.datasets, "CelebA", fail)
    assert len(celeba.load(tmp_path / "new", download=True)) == 3  # present: no download
    with pytest.raises(FaceattrError, match="quota exceeded") as error:
        celeba.load(tmp_path / "none", download=True)
    for name in ("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"):
        assert name in str(error.value)
    assert str(tmp_path / "none" / "celeba") in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


# imfdb -------------------------------------------------------------------------------------------------------------


def test_imfdb_load_gives_ordered_lower_case_classes(tmp_path):
    make(tmp_path, "Train/1.jpg", train__csv="ID,Class\n1.jpg,YOUNG\n2.jpg,Old\n3.jpg,BABY\n")
    table = imfdb.load(tmp_path)
    assert labels(table) == {"Train/1.jpg": "young", "Train/2.jpg": "old", "Train/3.jpg": "baby"}
    assert table.attrs == {"classes": ["young", "middle", "old"], "ordinal": True}
    make(tmp_path, train__csv="ID,Age\n1.jpg,YOUNG\n")
    with pytest.raises(FaceattrError, match="Its columns: ID, Age"):
        imfdb.load(tmp_path)


# real data ---------------------------------------------------------------------------------------------------------


def test_csv_load_reads_real_small_csv(shared):
    table = csv.load(shared("data", "small_csv"), label_map=S0_MAP)
    assert table["label"].value_counts().to_dict() == {"male": 100, "female": 100}
    assert table["Age"].dtype.kind == "i"


def test_celeba_load_reads_real_celeba(shared):
    table = celeba.load(shared("data", "celeba"))
    assert len(table) == 692
    assert table["split"].value_counts()["train"] == 690
    assert table["group"].notna().all()
    assert labels(table)["img_align_celeba/000003.jpg"] == "male"


def test_imfdb_load_reads_real_faces(shared):
    table = imfdb.load(shared("data", "faces"))
    assert table["label"].value_counts().to_dict() == {"young": 2400, "middle": 2400, "old": 2396}


def test_csv_load_takes_columns_by_number(tmp_path):
    make(tmp_path, "images/1.jpg", labels__txt="1.jpg 3 0\n2.jpg 4 1\n")
    keys = {"file": "labels.txt", "header": False, "image_column": "0", "label_column": "2", "label_map": S0_MAP}
    table = csv.load(tmp_path, **keys)
    assert labels(table) == {"images/1.jpg": "male", "images/2.jpg": "female"} and table["1"].tolist() == [3, 4]
    make(tmp_path, results__csv="Filename,Gender\n1.jpg,male\n2.jpg,female\n")
    assert labels(csv.load(tmp_path, image_column="0", label_column="1")) == labels(table)


def test_csv_load_says_that_a_table_may_have_no_header(tmp_path):
    make(tmp_path, "images/1.jpg", results__csv="1.jpg,male\n2.jpg,female\n")
    with pytest.raises(FaceattrError, match=r"Its columns: 1\.jpg, male\. Has it no header\? Then data\.header=false"):
        csv.load(tmp_path)


def make_imfdb(root: Path) -> Path:
    """Two actors; the columns of their movies' text files differ, as in the data set."""
    lines = {
        "AamairKhan/Lagaan": "1\tf.jpg\tA_1.jpg\t135\t105\tLagaan\tAamir Khan\tMALE\tHAPPINESS\tMEDIUM\tFRONTAL\tYOUNG\tNONE\n"
        "\n2 f.jpg A_2.jpg 135 105 Lagaan Aamir MALE ANGER MIDDLE\n2 f.jpg A_2.jpg 135 105 Lagaan Aamir MALE ANGER MIDDLE\n",
        "Kajol/OldMovie": "7 K_1.jpg OLD Kajol FEMALE SURPRISE BAD LEFT CHILD\n8 K_2.jpg Kajol NEUTRAL\n",
    }
    for folder, text in lines.items():
        images = [word for word in text.split() if word.startswith(("A_", "K_"))]
        make(root, *(f"{folder}/images/{image}" for image in images))
        (root / folder / f"{folder.split('/')[1]}.txt").write_text(text)
    return root


def test_imfdb_load_reads_the_folders_of_the_data_set(tmp_path):
    root = make_imfdb(tmp_path)
    table = imfdb.load(root)
    assert labels(table[:3]) == {
        "AamairKhan/Lagaan/images/A_1.jpg": "young",
        "AamairKhan/Lagaan/images/A_2.jpg": "middle",
        "Kajol/OldMovie/images/K_1.jpg": "child",
    }
    assert table["path"][3] == "Kajol/OldMovie/images/K_2.jpg" and pd.isna(table["label"][3])
    assert table["group"].tolist() == ["AamairKhan", "AamairKhan", "Kajol", "Kajol"]
    assert table.attrs == {"classes": ["child", "young", "middle", "old"], "ordinal": True}
    genders = imfdb.load(root, attribute="gender")
    assert genders["label"].fillna("?").tolist() == ["male", "male", "female", "?"]
    assert genders["age"].fillna("?").tolist() == ["young", "middle", "child", "?"]
    assert genders.attrs == {"classes": ["female", "male"], "ordinal": False}


def test_imfdb_load_refuses_text_files_that_name_no_image(tmp_path):
    make(tmp_path, "Kajol/OldMovie/images/1.jpg")
    (tmp_path / "Kajol/OldMovie/OldMovie.txt").write_text("7 K_1 FEMALE\n\n")
    with pytest.raises(FaceattrError, match=r"no line of 1 text file, such as .*OldMovie\.txt, names an image"):
        imfdb.load(tmp_path)


def test_imfdb_load_refuses_gender_of_the_contest(written):
    with pytest.raises(FaceattrError, match=r"data\.attribute=gender: the contest's train\.csv has age classes only"):
        imfdb.load(written("imfdb"), attribute="gender")


TWO_ATTRIBUTES = "2\nMale Young\n1.jpg 1 -1\n2.jpg -1 1\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list_attr_celeba.txt", "2\nMale Young\n1.jpg 1 -1\n2.jpg -1\n", "line 4: 1 value, expected 2"),
        (
            "list_attr_celeba.txt",
            "2\nMale Young\n1.jpg 1 -1\n2.jpg -1 yes\n",
            "line 4, column Young: 'yes'; expected a number",
        ),
        ("list_eval_partition.txt", "1.jpg 0\n2.jpg train\n", "line 2, column value: 'train'; expected a number"),
        ("identity_CelebA.txt", "1.jpg 5\n2.jpg\n", "line 2: 0 values, expected 1"),
        ("list_attr_celeba.txt", "2\nMale Young\n", "it has no rows"),
        ("list_attr_celeba.txt", "2\nMale Young\n1.jpg 1 -1\nm\xfcller.jpg 1 -1\n", "'utf-8' codec can't decode"),
    ],
)
def test_celeba_load_gives_the_line_that_does_not_fit(tmp_path, name, text, message):
    make(
        tmp_path,
        "img_align_celeba/1.jpg",
        "img_align_celeba/2.jpg",
        list_attr_celeba__txt="2\nMale Young\n1.jpg 1 -1\n2.jpg -1 1\n",
    )
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(FaceattrError, match=f"{re.escape(name)} is not in CelebA's format: {re.escape(message)}"):
        celeba.load(tmp_path)


def test_celeba_load_refuses_a_code_that_is_none_of_an_attribute(tmp_path):
    root = make_celeba(tmp_path)
    (root / "list_attr_celeba.txt").write_text("3\nMale Smiling\n1.jpg 1 -1\n2.jpg -1 2\n3.jpg 3 1\n")
    with pytest.raises(FaceattrError, match=r"celeba\.txt: attribute 'Smiling' of '2\.jpg' is 2; expected 1, -1 or 0"):
        celeba.load(root)


def test_folders_load_takes_names_of_folders_as_cells_of_a_table(tmp_path, caplog):
    make(tmp_path, "Male/1.jpg", "male/2.jpg", "male/3.jpg", "Female/4.jpg", "unknown/5.jpg", "03/6.jpg")
    table = folders.load(tmp_path)
    assert table.attrs["classes"] == ["03", "Female", "male"]
    assert "One class, written in several ways: male (2), Male (1)" in caplog.text
    assert table.set_index("path")["label"].fillna("?").to_dict() == {
        "Male/1.jpg": "male",
        "male/2.jpg": "male",
        "male/3.jpg": "male",
        "Female/4.jpg": "Female",
        "unknown/5.jpg": "?",
        "03/6.jpg": "03",
    }
    assert folders.load(tmp_path, classes=["male", "Female", "unknown", "03"])["label"].notna().all()


def test_folders_load_refuses_a_folder_that_abbreviates_another(tmp_path):
    make(tmp_path, "F/1.jpg", "Female/2.jpg", "male/3.jpg")
    with pytest.raises(FaceattrError, match=r"Does 'F' mean 'Female'\? Then give 'data\.class_map=\{F: Female\}'"):
        folders.load(tmp_path)
    assert set(folders.load(tmp_path, class_map={"F": "Female"})["label"]) == {"Female", "male"}


def test_csv_load_bins_takes_a_negative_code_for_no_label(tmp_path, caplog):
    make(tmp_path, "images/1.jpg", results__csv="Filename,age\n1.jpg,-1\n2.jpg,3\n3.jpg,-9.0\n4.jpg,40\n")
    keys = {"label_column": "age", "bins": [30], "classes": ["young", "old"]}
    assert csv.load(tmp_path, **keys)["label"].fillna("?").tolist() == ["?", "young", "?", "old"]
    assert "in column 'age' no label: 2 numbers below 0, such as -1" in caplog.text
    below = csv.load(tmp_path, **keys | {"bins": [-5]})
    assert below["label"].tolist() == ["old", "old", "young", "old"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list_attr_celeba.txt", "Male Young\n1.jpg 1 -1\n2.jpg -1 1\n"),  # without the number of images
        ("list_attr_celeba.csv", "image_id;Male;Young\n1.jpg;1;-1\n2.jpg;-1;1\n"),  # saved again by a spreadsheet
    ],
)
def test_celeba_load_reads_files_that_were_saved_again(tmp_path, name, text):
    make(tmp_path, "img_align_celeba/1.jpg", "img_align_celeba/2.jpg")
    (tmp_path / name).write_text(text)
    assert labels(celeba.load(tmp_path)) == {"img_align_celeba/1.jpg": "male", "img_align_celeba/2.jpg": "female"}


def test_celeba_load_refuses_a_file_without_columns(tmp_path):
    make(tmp_path, "img_align_celeba/1.jpg", list_attr_celeba__csv="image_id|Male\n1.jpg|1\n")
    with pytest.raises(
        FaceattrError, match=r"list_attr_celeba\.csv is not in CelebA's format: line 2: 0 values, expected 1"
    ):
        celeba.load(tmp_path)
