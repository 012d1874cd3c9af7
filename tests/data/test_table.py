"""`table.prepare` (checks, splits, fewer images) and the fingerprint of a table."""

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from faceattr.config.schema import Data
from faceattr.data.load_table import load_table
from faceattr.data.sources import celeba, csv, imfdb
from faceattr.data.table import fingerprint, prepare, shortened
from faceattr.errors import FaceattrError

CLASSES = ["female", "male"]


def faces(root: Path, labels: list[str], **columns: list) -> pd.DataFrame:
    """A source's table; creates its files."""
    paths = [f"{i % 3}/{i:05d}.jpg" for i in range(len(labels))]
    for folder in "012":
        (root / folder).mkdir(exist_ok=True)
    for path in paths:
        (root / path).touch()
    table = pd.DataFrame({"path": paths, "label": labels, **columns})
    table.attrs.update(classes=CLASSES, ordinal=False)
    return table


def counts(table: pd.DataFrame) -> dict[tuple[str, str], int]:
    return dict(table.groupby(["split", "label"], observed=True).size().items())  # type: ignore[arg-type]


def random_groups(n: int, groups: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(3)
    group = (groups * rng.random(n) ** 2).astype(int)  # groups of very different sizes
    return [CLASSES[g % 2] for g in group], [f"person{g}" for g in group]


# the result --------------------------------------------------------------------------------------------------------


def test_prepare_sorts_and_types_the_table(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 20, age=list(range(40)))
    ready = prepare(table, tmp_path)
    assert ready["path"].is_monotonic_increasing
    assert list(ready.index) == list(range(40))
    assert list(ready.columns) == ["path", "label", "split", "age"]
    assert list(ready["label"].cat.categories) == CLASSES
    assert not ready["label"].cat.ordered
    assert ready.attrs == {"classes": CLASSES, "ordinal": False, "multilabel": False}
    assert table["path"].iloc[1] == "1/00001.jpg"  # the source's table is unchanged
    back = ready.set_index("path").loc[table["path"]]
    assert back["label"].astype(str).tolist() == table["label"].tolist()
    assert back["age"].tolist() == table["age"].tolist()


def test_prepare_uses_the_given_class_order(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 10)
    table.attrs["ordinal"] = True
    ready = prepare(table, tmp_path, classes=["male", "female"])
    assert ready["label"].cat.codes[ready["label"] == "male"].unique().tolist() == [0]
    assert ready["label"].cat.ordered
    assert ready.attrs["classes"] == ["male", "female"]


def test_prepare_normalises_paths(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 5, split=["train"] * 4 + ["val"] * 6)
    expected = sorted(table["path"])
    table.loc[0, "path"] = "./1/../0//00000.jpg"
    table.loc[1, "path"] = str(tmp_path / "1/00001.jpg")
    assert prepare(table, tmp_path)["path"].tolist() == expected


def test_prepare_takes_the_separators_of_windows_there(tmp_path, monkeypatch):
    table = faces(tmp_path, ["male", "female"] * 5, split=["train"] * 4 + ["val"] * 6)
    expected = sorted(table["path"])
    table["path"] = table["path"].str.replace("/", "\\", regex=False)
    with pytest.raises(FaceattrError, match="missing file"):  # a backslash is part of a name elsewhere
        prepare(table, tmp_path)
    monkeypatch.setattr(os, "sep", "\\")
    assert prepare(table, tmp_path)["path"].tolist() == expected


def test_prepare_random_split_keeps_given_splits_and_warns_about_identities(tmp_path, caplog):
    labels, group = ["male", "female"] * 50, [f"person{i % 7}" for i in range(100)]
    placed = [None] * 80 + ["test"] * 20
    table = faces(tmp_path, labels, split=placed, group=group)
    ready = prepare(table, tmp_path, split="random", fractions={"train": 0.8, "val": 0.2, "test": 0})
    assert counts(ready) == {(s, c): n for c in CLASSES for s, n in (("train", 32), ("val", 8), ("test", 10))}
    assert set(ready["path"][ready["split"] == "test"]) == set(table["path"][80:])
    assert "group" not in ready and "identity" in ready
    assert "7 of 7 identities are in more than one split" in caplog.text
    again = prepare(table, tmp_path, split="random", fractions={"train": 0.8, "val": 0.2, "test": 0}, seed=1)
    assert fingerprint(again) != fingerprint(ready)
    sized = prepare(table, tmp_path, split="random", per_class={"train": 20, "val": 5, "test": 4})
    assert counts(sized) == {(s, c): n for c in CLASSES for s, n in (("train", 20), ("val", 5), ("test", 4))}


def test_prepare_requires_a_split_per_row_unless_random(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 5, split=["train"] * 2 + ["val"] * 2 + [None] * 6)
    with pytest.raises(FaceattrError, match=r"split other than train, val, test \(6\)"):
        prepare(table, tmp_path)
    halves = {"train": 0.5, "val": 0.5}
    assert prepare(table, tmp_path, split="random", fractions=halves)["split"].notna().all()


# problems ----------------------------------------------------------------------------------------------------------


def test_prepare_lists_all_problems_with_counts_and_examples(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 10, split=["train"] * 10 + ["val"] * 10, group=["a"] * 20)
    table["path"] = table["path"].astype(object)
    for row in range(7):
        (tmp_path / table.loc[row, "path"]).unlink()
    table.loc[7, "path"] = table.loc[8, "path"]
    table.loc[9, "path"] = "../outside.jpg"
    table.loc[10, "path"] = "/elsewhere/1.jpg"
    table.loc[11, "path"] = None
    table.loc[12, "label"] = "Male"
    table.loc[13, "label"] = None
    table.loc[14, "split"] = "holdout"
    table.loc[15, "split"] = None
    with pytest.raises(FaceattrError) as error:
        prepare(table, tmp_path, classes=["female", "male", "other"])
    assert str(error.value).splitlines()[1:] == [
        "- rows without a path (1)",
        "- path that leaves data.root (2): ../outside.jpg, /elsewhere/1.jpg",
        "- missing file (7): 0/00000.jpg, 0/00003.jpg, 0/00006.jpg, 1/00001.jpg, 1/00004.jpg, …",
        "- duplicate path (1): 2/00008.jpg",
        "- split other than train, val, test (2): 0/00015.jpg: none, 2/00014.jpg: holdout",
        "- no label, or a marker such as none (data.on_bad_label=skip leaves these out; data.classes=[none,…] makes none a "
        "class) (1): 1/00013.jpg",
        "- label outside data.classes [female, male, other], namely Male (1): 0/00012.jpg: Male",
        "- class absent from train (1): other",
        "- group in two splits (data.split=identity makes a split that divides no group) (1): a (train and val)",
    ]


@pytest.mark.parametrize("classes", [["male"], ["male", "male", "female"]])
def test_prepare_requires_two_distinct_classes(tmp_path, classes):
    table = faces(tmp_path, ["male"] * 4, split=["train", "val"] * 2)
    with pytest.raises(FaceattrError, match=r"data\.classes=\[male.*at least two classes"):
        prepare(table, tmp_path, classes=classes)


@pytest.mark.parametrize(("splits", "empty"), [(["train", "test"], "val"), (["val", "test"], "train")])
def test_prepare_refuses_an_empty_split(tmp_path, splits, empty):
    table = faces(tmp_path, ["male", "male", "female", "female"], split=splits * 2)
    with pytest.raises(
        FaceattrError, match=rf"empty split \(1\): {empty}\n- these are the data's own.*data\.split=random"
    ):
        prepare(table, tmp_path)


def test_prepare_refuses_an_empty_table(tmp_path):
    with pytest.raises(FaceattrError, match="is empty"):
        prepare(faces(tmp_path, []), tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split": "identity"}, r"data\.split=identity needs a group"),
        ({"fractions": {"train": 0.8, "val": 0.2, "test": 0.15}}, "sum to 1 .here 1.15"),
        ({"fractions": {"train": 1.0}}, "train and val need a share"),
        ({"fractions": {"train": 1.2, "val": -0.2}}, "train and val need a share"),
        ({"fractions": {"train": 0.5, "val": 0.3, "dev": 0.2}}, "train and val need a share"),
        ({"per_class": {"training": 3}}, r"data\.per_class=\{'training': 3\}"),
        ({"per_class": {"train": -3}}, r"data\.per_class"),
        ({"per_class": {"train": 2}}, r"empty split \(1\): val"),
    ],
)
def test_prepare_refuses_invalid_settings(tmp_path, keys, message):
    with pytest.raises(FaceattrError, match=message):
        prepare(faces(tmp_path, ["male", "female"] * 4), tmp_path, **keys)


def test_prepare_without_split_makes_and_requires_none(tmp_path):
    table = faces(tmp_path, ["male"] * 4)
    assert "split" not in prepare(table, tmp_path, split=None)
    own = prepare(table.assign(split=["test"] * 4, group=["a"] * 4), tmp_path, split=None)
    assert own["split"].tolist() == ["test"] * 4
    (tmp_path / table["path"][2]).unlink()
    with pytest.raises(FaceattrError, match=r"missing file \(1\): 2/00002\.jpg"):
        prepare(table, tmp_path, split=None)


# splits ------------------------------------------------------------------------------------------------------------


def test_prepare_new_split_is_stratified(tmp_path):
    ready = prepare(faces(tmp_path, ["male"] * 200 + ["female"] * 100), tmp_path)
    assert counts(ready) == {
        ("train", "male"): 140,
        ("val", "male"): 30,
        ("test", "male"): 30,
        ("train", "female"): 70,
        ("val", "female"): 15,
        ("test", "female"): 15,
    }
    two = prepare(faces(tmp_path, ["male", "female"] * 50), tmp_path, fractions={"train": 0.8, "val": 0.2, "test": 0})
    assert two["split"].value_counts().to_dict() == {"train": 80, "val": 20}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("keys", [{}, {"max_images": 50}, {"per_class": {"train": 20, "val": 10}}])
def test_prepare_depends_on_the_seed_only(tmp_path, grouped, keys):
    labels, group = random_groups(200, 60)
    table = faces(tmp_path, labels, **({"group": group} if grouped else {}))
    np.random.seed(1)
    first = prepare(table, tmp_path, **keys)
    assert np.random.get_state()[1][0] == 1, "the global generator was touched"
    shuffled = table.sample(frac=1, random_state=5)
    shuffled.attrs = table.attrs
    pd.testing.assert_frame_equal(first, prepare(shuffled, tmp_path, **keys))
    pd.testing.assert_frame_equal(first, prepare(table, tmp_path, seed=0, **keys))
    assert fingerprint(first) != fingerprint(prepare(table, tmp_path, seed=1, **keys))


@pytest.mark.parametrize("split", ["auto", "identity"])
def test_prepare_new_split_divides_no_group_and_meets_the_fractions(tmp_path, split):
    labels, group = random_groups(3000, 300)
    ready = prepare(faces(tmp_path, labels, group=group), tmp_path, split=split)
    assert ready.groupby("group")["split"].nunique().max() == 1
    share = ready.groupby("label", observed=True)["split"].value_counts(normalize=True)
    for label in CLASSES:
        assert share[label]["train"] == pytest.approx(0.7, abs=0.03)
        assert share[label]["val"] == pytest.approx(0.15, abs=0.03)
        assert share[label]["test"] == pytest.approx(0.15, abs=0.03)


def test_prepare_treats_an_image_without_group_as_its_own_group(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 50, group=["a"] * 10 + [None] * 90)
    ready = prepare(table, tmp_path)
    assert ready["split"].value_counts().to_dict() == pytest.approx({"train": 70, "val": 15, "test": 15}, abs=1)
    assert ready[ready["group"] == "a"]["split"].nunique() == 1


def test_prepare_keeps_the_split_of_the_source_unless_identity(tmp_path):
    labels, group = random_groups(100, 30)
    given = ["train", "train", "val", "test"] * 25
    table = faces(tmp_path, labels, split=given)
    ready = prepare(table, tmp_path).set_index("path")["split"]
    assert ready[table["path"]].tolist() == given
    with pytest.raises(FaceattrError, match="group in two splits"):
        prepare(table.assign(group=group), tmp_path)
    ready = prepare(table.assign(group=group), tmp_path, split="identity")
    assert ready.groupby("group")["split"].nunique().max() == 1


def test_prepare_max_images_does_not_change_splits(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 100)
    whole = prepare(table, tmp_path).set_index("path")["split"]
    small = prepare(table, tmp_path, max_images=40)
    assert small["split"].tolist() == whole[small["path"]].tolist()


# draws -------------------------------------------------------------------------------------------------------------


def test_prepare_per_class_fills_train_first_and_warns_about_small_classes(tmp_path, caplog):
    table = faces(tmp_path, ["male"] * 100 + ["female"] * 55)
    with caplog.at_level(logging.INFO):
        ready = prepare(table, tmp_path, per_class={"val": 20, "train": 40})
    expected = {("train", "male"): 40, ("train", "female"): 40, ("val", "male"): 20, ("val", "female"): 15}
    assert counts(ready) == expected
    assert [r.message for r in caplog.records if "too few" in r.message] == [
        "data.per_class: a class has too few images: val has 15 of 20 female"
    ]


def test_prepare_per_class_draws_within_the_split_of_the_source(tmp_path, caplog):
    given = ["train"] * 60 + ["val"] * 20 + ["test"] * 20
    table = faces(tmp_path, ["male", "female", "male", "male"] * 25, split=given)
    with caplog.at_level(logging.INFO):
        ready = prepare(table, tmp_path, per_class={"train": 10, "val": 5})
    assert "without the split test" in caplog.text
    assert counts(ready) == {(s, c): n for s, n in (("train", 10), ("val", 5)) for c in CLASSES}
    assert set(ready["path"][ready["split"] == "train"]) <= set(table["path"][:60])


def test_prepare_per_class_divides_no_group(tmp_path):
    labels, group = random_groups(2000, 300)
    ready = prepare(faces(tmp_path, labels, group=group), tmp_path, per_class={"train": 300, "val": 100})
    assert counts(ready) == {(s, c): n for s, n in (("train", 300), ("val", 100)) for c in CLASSES}
    assert ready.groupby("group")["split"].nunique().max() == 1


def test_prepare_max_images_keeps_proportions(tmp_path, caplog):
    table = faces(tmp_path, ["male"] * 200 + ["female"] * 100)
    with caplog.at_level(logging.INFO):
        ready = prepare(table, tmp_path, max_images=60)
    males = {("train", "male"): 28, ("val", "male"): 6, ("test", "male"): 6}
    assert counts(ready) == males | {(split, "female"): n // 2 for (split, _), n in males.items()}
    assert "60 of 300 images" in caplog.text
    assert [len(prepare(table, tmp_path, max_images=n)) for n in (59, 61)] == [59, 61]
    few = prepare(faces(tmp_path, ["male"] * 94 + ["female"] * 6), tmp_path, split=None, max_images=10)
    assert few["label"].value_counts().to_dict() == {"male": 9, "female": 1}
    assert len(prepare(table, tmp_path, max_images=1000)) == 300
    assert len(prepare(table, tmp_path, split=None, max_images=7)) == 7


# fingerprint -------------------------------------------------------------------------------------------------------


def test_fingerexpecteddepends_on_the_contents_only(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 20, group=[str(i // 2) for i in range(40)])
    ready = prepare(table, tmp_path)
    expected = fingerprint(ready)
    assert len(expected) == 16
    assert int(expected, 16) >= 0
    assert fingerprint(ready[ready.columns[::-1]]) == expected
    assert fingerprint(ready.sample(frac=1, random_state=0)) == expected
    assert fingerprint(ready.assign(age=1)) == expected
    other = tmp_path / "other"
    other.mkdir()
    assert fingerprint(prepare(faces(other, ["male", "female"] * 20, group=table["group"].tolist()), other)) == expected
    changed = [
        ready.iloc[1:],
        ready.assign(path=ready["path"].replace("0/00000.jpg", "0/x.jpg")),
        ready.assign(split=ready["split"].replace("test", "val")),
        ready.assign(group=ready["group"].replace("0", "1")),
        ready.drop(columns="group"),
        ready.assign(label=ready["label"].cat.rename_categories({"male": "man"})),
        ready.assign(label=ready["label"].cat.reorder_categories(["male", "female"])),
        ready.assign(label=ready["label"].array[::-1]),
    ]
    assert len({expected, *map(fingerprint, changed)}) == len(changed) + 1


# real data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_class", [None, {"train": 1600, "val": 800}])
def test_prepare_gives_the_same_table_for_imfdb_and_csv(shared, per_class):
    root = shared("data", "faces")
    one = prepare(imfdb.load(root), root, per_class=per_class)
    ages = {"label_column": "age", "bins": [30, 50], "classes": ["young", "middle", "old"]}
    table = csv.load(root, file="faces.csv", image_column="file", image_dir=None, **ages)
    two = prepare(table, root, per_class=per_class)
    pd.testing.assert_frame_equal(one, two[one.columns])
    assert fingerprint(one) == fingerprint(two)
    if per_class:
        sizes = {"train": [1600, 1600, 1600], "val": [800, 800, 796]}
        assert {
            split: one["label"][one["split"] == split].value_counts(sort=False).tolist() for split in sizes
        } == sizes


def test_prepare_splits_real_celeba_by_identity(shared):
    root = shared("data", "celeba")
    ready = prepare(celeba.load(root), root, split="identity")
    assert ready.groupby("group")["split"].nunique().max() == 1
    assert ready["split"].value_counts(normalize=True)["train"] == pytest.approx(0.7, abs=0.02)


def test_prepare_lists_each_folder_once(tmp_path, monkeypatch):
    table, listed = faces(tmp_path, ["male", "female"] * 50), []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(Path(folder).name) or scandir(folder))
    prepare(table, tmp_path)
    assert sorted(listed) == ["0", "1", "2"]


# left out ----------------------------------------------------------------------------------------------------------


def test_prepare_skips_missing_files_and_bad_labels_on_request(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 10)
    table["label"] = table["label"].astype(object)
    (tmp_path / table.loc[0, "path"]).unlink()
    folder = tmp_path / table.loc[1, "path"]
    folder.unlink()
    folder.mkdir()
    looping = tmp_path / table.loc[2, "path"]
    looping.unlink()
    looping.symlink_to(looping)
    table.loc[3, "path"] = "x" * 1_000_000
    table.loc[4, "label"] = None
    table.loc[5, "label"] = "baby"
    with pytest.raises(FaceattrError, match=r"missing file \(4\)") as error:
        prepare(table, tmp_path)
    assert "data.on_bad_label=skip" in str(error.value)
    ready = prepare(table, tmp_path, on_bad_image="skip", on_bad_label="skip")
    assert len(ready) == 14
    reasons = dict(ready.attrs["bad_images"])
    assert len(reasons) == 4 and reasons[table.loc[1, "path"]] == "a directory, not a file"
    assert ready.attrs["bad_labels"] == [(table.loc[4, "path"], ""), (table.loc[5, "path"], "baby")]


def test_prepare_finds_files_behind_links_and_unicode_forms_and_names_another_suffix(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    table = faces(tmp_path / "real", ["male", "female"] * 10)
    expected = sorted(table["path"])
    table.loc[0, "path"] = str(tmp_path / "real" / table.loc[0, "path"])
    assert prepare(table, link)["path"].tolist() == expected
    (tmp_path / "real" / "e\u0301.jpg").touch()
    table.loc[1, "path"] = "\u00e9.jpg"
    assert "e\u0301.jpg" in prepare(table, link)["path"].tolist()
    (tmp_path / "real" / "a.png").touch()
    table.loc[1, "path"] = "a.jpg"
    with pytest.raises(FaceattrError, match=r"missing file; a\.png is there, with another suffix.* \(1\): a\.jpg"):
        prepare(table, link)


def test_prepare_refuses_an_attribute_with_one_value_in_train(tmp_path):
    table = faces(tmp_path, [""] * 40).drop(columns="label").assign(Hat=[0.0, 1.0] * 20, Beard=0.0)
    table.attrs.update(classes=["Hat", "Beard"], multilabel=True)
    with pytest.raises(FaceattrError, match=r"training images have the same value \(1\): Beard \(always no\)"):
        prepare(table, tmp_path)


def test_load_table_says_which_classes_are_small(tmp_path, caplog):
    table = faces(tmp_path, ["male", "female"] * 30 + ["03-Sep"] * 4)
    table.attrs["classes"] = [*CLASSES, "03-Sep"]
    load_table(table, Data(root=str(tmp_path), seed=0))
    assert "fewer than 5 images or under 1%: 03-Sep (4)" in caplog.text


def test_load_table_shortens_lists_of_ten_thousand_classes(tmp_path):
    table = faces(tmp_path, ["male", "female"] * 5)
    with pytest.raises(FaceattrError) as error:
        prepare(table, tmp_path, classes=[f"person {i}" for i in range(10_000)])
    assert len(str(error.value)) < 3000


@pytest.mark.parametrize("path", ["images/images/0.png", "C:/my data/images/0.png"])
def test_prepare_says_where_a_missing_file_is(tmp_path, path):
    table = faces(tmp_path, ["train"] * 4)
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / "0.png").touch()
    table.loc[0, "path"] = path
    with pytest.raises(FaceattrError, match=r"; images/0\.png is there: .*data\.image_dir=null"):
        prepare(table, tmp_path)


def test_shortened_keeps_the_ten_commonest_classes_and_counts_the_others():
    counts = pd.DataFrame({"train": range(1, 15), "val": [1] * 14}, index=[f"c{n}" for n in range(14)])
    short = shortened(counts)
    assert short.index.tolist() == [f"c{n}" for n in range(4, 14)] + ["4 others"]
    assert short.loc["4 others"].tolist() == [10, 4] and short.to_numpy().sum() == counts.to_numpy().sum()
    assert len(shortened(counts[:10])) == 10


def test_prepare_refuses_class_names_that_cannot_be_shown(tmp_path):
    table = faces(tmp_path, ["a\nb", "c"] * 20)
    table.attrs["classes"] = ["a\nb", "c"]
    with pytest.raises(FaceattrError, match=r"class name of several lines, or over 200 characters \(1\)"):
        prepare(table, tmp_path)
