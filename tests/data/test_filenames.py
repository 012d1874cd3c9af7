"""Source `filenames`: columns from the names of files, and what does not match."""

import logging
from pathlib import Path

import pytest
from PIL import Image

from faceattr.data.sources import filenames
from faceattr.errors import FaceattrError

UTKFACE = r"(?P<age>\d+)_(?P<gender>[01])_(?P<race>\d)_"
GENDER = {0: "male", 1: "female"}


@pytest.fixture
def utkface(tmp_path) -> Path:
    for name in ("25_0_1_20170116.jpg.chip.jpg", "7_1_0_20170117.jpg", "61_1_3_20170118.jpg", "part2/40_0_2_2017.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def test_load_makes_a_column_of_each_group(utkface):
    table = filenames.load(utkface, pattern=UTKFACE, label_column="gender", label_map=GENDER)
    assert table.set_index("path")["label"].to_dict() == {
        "25_0_1_20170116.jpg.chip.jpg": "male",
        "7_1_0_20170117.jpg": "female",
        "61_1_3_20170118.jpg": "female",
        "part2/40_0_2_2017.jpg": "male",
    }
    assert table["age"].tolist() == [25, 61, 7, 40] and table.attrs["classes"] == ["male", "female"]


def test_load_bins_numbers_in_names(utkface):
    table = filenames.load(
        utkface, pattern=UTKFACE, label_column="age", bins=[30, 50], classes=["young", "middle", "old"]
    )
    assert table["label"].tolist() == ["young", "old", "young", "middle"] and table.attrs["ordinal"]


def test_load_takes_the_person_from_the_name(tmp_path):
    """LFW: a folder and a file of a person's name."""
    for name in ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", "Bo/Bo_0001.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    pattern = r"(?P<person>[^/]+)_(?P<number>\d+)\.jpg$"
    table = filenames.load(
        tmp_path, pattern=pattern, label_column="number", group_column="person", label_map={"0001": "a", "0002": "b"}
    )
    assert table["group"].tolist() == ["Ann_Lee", "Ann_Lee", "Bo"]


def test_load_says_which_files_it_left_out(utkface, caplog):
    (utkface / "notes.txt").touch()
    (utkface / "._25_0_1_20170116.jpg").touch()
    with caplog.at_level(logging.INFO):
        assert len(filenames.load(utkface, pattern=UTKFACE, label_column="gender", label_map=GENDER)) == 4
    assert f"{utkface}: left out: no images: 1 .txt; hidden or left by a system: 1" in caplog.text


def test_load_gives_images_that_do_not_match_no_label(utkface, caplog):
    Image.new("RGB", (8, 8)).save(utkface / "cover.jpg")
    table = filenames.load(utkface, pattern=UTKFACE, label_column="gender", label_map=GENDER).set_index("path")
    assert table["label"].isna().to_dict()["cover.jpg"] and table["label"].notna().sum() == 4
    assert "1 of 5 images does not match data.pattern: no label. The first: cover.jpg" in caplog.text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pattern": "(?P<age>"}, "no regular expression"),
        ({"pattern": "[01]_"}, r"names no group. A group is \(\?P<label>…\)"),
        ({"pattern": "(?P<label>[ab])_x"}, "matches none of 4 images in .*, such as 25_0_1"),
        ({"pattern": UTKFACE, "label_column": "sex"}, "data.label_column=sex: .*age, gender, race"),
        ({"pattern": UTKFACE, "label_column": "gender"}, "data.label_map"),
    ],
)
def test_load_refuses(utkface, keys, message):
    with pytest.raises(FaceattrError, match=message):
        filenames.load(utkface, **keys)
