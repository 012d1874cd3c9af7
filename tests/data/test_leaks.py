"""The leakage audit: copies are found by kind, other people are not; summary, status, policy, cache and the command."""

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import places
from PIL import Image, ImageEnhance
from programs import Ended, inside

from faceattr.config import schema
from faceattr.data import disk_cache, duplicates, leaks, perceptual_hash, table
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
"""How a copy is made → its kind."""


def crop(image: Image.Image, side: float, x: float, y: float) -> Image.Image:
    size = np.array(image.size)
    left, top = (size * (1 - side) * (x, y)).tolist()
    return image.resize(image.size, Image.Resampling.BICUBIC, (left, top, *(size * side + (left, top)).tolist()))


def write_copy(folder: Path, how: str, original: Path) -> str:
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
    """30 faces, one or two per person, in train, val and test in turn; a copy of each kind, in another split."""
    root = sample.write("csv", tmp_path_factory.mktemp("faces") / "csv", n=30, image_size=128, sample_seed=3)
    files = sorted((root / "images").iterdir())
    faces = [
        [file.name, "ab"[i % 2], ["train", "val", "test"][i % 3], f"p{i // 2 if i < 20 else i}"]
        for i, file in enumerate(files)
    ]
    for i, how in enumerate(COPIES):
        _, label, split, person = faces[i]
        other = "val" if split == "train" else "train"
        faces.append([write_copy(root / "images", how, files[i]), "a" if how == "dark" else label, other, person])
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


def kind_of_copy(name: str) -> str:
    return Path(name).stem.partition("_")[2]


def test_find_gives_exactly_the_copies_with_their_kind(leakage):
    pairs = {kind_of_copy(pair.other): pair for pair in leakage.pairs.itertuples()}
    assert {how: pair.kind for how, pair in pairs.items()} == COPIES
    assert len(leakage.pairs) == len(COPIES), "two people are reported as copies"
    assert all(Path(pair.path).stem == Path(pair.other).stem[:6] for pair in pairs.values())
    assert all(
        pair.split != pair.other_split and pair.similarity >= duplicates.MIN_DETAIL_CORRELATION
        for pair in pairs.values()
    )
    assert pairs["same"].similarity == 1 and pairs["same"].distance == 0


def test_find_marks_different_labels_as_conflict(leakage, data):
    assert [kind_of_copy(name) for name in leakage.pairs["other"][leakage.pairs["conflict"]]] == ["dark"]
    attributes = {
        "x": {"same": 0.0, "half": np.nan},
        "y": {"half": 0.0, "dark": np.nan},
    }  # values of the copies; all others are 1
    rows = data.table[["path", "split"]].assign(
        **{name: [of.get(kind_of_copy(path), 1.0) for path in data.table["path"]] for name, of in attributes.items()}
    )
    rows.attrs.update(classes=["x", "y"], ordinal=False, multilabel=True)
    several = data_of(Path(data.settings.root))
    several.table = rows
    pairs = leaks.find(several).pairs
    assert {kind_of_copy(name) for name in pairs["other"][pairs["conflict"]]} == {"same", "half"}


def test_status_marks_copies_and_people_of_train(data, leakage):
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
    statuses = leaks.status(people, leakage)[people["split"] == "val"]
    assert (statuses[val == "clean"] == np.where(known[val.index], "person in train", "clean")[val == "clean"]).all()
    assert set(statuses) == {"copy in train", "person in train", "clean"}


def test_leaking_training_rows_are_all_that_leak(data, leakage):
    leaking = leaks.leaking_training_rows(data.table, leakage)
    assert len(leaking) and set(data.table["split"][leaking]) == {"train"}
    rest = data.table.drop(index=leaking).reset_index(drop=True)
    assert set(leaks.status(rest, leakage).dropna()) == {"clean"}
    assert len(leaking) == sum("train" in (pair.split, pair.other_split) for pair in leakage.pairs.itertuples())


def test_leaking_training_rows_include_copies_of_copies(data):
    ends = data.table["path"].to_numpy()
    rows = data.table.assign(split=["val"] * 30 + ["train"] * 8)
    chain = pd.DataFrame({"path": [ends[0], ends[30]], "other": [ends[30], ends[31]]})
    assert leaks.leaking_training_rows(rows, Leakage(chain, None)).tolist() == [30, 31]


def test_find_lists_identities_in_two_splits(root, data):
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
    identities = leaks.find(data_of(root, rows)).identities
    splits = rows.groupby("identity")["split"].agg(set)
    expected = {who: s for who, s in splits.items() if len(s) > 1}
    assert (
        expected
        and {who: set(s.split(", ")) for who, s in zip(identities["identity"], identities["splits"], strict=True)}
        == expected
    )
    assert identities["images"].tolist() == rows.groupby("identity").size()[identities["identity"]].tolist()


def test_summary_counts_and_describe_is_one_line(leakage):
    n = leaks.summary(leakage)
    assert json.loads(json.dumps(n)) == n and n["pairs_across"] == 8 and n["pairs_within"] == 0 and n["mirrored"] == 2
    assert n["train_val"] + n["train_test"] + n["val_test"] == 8 and n["identities_in_two_splits"] is None
    line = leaks.describe(leakage)
    assert line.startswith("Leakage: 8 pairs of copies across splits (") and "1 with different labels" in line
    assert f"{n['train_val']} train–val" in line and "\n" not in line and line.endswith("no identities known")
    no_identities = pd.DataFrame(columns=["identity", "splits", "images"])
    assert leaks.describe(Leakage(leakage.pairs[:0], no_identities)) == (
        "Leakage: no copies across splits, 0 pairs within; no identities in two splits"
    )


@pytest.mark.parametrize("n", [1, 200])
def test_find_pairs_equal_images_with_the_first_only(tmp_path, root, n):
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
def test_find_ignores_images_without_detail(tmp_path):
    for i, colour in enumerate(("black", "white", "grey", "black")):
        Image.new("RGB", (48, 48), colour).save(tmp_path / f"{i}.png")
    for i, (left, right) in enumerate(((90, 110), (120, 140)), 4):  # smooth gradients
        grey = np.linspace(left, right, 48).round().astype(np.uint8)
        Image.fromarray(np.broadcast_to(grey[None, :, None], (48, 48, 3)).copy()).save(tmp_path / f"{i}.png")
    Image.new("RGB", (48, 48)).save(tmp_path / "6.bmp")
    files = sorted(file.name for file in tmp_path.iterdir())
    rows = pd.DataFrame({"path": files, "label": ["a", "b", "a", "b", "a", "b", "a"]})
    rows.attrs.update(classes=["a", "b"], ordinal=False)
    pairs = leaks.find(data_of(tmp_path, table.prepare(rows, tmp_path, split=None))).pairs
    assert pairs[["path", "other", "kind"]].values.tolist() == [["0.png", "3.png", "same file"]]


def test_perceptual_hashes_equal_imagehash(data):
    imagehash = pytest.importorskip("imagehash")
    images = next(duplicates.thumbnails(data, np.arange(8)))
    hashes = perceptual_hash.perceptual_hashes(images)[:, 0]
    order = perceptual_hash.LOWEST_FIRST
    expected = [
        imagehash.phash(
            Image.fromarray(i), perceptual_hash.LOW, perceptual_hash.SIDE // perceptual_hash.LOW
        ).hash.ravel()[order]
        for i in images
    ]
    assert (np.unpackbits(hashes.view(np.uint8), axis=1) == np.array(expected)).all()


def test_find_caches_pairs_until_a_file_changes(root, tmp_path, monkeypatch):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path))
    first = leaks.find(data_of(root)).pairs
    (file,) = disk_cache.folder().glob("hashes-*.json")
    stored = json.loads(file.read_text())
    metadata = {"pairs": {name: values[:3] for name, values in stored["metadata"]["pairs"].items()}}
    file.write_text(json.dumps(stored | {"metadata": metadata, "crc": zlib.crc32(json.dumps(metadata).encode())}))
    assert len(first) == 8 and len(leaks.find(data_of(root)).pairs) == 3, "did not use the cache"
    one = root / first["path"][0]
    os.utime(one, ns=(0, one.stat().st_mtime_ns + 1))
    assert len(leaks.find(data_of(root)).pairs) == 8, "used an outdated cache"


def test_find_works_without_room_for_a_cache(root, leakage, tmp_path, monkeypatch):
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


def run_audit(cwd: Path, *arguments: object) -> Ended:
    return inside("leaks", *ARGUMENTS, "model.image_size=[64,64]", *arguments, cwd=cwd)


def test_command_writes_its_files(root, leakage, tmp_path):
    ended = run_audit(tmp_path, f"data.root={root}")
    assert ended.code == 0 and ended.err == "", ended.err
    (folder,) = (tmp_path / "outputs" / "leaks" / "csv").iterdir()
    assert {file.name for file in folder.iterdir()} == {
        *("duplicates.csv", "identities.csv", "audit.json", "pairs.png", "leaks.log", ".hydra")
    }
    pd.testing.assert_frame_equal(pd.read_csv(folder / "duplicates.csv"), leakage.pairs, check_dtype=False)
    assert (folder / "identities.csv").read_text() == "identity,splits,images\n"
    audit = json.loads((folder / "audit.json").read_text())
    assert (
        audit["images"] == 38
        and leaks.summary(leakage).items() <= audit.items()
        and str(duplicates.MIN_DETAIL_CORRELATION) in audit["method"]
    )
    assert leaks.describe(leakage) in ended.out and leaks.describe(leakage) in (folder / "leaks.log").read_text()
    shown = [places(folder / "pairs.png", read(root / path, SPEC)) for path in leakage.pairs["path"]]
    assert all(shown), "an image of a pair is not in the picture"


def test_command_reports_that_nothing_leaks(root, tmp_path):
    faces = pd.read_csv(root / "faces.csv")[:30]
    faces.to_csv(root / "clean.csv", index=False)
    ended = run_audit(
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


def test_command_refuses_a_sweep(tmp_path):
    ended = run_audit(tmp_path, "-m", "seed=1,2")
    assert ended.code == 1 and "one configuration" in ended.err and not list(tmp_path.iterdir())
