"""Image grids: the gallery of an evaluation and tiles with Grad-CAM maps."""

import re
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from pictures import places
from PIL import Image
from programs import inside, tiny_run

from faceattr.data.decode import InputSpec, read
from faceattr.data.sources import sample
from faceattr.models import gradcam
from faceattr.models.staged_network import Network
from faceattr.report.image_grid import (
    SIDE,
    ChosenImage,
    ExplainedImage,
    Pixels,
    Tile,
    choose_images,
    gallery,
    grid,
    tiles,
)
from faceattr.training.checkpoint_format import load
from faceattr.training.lightning_module import Classifier

SPEC = InputSpec(32, 32, "bilinear", "unit")
INK = [0x22, 0x22, 0x22]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return tiny_run(
        tmp_path_factory.mktemp("galleries") / "run", "trainer.max_epochs=1", "data.n=120", "evaluate.report=full"
    )


def texts(svg: Path) -> list[str]:
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))]


def drawn(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_gallery_of_a_run_shows_predictions_and_frames_errors(run, cache, split):
    rows = pd.read_csv(run / f"predictions_{split}.csv")
    assert (
        12 <= len(rows) <= 24 and rows["predicted"].ne(rows["true"]).any() and rows["predicted"].eq(rows["true"]).any()
    )
    picture = drawn(run / f"gallery_{split}.png")
    for row in rows.itertuples():
        ((y, x),) = places(run / f"gallery_{split}.png", read(cache / "sample" / str(row.path), SPEC))
        framed = [picture[y + 64, x - 3].tolist(), picture[y - 3, x + 64].tolist(), picture[y + 130, x + 64].tolist()]
        assert framed == [INK if row.predicted != row.true else [255, 255, 255]] * 3, row.path


def test_gallery_of_the_same_predictions_is_the_same_picture(run, cache, tmp_path):
    rows = pd.read_csv(run / "predictions_test.csv")
    files = [str(cache / "sample" / path) for path in rows["path"]]
    gallery(rows, reader(files), SPEC, tmp_path / "gallery.png", title="sample_cnn_full: test images")
    assert (tmp_path / "gallery.png").read_bytes() == (run / "gallery_test.png").read_bytes()


def test_gallery_that_cannot_be_written_leaves_metrics_and_predictions(run, tmp_path):
    (tmp_path / "gallery_test.png").mkdir()
    ended = inside("evaluate", f"ckpt={run / 'checkpoints' / 'best.ckpt'}", f"hydra.run.dir={tmp_path}", cwd=tmp_path)
    assert ended.code == 1
    assert (tmp_path / "test_metrics.json").exists() and (tmp_path / "predictions_test.csv").exists()


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


def test_gallery_is_the_same_random_sample_for_any_prediction(faces, tmp_path):
    read_faces, positions = reader(faces * 40), []

    def pixels(requested):
        positions[:] = requested
        return read_faces(requested)

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        asked = []
        for right in (0.7, 0.2):
            frame = predictions(4000, right)
            gallery(frame, pixels, SPEC, tmp_path / "gallery.svg", title="run: test images")
            asked.append([*positions])
            chosen = frame.iloc[positions]
            hits = chosen["predicted"] == chosen["true"]
            percent = [f"{0.5 + i / 10_000:.1%}" for i in positions]
            expected = [f"{'✓ a$b' if hit else '✗ old'} {p}" for hit, p in zip(hits, percent, strict=True)]
            shown = texts(tmp_path / "gallery.svg")
            assert [text for text in shown if text[0] in "✓✗"] == expected
            assert shown.count("true: a$b") == (~hits).sum() > 0
            assert shown[0] == "run: test images, a random sample of 24 of 4,000"
            assert f"{hits.sum()} correct (✓), {(~hits).sum()} wrong (✗, framed)" in shown[1]
    assert asked[0] == asked[1] and len(set(asked[0])) == 24
    assert min(asked[0]) < 1000 and max(asked[0]) > 3000, "not from all of it"


def test_gallery_of_large_inputs_stays_below_a_megabyte(faces, tmp_path):
    spec = InputSpec(224, 224, "bilinear", "imagenet")
    gallery(predictions(100, 0.5), reader(faces), spec, tmp_path / "gallery.png", title="t")
    assert 50_000 < (tmp_path / "gallery.png").stat().st_size < 1_000_000


def test_gallery_shows_all_of_few_images(faces, tmp_path):
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        gallery(predictions(3, 1.0), reader(faces), SPEC, tmp_path / "gallery.svg", title="run: val images")
    assert texts(tmp_path / "gallery.svg")[0] == "run: val images, all 3"


def test_gallery_of_attributes_counts_correct_ones(faces, tmp_path):
    frame = pd.DataFrame(
        {"path": ["0.jpg", "1.jpg", "2.jpg"], "predicted": ["Male, Young", "Male, Young", "Young"]}
        | {"true_Male": [1, 0, 1], "probability_Male": [0.9, 0.6, 0.4]}
        | {"true_Young": [np.nan, 0, 0], "probability_Young": [0.9, 0.9, 0.7]}
        | {"true_true_x": [0, 1, 0], "probability_true_x": [0.5, 0.3, 0.4]}
    )
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        gallery(frame, reader(faces), SPEC, tmp_path / "gallery.svg", title="run: val images")
    shown = texts(tmp_path / "gallery.svg")
    assert shown[1] == "Known attributes predicted correctly: 1 correct (✓), 2 wrong (✗, framed)"
    assert shown[2:] == [
        "✓ 2 of 2 correct",
        *("✗ 0 of 3 correct", "wrong: Young", "wrong: true_x"),
        *("✗ 1 of 3 correct", "wrong: Young", "wrong: Male"),
    ]


def probabilities(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.dirichlet((1, 1, 1), n).astype(np.float32), draw.integers(0, 3, n)


def test_choose_images_ranks_images():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.3, 0.7], [0.51, 0.49]])
    groups = choose_images(scores, np.array([0, 0, 1, 0, 1]))
    assert groups["fixed sample"] == [
        ChosenImage(0, 0),
        ChosenImage(1, 1),
        ChosenImage(2, 1),
        ChosenImage(3, 1),
        ChosenImage(4, 0),
    ]
    assert groups["wrong and certain"] == [ChosenImage(1, 1), ChosenImage(3, 1), ChosenImage(4, 0)]
    assert groups["least certain"] == [
        ChosenImage(4, 0),
        ChosenImage(2, 1),
        ChosenImage(3, 1),
        ChosenImage(1, 1),
        ChosenImage(0, 0),
    ]
    assert choose_images(scores, scores.argmax(1))["wrong and certain"] == []


def test_choose_images_ranks_attributes_separately():
    scores = np.array([[0.9, 0.4, 0.5], [0.05, 0.97, 0.2], [0.3, 0.6, 0.8]])
    truth = np.array([[0, 1, np.nan], [0, 1, 0], [np.nan, np.nan, np.nan]])
    groups = choose_images(scores, truth)
    assert groups["fixed sample"] == [ChosenImage(0, 0), ChosenImage(1, 1)], "the one that is certain"
    assert groups["wrong and certain"] == [ChosenImage(0, 0)]
    assert groups["least certain"] == [ChosenImage(0, 1), ChosenImage(1, 2)], "what is not known was asked"
    rng = np.random.default_rng(0)
    hard = np.column_stack((rng.uniform(0.4, 0.6, 200), rng.uniform(0.9, 1, 200)))  # all of the first is harder
    for group in choose_images(hard, (rng.random((200, 2)) < 0.5).astype(float)).values():
        assert {choice.column for choice in group} == {0, 1}, "one attribute only is shown"


def test_choose_images_draws_the_same_sample_for_every_model():
    one, other = (choose_images(*probabilities(500, seed)) for seed in (1, 2))
    positions = [choice.position for choice in one["fixed sample"]]
    assert positions == [choice.position for choice in other["fixed sample"]] == sorted(set(positions))
    assert min(positions) < 150 and max(positions) > 350, "not from all of it"
    assert [len(group) for group in (*one.values(), *other.values())] == [12] * 6
    assert one["least certain"] != other["least certain"]


def evaluated(run: Path, cache: Path) -> dict[str, Any]:
    """A run's model and its predictions, as `explained` takes them."""
    model, _ = load(str(run / "checkpoints" / "best.ckpt"))
    rows = pd.read_csv(run / "predictions_test.csv")
    scores = rows[[f"probability_{name}" for name in model.task.classes]].to_numpy()
    truth = rows["true"].map(model.task.classes.index).to_numpy()
    files = [str(cache / "sample" / path) for path in rows["path"]]
    return {"model": model, "scores": scores, "truth": truth, "paths": rows["path"].tolist(), "files": files}


def explained(of: dict[str, Any]) -> dict[str, list[ExplainedImage]]:
    model: Classifier = of["model"]
    return tiles(model.task.classes, of["scores"], of["truth"], of["paths"], reader(of["files"]), model.explain)


def reader(files: list[str]) -> Pixels:
    """Decodes the files that are there."""
    return lambda positions: {at: read(files[at], SPEC) for at in positions if Path(files[at]).exists()}


def test_tiles_hold_grad_cam_overlays(run, cache, tmp_path):
    of = evaluated(run, cache)
    groups, choices = explained(of), choose_images(of["scores"], of["truth"])
    assert list(groups) == list(choices)
    heats = []
    for name, group in groups.items():
        for tile, (row, column) in zip(group, choices[name], strict=True):
            classes = of["model"].task.classes
            assert (tile.path, tile.true) == (of["paths"][row], classes[of["truth"][row]])
            assert tile.predicted == tile.explained == classes[column] and tile.probability == of["scores"][row, column]
            assert tile.correct == (column == of["truth"][row])
            pixels = read(of["files"][row], SPEC)
            assert tile.pixels.shape == tile.overlay.shape == (SIDE, SIDE, 3)
            np.testing.assert_array_equal(tile.pixels[2::5, 2::5], pixels)
            image = torch.tensor(pixels).permute(2, 0, 1)[None]
            heats.append(of["model"].explain(image, torch.tensor([column]))[0])
            expected = gradcam.overlay(tile.pixels, cv2.resize(heats[-1], (SIDE, SIDE)))
            assert np.abs(tile.overlay.astype(int) - expected).mean() < 0.5
    assert np.any(heats)


def test_tiles_of_an_absent_attribute_say_not(run, cache, tmp_path):
    of = evaluated(run, cache) | {"truth": np.tile([1.0, 0.0], (len(evaluated(run, cache)["scores"]), 1))}
    of["scores"] = np.tile([0.1, 0.3], (len(of["scores"]), 1))
    one, other = of["model"].task.classes
    groups = explained(of)
    worst, least = groups["wrong and certain"][0], groups["least certain"][0]
    assert worst[3:] == (one, f"not {one}", 0.9, False, one)
    assert least[3:] == (f"not {other}", f"not {other}", 0.7, True, other)


def test_tiles_of_a_network_without_maps_have_no_overlays(run, cache, tmp_path, caplog):
    of = evaluated(run, cache)
    features = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    of["model"].network = Network(features, {"0": "flat", "1": "flat"}, [32, 32], of["model"].task.num_logits, {})
    gone = choose_images(of["scores"], of["truth"])["fixed sample"][0].position
    of["files"][gone] = str(tmp_path / "gone.jpg")
    groups = explained(of)
    assert [tile.overlay for group in groups.values() for tile in group] == [None] * sum(map(len, groups.values()))
    assert len(groups["fixed sample"]) == 11 and of["paths"][gone] not in [t.path for g in groups.values() for t in g]
    assert "No Grad-CAM" in caplog.text


@pytest.mark.parametrize(("side", "zoom"), [(20, 6), (64, 2), (100, 1), (150, 1)])
def test_grid_draws_tiles_to_the_pixel(tmp_path, side, zoom):
    tiles = [Tile(np.random.default_rng(i).integers(0, 256, (side, side - 7, 3), dtype=np.uint8)) for i in range(5)]
    grid([tiles[:3], tiles[3:]], tmp_path / "grid.png", title="t", note="n", names=["one", "two"])
    drawn = [places(tmp_path / "grid.png", tile.pixels) for tile in tiles]
    assert [len(place) for place in drawn] == [1] * 5
    (top, left), (_, second), (below, _) = drawn[0][0], drawn[1][0], drawn[3][0]
    assert second - left == zoom * (side - 7) + 20 and below - top == zoom * side + 20


def test_gallery_shows_an_image_without_pixels_as_a_grey_tile(faces, tmp_path):
    read_faces = reader(faces)
    gallery(predictions(3, 1.0), lambda positions: read_faces([0, 2]), SPEC, tmp_path / "gallery.png", title="t")
    grey = np.full((SPEC.height, SPEC.width, 3), 0xBB, np.uint8)
    assert len(places(tmp_path / "gallery.png", grey)) == 1
