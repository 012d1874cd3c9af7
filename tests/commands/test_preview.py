"""What is seen before training: the table, the counts and the pictures are those of the run that would follow."""

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from composing import compose_config
from omegaconf import OmegaConf
from pictures import places
from PIL import Image
from programs import ROOT, TINY, Ended, inside, tiny_run

from faceattr.commands import preview
from faceattr.config import schema
from faceattr.data.augment import Augmentation
from faceattr.data.decode import InputSpec, read
from faceattr.data.sources import sample
from faceattr.errors import FaceattrError

MADE = {"samples.png", "augmented.png", "table.csv", "table.npy", "counts.csv", "counts.png", "preview.log", ".hydra"}
ALIGNED = ("faces=align", "model.image_size=[32,32]", "model.scaling=unit", "model.interpolation=bilinear")
SPEC = InputSpec(32, 32, "bilinear", "unit")


def previewed(cwd: Path, *arguments: object) -> Ended:
    """What `faceattr preview` does, in a process that has imported torch already."""
    return inside("preview", *arguments, cwd=cwd)


def pixels(root: Path, paths: pd.Series) -> list[np.ndarray]:
    return [read(root / path, SPEC) for path in paths]


@pytest.fixture(scope="module")
def typed(tmp_path_factory) -> tuple[Path, str]:
    """The folder that the command makes, as a user types it, and what it says."""
    cwd = tmp_path_factory.mktemp("typed")
    ended = previewed(cwd, *TINY, "augment=keras_40")
    assert ended.code == 0 and ended.err == "", ended.err
    (folder,) = (cwd / "outputs" / "preview" / "sample_keras_40").iterdir()
    return folder, ended.out


@pytest.fixture(scope="module")
def root(cache) -> Path:
    """Where the sample's paths begin."""
    return cache / "sample"


def test_the_table_is_the_one_that_training_writes(typed, tmp_path):
    folder, _ = typed
    assert {path.name for path in folder.iterdir()} == MADE
    run = tiny_run(tmp_path / "run", "trainer.max_epochs=1")
    assert (folder / "table.csv").read_bytes() == (run / "table.csv").read_bytes()


def test_the_ground_truth_loads_without_pickle(typed):
    folder, _ = typed
    truth = np.load(folder / "table.npy", allow_pickle=False)
    assert truth.dtype.kind == "U" and truth.shape == (60, 3)
    table = pd.read_csv(folder / "table.csv")
    assert truth.tolist() == table[["path", "label", "split"]].values.tolist()


def test_counts_are_those_of_the_table(typed):
    folder, said = typed
    counts, table = pd.read_csv(folder / "counts.csv", index_col="label"), pd.read_csv(folder / "table.csv")
    assert list(counts.index) == ["female", "male"] and list(counts) == ["train", "val", "test"]
    for (label, split), count in counts.stack().items():
        assert count == ((table["label"] == label) & (table["split"] == split)).sum()
    assert all(
        any(line.split() == [str(v) for v in row] for line in said.splitlines()) for row in counts.reset_index().values
    )


def test_samples_are_training_images_in_the_row_of_their_class(typed, root):
    folder, _ = typed
    table = pd.read_csv(folder / "table.csv")
    images = zip(table["path"], pixels(root, table["path"]), strict=True)
    found = {path: places(folder / "samples.png", image) for path, image in images}
    shown = table[table["path"].map(found).map(len) > 0]
    assert set(shown["split"]) == {"train"} and shown["label"].value_counts().to_dict() == {"female": 8, "male": 8}
    rows = {label: {found[path][0][0] for path in paths} for label, paths in shown.groupby("label")["path"]}
    assert len(rows["female"]) == len(rows["male"]) == 1 and max(rows["female"]) < min(rows["male"])


def test_augmented_versions_are_what_training_makes(typed, root):
    folder, _ = typed
    table = pd.read_csv(folder / "table.csv")
    train = pixels(root, table["path"][table["split"] == "train"])
    (original,) = [image for image in train if places(folder / "augmented.png", image)]
    (first,) = places(folder / "augmented.png", original)
    augmentation = Augmentation(OmegaConf.load(ROOT / "conf" / "augment" / "keras_40.yaml"))
    batch = torch.from_numpy(np.stack([original] * 15)).permute(0, 3, 1, 2)
    versions = augmentation(batch, torch.Generator().manual_seed(0)).permute(0, 2, 3, 1).numpy()
    where = [places(folder / "augmented.png", version) for version in versions]
    assert all(len(found) == 1 for found in where), "a version is missing, or another draw"
    assert [first, *(found[0] for found in where)] == sorted([first, *(found[0] for found in where)])


def test_the_same_pictures_again_and_others_with_another_seed(typed, tmp_path):
    folder, _ = typed
    for name, seed in (("again", 0), ("other", 1)):
        ended = previewed(tmp_path, *TINY, "augment=keras_40", f"seed={seed}", "data.seed=0", f"hydra.run.dir={name}")
        assert ended.code == 0 and ended.err == "", ended.err
    for name in ("samples.png", "augmented.png", "table.npy", "counts.png"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "other" / "table.npy").read_bytes() == (folder / "table.npy").read_bytes()
    for name in ("samples.png", "augmented.png"):
        assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return sample.write("folders", tmp_path_factory.mktemp("data") / "folders", n=60, image_size=32)


def test_a_preset_without_augmentation_on_class_folders(folders, tmp_path):
    preset = ["experiment=vgg16_last_block", "augment=none", "model.image_size=[32,32]"]
    ended = previewed(tmp_path, "data=folders", f"data.root={folders}", *preset, "hydra.run.dir=here")
    assert ended.code == 0 and ended.err == "", ended.err
    table = pd.read_csv(tmp_path / "here" / "table.csv")
    assert sorted(table["path"]) == sorted(p.relative_to(folders).as_posix() for p in folders.rglob("*.jpg"))
    augmented = [len(places(tmp_path / "here" / "augmented.png", image)) for image in pixels(folders, table["path"])]
    assert sorted(augmented)[-2:] == [0, 16], "one image, sixteen times the same"


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({}, ["augment=mine: training images stay as they are", "every range is 0", "unchanged"]),
        (
            {"rotation": 10.0, "flip": True},
            ["augment=mine: 15 versions of a training image", "rotation 10, flip", "15"],
        ),
    ],
)
def test_the_picture_says_whether_images_change(tmp_path, ranges, said):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        preview.write_augmented(image, schema.Augment(**ranges), 0, "mine", tmp_path / "augmented.svg")
    text = (tmp_path / "augmented.svg").read_text(encoding="utf-8")
    assert not [part for part in [*said, "original"] if f">{part}</text>" not in text]


def test_unreadable_images_are_named_or_left_out(folders, tmp_path):
    broken = shutil.copytree(folders, tmp_path / "broken")
    table = ["data=folders", f"data.root={broken}", "model.image_size=[32,32]"]
    for file in sorted(broken.rglob("*.jpg"))[::2]:
        file.write_bytes(b"no image at all")
    (tmp_path / "cwd").mkdir()
    ended = previewed(tmp_path / "cwd", *table)
    assert ended.code == 1 and ended.err.startswith("Error: ") and ended.err.count("\n") == 2, ended.err
    assert ".jpg cannot be read: not an image file" in ended.err and "data.on_bad_image=skip" in ended.err
    assert not list((tmp_path / "cwd").iterdir())
    ended = previewed(tmp_path / "cwd", *table, "data.on_bad_image=skip", "hydra.run.dir=here")
    assert ended.code == 0 and "Left out" in ended.out, ended.err
    whole = pd.Series([file.relative_to(folders).as_posix() for file in sorted(folders.rglob("*.jpg"))[1::2]])
    shown = [places(tmp_path / "cwd" / "here" / "samples.png", image) for image in pixels(folders, whole)]
    assert sum(map(len, shown)) == 16, "eight of each class, none of them broken"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data.rooot=here"], ["data.rooot", "Did you mean data.root?"]),
        (["data=csv", "data.root=/none/such"], ["data.root", "/none/such", "results.csv"]),
        (["augment=keras_50"], ["augment=keras_50", "no such option", "keras_40"]),
        (["-m", "seed=1,2"], ["one configuration", "-m"]),
    ],
)
def test_one_message_and_nothing_left(tmp_path, arguments, said):
    ended = inside("preview", *arguments, cwd=tmp_path)
    assert ended.code == 1 and ended.err.startswith("Error: ") and ended.err.count("Error: ") == 1, ended
    assert "Traceback" not in ended.err and not [part for part in said if part not in ended.err], ended.err
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_overrides_may_stand_before_and_after_flags(tmp_path):
    for arguments in (["data=csv", "--cfg", "job"], ["--cfg", "job", "data=csv"]):
        ended = previewed(tmp_path, *arguments)
        assert ended.code == 0 and "results.csv" in ended.out, ended.err


def test_attributes_are_shown_by_who_has_them(root, tmp_path):
    ended = previewed(tmp_path, *TINY, "data.attributes=[Smiling,Male]", "hydra.run.dir=seen")
    assert ended.code == 0, ended.err
    table, counts = (pd.read_csv(tmp_path / "seen" / f"{name}.csv") for name in ("table", "counts"))
    assert counts["label"].tolist() == ["Smiling", "Male"]
    for split in ("train", "val", "test"):
        assert counts[split].tolist() == table[table["split"] == split][["Smiling", "Male"]].sum().tolist()
    rows = np.load(tmp_path / "seen" / "table.npy")
    assert rows.shape == (60, 4) and rows[0, 0] == table["path"][0]
    smiling = pixels(root, table[(table["split"] == "train") & (table["Smiling"] == 1)]["path"])
    upper = [y for image in smiling for y, _ in places(tmp_path / "seen" / "samples.png", image)]
    assert upper and min(upper) < 200, "those who have the first attribute are in the first row"


def test_draw_leaves_out_images_without_a_face_as_faces_on_none_says(shared, tmp_path, caplog):
    detector = shared("weights", "face_detection_yunet_2023mar.onnx")
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "empty.png")
    cfg = compose_config("data=folders", f"data.root={tmp_path}", f"faces.weights={detector}", *ALIGNED)

    def drawn(on_none: str) -> list[preview.Sample]:
        cfg.faces.on_none = on_none
        return preview.draw(pd.DataFrame({"path": ["empty.png"]}), "women", cfg, np.random.default_rng(0))

    with pytest.raises(FaceattrError, match=r"^empty\.png has no face\. .*faces\.on_none=skip, .*faces\.on_none=whole"):
        drawn("error")
    with pytest.raises(FaceattrError, match=r"^None of the training images of women can be used\.$"):
        drawn("skip")
    assert "Left out empty.png (faces.on_none=skip): no face" in caplog.text
    (whole,) = drawn("whole")
    assert (whole.pixels == read(tmp_path / "empty.png", SPEC)).all() and whole.marked is not None
