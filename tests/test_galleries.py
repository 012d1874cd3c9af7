"""Pictures made of images: what a gallery shows is what was predicted, of images that nobody picked out."""

import logging
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from pictures import places
from PIL import Image
from programs import ROOT, quick, tiny_run

from faceattr import classifier, config, evaluation
from faceattr.data import FaceData, load_table
from faceattr.images import InputSpec, read
from faceattr.report.galleries import Tile, gallery, grid
from faceattr.sources import sample

SPEC = InputSpec(32, 32, "bilinear", "unit")
INK = [0x22, 0x22, 0x22]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("galleries") / "run", "trainer.max_epochs=1", "data.n=120")


def texts(svg: Path) -> list[str]:
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))]


def drawn(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_evaluation_has_its_gallery(run, cache, split):
    rows = pd.read_csv(run / f"predictions_{split}.csv")
    assert (
        12 <= len(rows) <= 24 and rows["predicted"].ne(rows["true"]).any() and rows["predicted"].eq(rows["true"]).any()
    )
    picture = drawn(run / f"gallery_{split}.png")
    for row in rows.itertuples():
        ((y, x),) = places(run / f"gallery_{split}.png", read(cache / "sample" / str(row.path), SPEC))
        framed = [picture[y + 64, x - 3].tolist(), picture[y - 3, x + 64].tolist(), picture[y + 130, x + 64].tolist()]
        assert framed == [INK if row.predicted != row.true else [255, 255, 255]] * 3, row.path


def test_evaluate_draws_the_same_picture(run):
    ended = quick("evaluate", f"ckpt={run / 'checkpoints' / 'best.ckpt'}", "hydra.run.dir=out", cwd=run.parent)
    assert ended.code == 0 and ended.err == "", ended.err
    assert (run.parent / "out" / "gallery_test.png").read_bytes() == (run / "gallery_test.png").read_bytes()


class Decoded(list[str]):
    """Files that remember which were asked for."""

    def __getitem__(self, position):
        self.asked = [*getattr(self, "asked", []), position]
        return super().__getitem__(position)


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> list[str]:
    folder = sample.write("csv", tmp_path_factory.mktemp("data") / "csv", n=100, image_size=224)
    return [str(file) for file in sorted(folder.rglob("*.jpg"))]


def predictions(n: int, right: float) -> pd.DataFrame:
    """The probability of image i is its own: 50 + i/100 per cent."""
    hit = np.random.default_rng(1).random(n) < right
    frame = pd.DataFrame(
        {"path": [f"{i}.jpg" for i in range(n)], "true": "a$b", "predicted": np.where(hit, "a$b", "old")}
    )
    high = 0.5 + np.arange(n) / 10_000
    return frame.assign(
        **{"probability_a$b": np.where(hit, high, 1 - high), "probability_old": np.where(hit, 1 - high, high)}
    )


def test_a_random_draw_whatever_was_predicted(faces, tmp_path):
    files = Decoded(faces * 40)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        asked = []
        for right in (0.7, 0.2):
            frame, files.asked = predictions(4000, right), []
            gallery(frame, files, SPEC, tmp_path / "gallery.svg", title="run: test images")
            asked.append(files.asked)
            chosen = frame.iloc[files.asked]
            hits = chosen["predicted"] == chosen["true"]
            percent = [f"{0.5 + i / 10_000:.1%}" for i in files.asked]
            expected = [f"{'✓ a$b' if hit else '✗ old'} {p}" for hit, p in zip(hits, percent, strict=True)]
            shown = texts(tmp_path / "gallery.svg")
            assert [text for text in shown if text[0] in "✓✗"] == expected
            assert shown.count("true: a$b") == (~hits).sum() > 0
            assert shown[0] == "run: test images, a random draw of 24 of 4,000"
            assert f"{hits.sum()} right (✓), {(~hits).sum()} wrong (✗, framed)" in shown[1]
    assert asked[0] == asked[1] and len(set(asked[0])) == 24
    assert min(asked[0]) < 1000 and max(asked[0]) > 3000, "not from all of it"


def test_large_inputs_stay_below_a_megabyte(faces, tmp_path):
    spec = InputSpec(224, 224, "bilinear", "imagenet")
    gallery(predictions(100, 0.5), faces, spec, tmp_path / "gallery.png", title="t")
    assert 50_000 < (tmp_path / "gallery.png").stat().st_size < 1_000_000


def test_fewer_images_than_the_draw_are_all_shown(faces, tmp_path):
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        gallery(predictions(3, 1.0), faces, SPEC, tmp_path / "gallery.svg", title="run: val images")
    assert texts(tmp_path / "gallery.svg")[0] == "run: val images, all 3"


def test_a_gallery_that_fails_does_not_lose_the_evaluation(tmp_path, caplog):
    root = sample.write("csv", tmp_path / "data", n=30, image_size=32)
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        tiny = ["name=run", "model.image_size=[32,32]", "trainer=cpu", "trainer.precision=32"]
        cfg = config.validated(compose("train", ["data=csv", f"data.root={root}", "data.pack=ram", *tiny]))
    table = load_table(cfg.data)
    target = classifier.Target.of(table.attrs["classes"], ordinal=False, loss="auto")
    model = classifier.Classifier(cfg, classifier.build_network(cfg, target), target)
    data = FaceData(table, cfg.data, classifier.input_spec(cfg))
    gone, there = table["path"][table["split"] == "test"].iloc[:2]
    kept = read(root / there, SPEC)
    (root / gone).unlink()
    with caplog.at_level(logging.WARNING):
        found = evaluation.evaluate_split(model, data, "test", cfg, tmp_path)[0]
    assert f"gallery_test.png: {gone} cannot be read" in caplog.text
    assert (tmp_path / "test_metrics.json").exists() and len(pd.read_csv(tmp_path / "predictions_test.csv")) == found[
        "n"
    ]
    grey = np.full((32, 32, 3), 0xBB, np.uint8)
    assert len(places(tmp_path / "gallery_test.png", grey)) == len(places(tmp_path / "gallery_test.png", kept)) == 1
    (tmp_path / "gallery_val.png").mkdir()  # now it cannot be written at all
    with pytest.raises(IsADirectoryError):
        evaluation.evaluate_split(model, data, "val", cfg, tmp_path)
    assert (tmp_path / "val_metrics.json").exists() and (tmp_path / "predictions_val.csv").exists()


@pytest.mark.parametrize(("side", "zoom"), [(20, 6), (64, 2), (100, 1), (150, 1)])
def test_tiles_are_drawn_to_the_pixel(tmp_path, side, zoom):
    tiles = [Tile(np.random.default_rng(i).integers(0, 256, (side, side - 7, 3), dtype=np.uint8)) for i in range(5)]
    grid([tiles[:3], tiles[3:]], tmp_path / "grid.png", title="t", note="n", names=["one", "two"])
    found = [places(tmp_path / "grid.png", tile.pixels) for tile in tiles]
    assert [len(place) for place in found] == [1] * 5
    (top, left), (_, second), (below, _) = found[0][0], found[1][0], found[3][0]
    assert second - left == zoom * (side - 7) + 20 and below - top == zoom * side + 20
