"""The sample source: what is drawn depends on its numbers alone, is used only when whole, and fits every layout."""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from signal_at import kill_at

from faceattr.data.sources import sample
from faceattr.data.sources.sample_people import imagine
from faceattr.errors import FaceattrError

SIZE = 32  # pixels: the smallest that still shows a face


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where 60 faces of `SIZE` are drawn once."""
    return tmp_path_factory.mktemp("drawn")


def contents(root: Path, table: pd.DataFrame) -> list[bytes]:
    return [(root / path).read_bytes() for path in table["path"]]


def test_load_gives_the_columns_of_the_contract(drawn: Path) -> None:
    table = sample.load(str(drawn), n=60, image_size=SIZE)
    assert list(table.columns[:3]) == ["path", "label", "group"]
    assert table["path"].str.startswith(f"v{sample.VERSION}_n60_size{SIZE}_seed0/images/").all()
    assert len(table) == table["path"].nunique() == 60
    assert table.attrs == {"classes": ["female", "male"], "ordinal": False}
    assert set(table["label"]) == {"female", "male"}
    assert all(isinstance(group, str) for group in table["group"])
    assert not table.isna().any().any()
    with Image.open(drawn / table["path"][0]) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (SIZE, SIZE))


def test_load_age_classes_are_ordered_and_fit_the_age(drawn: Path) -> None:
    table = sample.load(str(drawn), n=60, image_size=SIZE, attribute="age")
    assert table.attrs == {"classes": ["young", "middle", "old"], "ordinal": True}
    years = pd.cut(table["age"], [0, 30, 50, 200], right=False, labels=["young", "middle", "old"])
    assert (table["label"] == years).all()


def test_load_keeps_the_order_of_classes(tmp_path: Path) -> None:
    table = sample.load(str(tmp_path), n=6, image_size=SIZE, classes=["male", "female"])
    assert table.attrs["classes"] == ["male", "female"]


def test_load_gives_several_pictures_per_identity(tmp_path: Path) -> None:
    table = sample.load(str(tmp_path), n=100, image_size=16)
    whole = table.groupby("group").size().drop(table["group"].iloc[-1])  # the last may be cut off by n
    assert whole.between(3, 6).all()
    assert len(whole) > 15
    assert (table.groupby("group")[["gender", "age", "beard", "skin_tone"]].nunique() == 1).all().all()
    assert len(set(contents(tmp_path, table))) == 100


def test_load_pictures_do_not_depend_on_n(tmp_path: Path) -> None:
    few = sample.load(str(tmp_path), n=10, image_size=SIZE)
    many = sample.load(str(tmp_path), n=25, image_size=SIZE)
    assert contents(tmp_path, few) == contents(tmp_path, many)[:10]
    pd.testing.assert_frame_equal(few.drop(columns="path"), many.drop(columns="path")[:10])


def test_load_pictures_depend_on_sample_seed(tmp_path: Path) -> None:
    one = sample.load(str(tmp_path / "a"), n=10, image_size=SIZE)
    again = sample.load(str(tmp_path / "b"), n=10, image_size=SIZE)
    other = sample.load(str(tmp_path / "b"), n=10, image_size=SIZE, sample_seed=1)
    assert contents(tmp_path / "a", one) == contents(tmp_path / "b", again)
    assert not set(contents(tmp_path / "a", one)) & set(contents(tmp_path / "b", other))


@pytest.mark.slow
def test_draw_faces_gives_the_same_in_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = sample.load(str(tmp_path / "alone"), n=34, image_size=16)
    monkeypatch.setattr(sample, "POOL_FROM", 0)
    pooled = sample.load(str(tmp_path / "pooled"), n=34, image_size=16)  # two portions
    assert contents(tmp_path / "alone", alone) == contents(tmp_path / "pooled", pooled)


def test_load_draws_faces_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    table = sample.load(str(tmp_path), n=6, image_size=SIZE)
    drawn = {path: (tmp_path / path).stat().st_mtime_ns for path in table["path"]}
    again = sample.load(str(tmp_path), n=6, image_size=SIZE, attribute="age")
    assert drawn == {path: (tmp_path / path).stat().st_mtime_ns for path in again["path"]}
    first, second = (record.getMessage() for record in caplog.records)
    assert "6 GENERATED faces" in first
    assert f"into {tmp_path}" in first
    assert "6 GENERATED faces" in second
    assert f"from {tmp_path}" in second


def test_load_ignores_an_incomplete_folder(tmp_path: Path) -> None:
    load = f"from faceattr.data.sources.sample import load; load({str(tmp_path)!r}, n=9, image_size={SIZE})"
    kill_at("**/*.jpg", tmp_path, load)
    left = [folder.name for folder in tmp_path.iterdir()]
    assert left and all(name.startswith(".") for name in left), "a draft, and the lock of its process"
    table = sample.load(str(tmp_path), n=9, image_size=SIZE)
    assert all((tmp_path / path).is_file() for path in table["path"])


def test_load_leaves_no_files_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample, "draw_faces", fail)
    with pytest.raises(FaceattrError, match="No space left"):
        sample.load(str(tmp_path), n=6, image_size=SIZE)
    assert not list(tmp_path.iterdir())


def test_load_twice_at_once_draws_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    draw_faces = sample.draw_faces

    def slowly(*arguments: Any) -> None:
        started.append(1)
        time.sleep(0.3)  # the other one comes to the lock
        draw_faces(*arguments)

    monkeypatch.setattr(sample, "draw_faces", slowly)
    with ThreadPoolExecutor(2) as pool:
        tables = list(pool.map(lambda _: sample.load(str(tmp_path), n=6, image_size=SIZE), range(2)))
    assert len(started) == 1 and [len(contents(tmp_path, table)) for table in tables] == [6, 6]
    assert [folder.name for folder in tmp_path.iterdir()] == [f"v{sample.VERSION}_n6_size{SIZE}_seed0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n=0"),
        ({"image_size": 4}, "image_size=4"),
        ({"sample_seed": -1}, "sample_seed=-1"),
    ],
)
def test_load_refuses_invalid_arguments(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(FaceattrError, match=message):
        sample.load(str(tmp_path), **arguments)
    assert not list(tmp_path.iterdir())


def test_imagine_features_overlap_between_the_genders() -> None:
    people = [imagine(identity, 0, 0) for identity in range(600)]
    for feature in ("jaw", "brow", "lips", "build"):
        women, men = (
            [getattr(one, feature) for one in people if one.gender == gender] for gender in ("female", "male")
        )
        assert np.mean(women) != pytest.approx(np.mean(men), abs=0.05)
        assert max(min(women), min(men)) < min(np.mean(women), np.mean(men)) + 0.25
        assert min(max(women), max(men)) > max(min(women), min(men))
    assert {one.hair_length for one in people if one.gender == "male"} == {"none", "short", "medium", "long"}
    assert any(one.hair_length == "short" for one in people if one.gender == "female")


def test_write_csv_layout(tmp_path: Path) -> None:
    out = sample.write("csv", tmp_path / "out", n=20, image_size=SIZE)
    index = pd.read_csv(out / "results.csv")
    assert list(index.columns) == ["Filename", "Gender", "Age"]
    faces = sample.load(str(tmp_path / "cache"), n=20, image_size=SIZE)
    assert index["Gender"].tolist() == [{"male": 0, "female": 1}[gender] for gender in faces["gender"]]
    assert index["Age"].tolist() == faces["age"].tolist()
    files = [(out / "images" / name).read_bytes() for name in index["Filename"]]
    assert files == contents(tmp_path / "cache", faces)
    assert sorted(p.name for p in out.iterdir()) == ["images", "results.csv"]


def test_write_folders_layout(tmp_path: Path, drawn: Path) -> None:
    out = sample.write("folders", tmp_path / "out", n=60, image_size=SIZE)
    files = sorted(out.rglob("*.jpg"), key=lambda file: file.name)
    assert len(files) == 60
    assert {file.relative_to(out).parts[0] for file in files} == {"Train", "Validation", "Test"}
    faces = sample.load(str(drawn), n=60, image_size=SIZE)
    assert [file.parent.name.lower() for file in files] == faces["gender"].tolist()
    split = pd.Series([file.parent.parent.name for file in files])
    assert (split.groupby(faces["group"]).nunique() == 1).all()
    assert (faces["gender"].groupby(split).nunique() == 2).all()


def test_write_celeba_layout(tmp_path: Path, drawn: Path) -> None:
    out = sample.write("celeba", tmp_path / "out", n=60)
    names = [f"{i:06d}.jpg" for i in range(1, 61)]
    assert sorted(file.name for file in (out / "img_align_celeba").iterdir()) == names
    with Image.open(out / "img_align_celeba" / names[0]) as picture:
        assert picture.size == (178, 218)
    count, header, *rows = (out / "list_attr_celeba.txt").read_text().splitlines()
    assert count == "60"
    attributes = pd.DataFrame([row.split()[1:] for row in rows], columns=header.split()).astype(int)
    assert [row.split()[0] for row in rows] == names
    assert set(attributes.to_numpy().ravel()) == {-1, 1}
    faces = sample.load(str(drawn), n=60, image_size=SIZE)
    assert ((attributes["Male"] == 1) == (faces["gender"] == "male")).all()
    assert ((attributes["Eyeglasses"] == 1) == (faces["glasses"] != "none")).all()
    part = pd.Series([int(line.split()[1]) for line in (out / "list_eval_partition.txt").read_text().splitlines()])
    identity = pd.Series([int(line.split()[1]) for line in (out / "identity_CelebA.txt").read_text().splitlines()])
    assert set(part) == {0, 1, 2}
    assert (part.groupby(identity).nunique() == 1).all()
    assert identity.nunique() == faces["group"].nunique()


def test_write_imfdb_layout(tmp_path: Path) -> None:
    out = sample.write("imfdb", tmp_path / "out", n=40, image_size=SIZE)
    index = pd.read_csv(out / "train.csv")
    assert list(index.columns) == ["ID", "Class"]
    assert set(index["Class"]) == {"YOUNG", "MIDDLE", "OLD"}
    assert sorted(file.name for file in (out / "Train").iterdir()) == index["ID"].tolist()


def test_write_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FaceattrError, match="not empty"):
        sample.write("csv", tmp_path, n=3, image_size=SIZE)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_write_accepts_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (sample.write("csv", tmp_path / "out", n=3, image_size=SIZE) / "results.csv").is_file()


def test_main_writes_a_layout_without_torch(tmp_path: Path) -> None:
    line = [sys.executable, "-X", "importtime", "-m", "faceattr.data.sources.sample"]
    done = subprocess.run(
        [*line, "layout=imfdb", "n=12", "image_size=32", "out=out"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "12 generated faces" in done.stdout and "out" in done.stdout
    assert len(list((tmp_path / "out" / "Train").iterdir())) == 12
    assert not re.search(r"\| +torch$", done.stderr, re.M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layot=csv", "out=x"], "layot"),
        (["layout=imdb", "out=x"], "csv, folders, celeba, imfdb"),
        (["layout=csv"], "out. Usage: layout=… out=…"),
        ([], "layout. Usage: layout=… out=…"),
        (["layout=csv", "out=x", "n=many"], "many"),
    ],
)
def test_main_errors_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sample.main(arguments) == 1
    written = capsys.readouterr()
    assert message in written.err and written.out == ""
    assert len(written.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_write_removes_what_a_killed_process_left(tmp_path):
    (tmp_path / ".faces.draft" / "images").mkdir(parents=True)
    (tmp_path / ".faces.draft" / "images" / "half.jpg").touch()
    sample.write("csv", tmp_path / "faces", n=2, image_size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]
    assert len(list((tmp_path / "faces" / "images").iterdir())) == 2
