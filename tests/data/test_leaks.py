"""The leakage audit: planted copies are found and named, other people are not, and what follows from them is right."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import places
from PIL import Image, ImageEnhance
from programs import Ended, quick

from faceattr.config import schema
from faceattr.data import array_cache, duplicates, leaks, table
from faceattr.data.datamodule import FaceData
from faceattr.data.decode import InputSpec, read
from faceattr.data.leaks import Leakage
from faceattr.data.sources import csv, sample

SPEC = InputSpec(64, 64, "bilinear", "unit")
COPIES = {
    "same": "same file",
    "encoded": "near-duplicate",
    "half": "near-duplicate",
    "dark": "near-duplicate",
    "centre": "near-duplicate",
    "corner": "near-duplicate",
    "mirrored": "mirrored",
    "mirrored_centre": "mirrored",
}
"""How each planted image was made → what it is called."""


def crop(image: Image.Image, side: float, x: float, y: float) -> Image.Image:
    size = np.array(image.size)
    left, top = (size * (1 - side) * (x, y)).tolist()
    return image.resize(image.size, Image.Resampling.BICUBIC, (left, top, *(size * side + (left, top)).tolist()))


def plant(folder: Path, how: str, original: Path) -> str:
    image, name = Image.open(original), f"{original.stem}_{how}.jpg"
    flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    made = {
        "encoded": image,
        "half": image.resize((image.width // 2, image.height // 2)),
        "dark": ImageEnhance.Brightness(image).enhance(0.85),
        "centre": crop(image, 0.8, 0.5, 0.5),
        "corner": crop(image, 0.95, 0, 1),
        "mirrored": flipped,
        "mirrored_centre": crop(flipped, 0.92, 0.5, 0.5),
    }
    if how == "same":
        shutil.copy(original, folder / name)
    else:
        made[how].save(folder / name, quality=50 if how == "encoded" else 90)
    return name


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """30 faces, two or one a person, in turn train, val and test; a copy of every kind in another split than its original."""
    root = sample.write("csv", tmp_path_factory.mktemp("faces") / "csv", n=30, image_size=128, sample_seed=3)
    files = sorted((root / "images").iterdir())
    faces = [
        [file.name, "ab"[i % 2], ["train", "val", "test"][i % 3], f"p{i // 2 if i < 20 else i}"]
        for i, file in enumerate(files)
    ]
    for i, how in enumerate(COPIES):
        _, label, split, person = faces[i]
        other = "val" if split == "train" else "train"
        faces.append([plant(root / "images", how, files[i]), "a" if how == "dark" else label, other, person])
    pd.DataFrame(faces, columns=["file", "label", "split", "person"]).to_csv(root / "faces.csv", index=False)
    return root


def prepared(root: Path, **more: object) -> pd.DataFrame:
    return table.prepare(
        csv.load(str(root), file="faces.csv", image_column="file", label_column="label", split_column="split"),
        root,
        **more,
    )


def data_of(root: Path, rows: pd.DataFrame | None = None, **keys: object) -> FaceData:
    rows = prepared(root) if rows is None else rows
    return FaceData(rows, schema.Data(root=str(root), workers=1, **keys), SPEC)


@pytest.fixture(scope="module")
def data(root, cache) -> FaceData:
    return data_of(root)


@pytest.fixture(scope="module")
def leakage(data) -> Leakage:
    return leaks.find(data)


def how_of(name: str) -> str:
    return Path(name).stem.partition("_")[2]


def test_every_planted_copy_is_found_and_named_and_nothing_else(leakage):
    found = {how_of(pair.other): pair for pair in leakage.pairs.itertuples()}
    assert {how: pair.kind for how, pair in found.items()} == COPIES
    assert len(leakage.pairs) == len(COPIES), "two people are taken for one image"
    assert all(Path(pair.path).stem == Path(pair.other).stem[:6] for pair in found.values())
    assert all(pair.split != pair.other_split and pair.similarity >= duplicates.SAME for pair in found.values())
    assert found["same"].similarity == 1 and found["same"].distance == 0


def test_labels_that_differ_are_a_conflict(leakage, data):
    assert [how_of(name) for name in leakage.pairs["other"][leakage.pairs["conflict"]]] == ["dark"]
    attributes = {"x": {"same": 0.0, "half": np.nan}, "y": {"half": 0.0, "dark": np.nan}}  # of the copies; else 1
    rows = data.table[["path", "split"]].assign(
        **{name: [of.get(how_of(path), 1.0) for path in data.table["path"]] for name, of in attributes.items()}
    )
    rows.attrs.update(classes=["x", "y"], ordinal=False, multilabel=True)
    several = data_of(Path(data.settings.root))
    several.table = rows
    pairs = leaks.find(several).pairs
    assert {how_of(name) for name in pairs["other"][pairs["conflict"]]} == {"same", "half"}


def test_status_says_what_training_has_seen(data, leakage):
    rows = data.table
    val = leaks.status(rows, leakage)[rows["split"] == "val"]
    assert list(val.index) == list(np.flatnonzero(rows["split"] == "val"))
    train = set(rows["path"][rows["split"] == "train"])
    pairs = leakage.pairs[["path", "other"]].to_numpy()
    copied = {name for pair in pairs for name, twin in (pair, pair[::-1]) if twin in train}
    assert {
        path for path, of in zip(rows["path"][val.index], val, strict=True) if of == "copy in train"
    } == copied & set(rows["path"][val.index])
    assert set(val) == {"copy in train", "clean"}
    people = rows.assign(identity=rows["person"])
    known = people["identity"].isin(people["identity"][people["split"] == "train"])
    found = leaks.status(people, leakage)[people["split"] == "val"]
    assert (found[val == "clean"] == np.where(known[val.index], "person in train", "clean")[val == "clean"]).all()
    assert set(found) == {"copy in train", "person in train", "clean"}


def test_training_images_with_a_copy_elsewhere_go_and_then_nothing_leaks(data, leakage):
    gone = leaks.leaking_training_rows(data.table, leakage)
    assert len(gone) and set(data.table["split"][gone]) == {"train"}
    left = data.table.drop(index=gone).reset_index(drop=True)
    assert set(leaks.status(left, leakage).dropna()) == {"clean"}
    assert len(gone) == sum("train" in (pair.split, pair.other_split) for pair in leakage.pairs.itertuples())


def test_a_copy_of_a_copy_leaks(data):
    ends = data.table["path"].to_numpy()
    rows = data.table.assign(split=["val"] * 30 + ["train"] * 8)
    chain = pd.DataFrame({"path": [ends[0], ends[30]], "other": [ends[30], ends[31]]})
    assert leaks.leaking_training_rows(rows, Leakage(chain, None)).tolist() == [30, 31]


def test_people_in_two_splits_are_listed(root, data):
    assert leaks.find(data).identities is None
    frame = csv.load(
        str(root),
        file="faces.csv",
        image_column="file",
        label_column="label",
        split_column="split",
        group_column="person",
    )
    rows = table.prepare(frame, root, split="random")
    found = leaks.find(data_of(root, rows)).identities
    splits = rows.groupby("identity")["split"].agg(set)
    expected = {who: s for who, s in splits.items() if len(s) > 1}
    assert (
        expected
        and {who: set(s.split(", ")) for who, s in zip(found["identity"], found["splits"], strict=True)} == expected
    )
    assert found["images"].tolist() == rows.groupby("identity").size()[found["identity"]].tolist()


def test_one_line_and_flat_counts(leakage):
    n = leaks.summary(leakage)
    assert json.loads(json.dumps(n)) == n and n["pairs_across"] == 8 and n["pairs_within"] == 0 and n["mirrored"] == 2
    assert n["train_val"] + n["train_test"] + n["val_test"] == 8 and n["identities_in_two_splits"] is None
    line = leaks.describe(leakage)
    assert line.startswith("Leakage: 8 pairs of copies across splits (") and "1 with different labels" in line
    assert f"{n['train_val']} train–val" in line and "\n" not in line and line.endswith("no identities known")
    nobody = pd.DataFrame(columns=["identity", "splits", "images"])
    assert leaks.describe(Leakage(leakage.pairs[:0], nobody)) == (
        "Leakage: no copies across splits, 0 pairs within; no identities in two splits"
    )


@pytest.mark.parametrize("n", [1, 200])
def test_many_equal_images_make_few_pairs(tmp_path, root, n):
    original = next((root / "images").iterdir())
    for i in range(n):
        shutil.copy(original, tmp_path / f"{i:03}.jpg")
    for i, quality in enumerate((60, 70, 80)):
        Image.open(original).save(tmp_path / f"x{i}.jpg", quality=quality)
    files = sorted(file.name for file in tmp_path.iterdir())
    rows = pd.DataFrame({"path": files, "label": ["a", "b"] * (len(files) // 2) + ["a"] * (len(files) % 2)})
    rows.attrs.update(classes=["a", "b"], ordinal=False)
    pairs = leaks.find(data_of(tmp_path, table.prepare(rows, tmp_path, split=None))).pairs
    assert n + 2 <= len(pairs) <= n + 5 and (pairs["kind"] == "same file").sum() == n - 1
    assert set(pairs["path"]) | set(pairs["other"]) == set(files)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_images_without_detail_are_no_copies(tmp_path):
    for i, colour in enumerate(("black", "white", "grey", "black")):
        Image.new("RGB", (48, 48), colour).save(tmp_path / f"{i}.png")
    for i, (left, right) in enumerate(((90, 110), (120, 140)), 4):  # a wall in the light of a window
        grey = np.linspace(left, right, 48).round().astype(np.uint8)
        Image.fromarray(np.broadcast_to(grey[None, :, None], (48, 48, 3)).copy()).save(tmp_path / f"{i}.png")
    Image.new("RGB", (48, 48)).save(tmp_path / "6.bmp")
    files = sorted(file.name for file in tmp_path.iterdir())
    rows = pd.DataFrame({"path": files, "label": ["a", "b", "a", "b", "a", "b", "a"]})
    rows.attrs.update(classes=["a", "b"], ordinal=False)
    pairs = leaks.find(data_of(tmp_path, table.prepare(rows, tmp_path, split=None))).pairs
    assert pairs[["path", "other", "kind"]].values.tolist() == [["0.png", "3.png", "same file"]]


def test_the_hash_is_that_of_the_library(data):
    imagehash = pytest.importorskip("imagehash")
    images = next(duplicates._thumbnails(data, np.arange(8)))
    ours = duplicates._hash(images)[:, 0]
    order = duplicates.LOWEST_FIRST
    theirs = [
        imagehash.phash(Image.fromarray(i), duplicates.LOW, duplicates.SIDE // duplicates.LOW).hash.ravel()[order]
        for i in images
    ]
    assert (np.unpackbits(ours.view(np.uint8), axis=1) == np.array(theirs)).all()


def test_what_was_found_is_kept_and_found_again(root, tmp_path, monkeypatch):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path))
    first = leaks.find(data_of(root)).pairs
    (kept,) = array_cache.folder().glob("hashes-*.json")
    about = json.loads(kept.read_text())
    kept.write_text(json.dumps(about | {"pairs": {name: values[:3] for name, values in about["pairs"].items()}}))
    assert len(first) == 8 and len(leaks.find(data_of(root)).pairs) == 3, "was made again"
    one = root / first["path"][0]
    os.utime(one, ns=(0, one.stat().st_mtime_ns + 1))
    assert len(leaks.find(data_of(root)).pairs) == 8, "a file has changed since"


def test_without_room_to_keep_anything_the_same_is_found(root, leakage, tmp_path, monkeypatch):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path))
    monkeypatch.setenv("FACEATTR_CACHE_GB", "0")
    pd.testing.assert_frame_equal(leaks.find(data_of(root, pack="off")).pairs, leakage.pairs)
    assert not list(tmp_path.rglob("*.npy"))


ARGUMENTS = [
    "data=csv",
    "data.file=faces.csv",
    "data.image_column=file",
    "data.label_column=label",
    "data.split_column=split",
]


def audited(cwd: Path, *arguments: object) -> Ended:
    return quick("leaks", *ARGUMENTS, "model.image_size=[64,64]", *arguments, cwd=cwd)


def test_the_command_leaves_its_files(root, leakage, tmp_path):
    ended = audited(tmp_path, f"data.root={root}")
    assert ended.code == 0 and ended.err == "", ended.err
    (folder,) = (tmp_path / "outputs" / "leaks" / "csv").iterdir()
    assert {file.name for file in folder.iterdir()} == {
        *("duplicates.csv", "identities.csv", "audit.json", "pairs.png", "leaks.log", ".hydra")
    }
    pd.testing.assert_frame_equal(pd.read_csv(folder / "duplicates.csv"), leakage.pairs, check_dtype=False)
    assert (folder / "identities.csv").read_text() == "identity,splits,images\n"
    said = json.loads((folder / "audit.json").read_text())
    assert (
        said["images"] == 38
        and leaks.summary(leakage).items() <= said.items()
        and str(duplicates.SAME) in said["method"]
    )
    assert leaks.describe(leakage) in ended.out and leaks.describe(leakage) in (folder / "leaks.log").read_text()
    shown = [places(folder / "pairs.png", read(root / path, SPEC)) for path in leakage.pairs["path"]]
    assert all(shown), "an image of a pair is not in the picture"


def test_where_nothing_leaks_the_command_says_so(root, tmp_path):
    faces = pd.read_csv(root / "faces.csv")[:30]
    faces.to_csv(root / "clean.csv", index=False)
    ended = audited(
        tmp_path, f"data.root={root}", "data.file=clean.csv", "data.group_column=person", "data.split=identity"
    )
    assert ended.code == 0 and "no copies across splits" in ended.out and "no identities in two splits" in ended.out, (
        ended.err
    )
    (folder,) = (tmp_path / "outputs" / "leaks" / "csv").iterdir()
    assert len((folder / "duplicates.csv").read_text().splitlines()) == 1 and not (folder / "pairs.png").exists()
    assert (
        (folder / "duplicates.csv")
        .read_text()
        .startswith("path,other,split,other_split,kind,distance,similarity,conflict")
    )


def test_a_sweep_is_refused(tmp_path):
    ended = audited(tmp_path, "-m", "seed=1,2")
    assert ended.code == 1 and "one configuration" in ended.err and not list(tmp_path.iterdir())
