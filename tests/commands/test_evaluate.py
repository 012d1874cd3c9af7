"""evaluate.py takes the pixels that training decoded, whatever it evaluates."""

from pathlib import Path

import pytest
from checkpoints import untrained
from pandas import read_csv
from programs import FIGURES, S0_MAP, TINY, Ended, inside

from faceattr.data.disk_cache import folder
from faceattr.data.sources import sample

CKPT = "ckpt=run/checkpoints/best.ckpt"


def evaluate(*arguments: str, cwd: Path) -> Ended:
    ended = inside("evaluate", *arguments, cwd=cwd)
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run on 60 images."""
    place = tmp_path_factory.mktemp("evaluate")
    root = sample.write("csv", place / "data", n=60, image_size=32)
    given = ("data=csv", S0_MAP, f"data.root={root}", *(key for key in TINY if not key.startswith("data.")))
    ended = inside("train", *given, "trainer.max_epochs=1", "hydra.run.dir=run", cwd=place)
    assert ended.code == 0, ended.err
    return place


def pixel_arrays() -> set[str]:
    return {file.name for file in folder().glob("pixels-*.npy")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("split=val",),
        pytest.param(("split=train", FIGURES), marks=pytest.mark.slow),
        ("split=all", "evaluate.leakage=true", FIGURES),
        ("split=test", "compare=run/checkpoints/last.ckpt", FIGURES),
        ("split=test", "evaluate.calibrate=true", FIGURES),
    ],
    ids=["val", "train", "all", "compare", "calibrate"],
)
def test_evaluate_decodes_nothing_that_training_decoded(trained, arguments, tmp_path):
    before = pixel_arrays()
    ended = evaluate(CKPT, *arguments, f"hydra.run.dir={tmp_path / 'out'}", cwd=trained)
    assert pixel_arrays() == before
    packs = [line for line in (ended.out + ended.err).splitlines() if "Pixels of " in line]
    assert packs and all("Pixels of 60 images: found in" in line for line in packs)
    assert bool(list((tmp_path / "out").glob("gallery_*.png"))) is (FIGURES not in arguments)
    assert not (tmp_path / "out" / "bad_images.csv").exists()


def test_evaluate_of_other_data_decodes_only_the_split(trained, tmp_path):
    root = sample.write("folders", tmp_path / "other", n=60, image_size=32)
    next((root / "Train").rglob("*.jpg")).write_text("no image")
    given = ("data=folders", f"data.root={root}", "data.class_map={Female:female,Male:male}", "split=val")
    evaluate(CKPT, *given, f"hydra.run.dir={tmp_path / 'out'}", cwd=trained)


def test_compare_takes_only_the_split_for_a_model_of_other_data(trained, tmp_path):
    """Its own pixels of these images are stored nowhere; those of the first model are."""
    rival = untrained(tmp_path / "rival.ckpt", "model.image_size=[24,24]")
    given = ("split=val", f"compare={rival}", "evaluate.leakage=true", FIGURES, f"hydra.run.dir={tmp_path / 'out'}")
    ended = evaluate(CKPT, *given, cwd=trained)
    packs = [line for line in (ended.out + ended.err).splitlines() if line.startswith("Pixels of ")]
    assert [line.partition(":")[0] for line in packs] == ["Pixels of 60 images", "Pixels of 9 images"]
    first, second = (read_csv(tmp_path / "out" / folder / "predictions_val.csv") for folder in (".", "compared"))
    assert len(first) == 9 and first["path"].equals(second["path"])
    slices = [read_csv(tmp_path / "out" / folder / "slices_val.csv") for folder in (".", "compared")]
    counts = [table.loc[table["column"] == "in_train", ["value", "n"]].values.tolist() for table in slices]
    assert counts[0] == counts[1]
