"""Images unlike the training images: evaluate.py, predict.py and the Python functions say so, and nothing of those like them."""

import logging
from pathlib import Path

import numpy as np
import pytest
from checkpoints import untrained
from PIL import Image

import faceattr
from faceattr.commands.from_python import run_command
from faceattr.commands.predict import predict
from faceattr.data.out_of_distribution import UsualInputs, statistics_of_all


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Folders `usual` and `dark` of images in class folders, and a checkpoint that knows images like the former."""
    place, rng = tmp_path_factory.mktemp("unusual"), np.random.default_rng(0)
    images = rng.integers(60, 250, (400, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    for folder, pixels in (("usual", images[:20]), ("dark", images[:20] // 8)):
        for number, image in enumerate(pixels):
            file = place / folder / ("female", "male")[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    inputs = UsualInputs.fit(statistics_of_all([images[20:300]]), statistics_of_all([images[300:]]))
    untrained(place / "best.ckpt", inputs=inputs)
    return place


@pytest.mark.parametrize(("folder", "warned"), [("usual", False), ("dark", True)])
@pytest.mark.parametrize("by", ["predict.py", "Predictor.predict", "evaluate"])
def test_images_unlike_the_training_images_bring_a_warning(place, tmp_path, by, folder, warned, caplog):
    ckpt, out = place / "best.ckpt", f"hydra.run.dir={tmp_path / 'out'}"
    with caplog.at_level(logging.INFO):
        if by == "predict.py":
            run_command("predict", [f"ckpt={ckpt}", f"input={place / folder}", out], predict)
        elif by == "evaluate":
            faceattr.evaluate(ckpt, "data=folders", f"data.root={place / folder}", "evaluate.report=figures", out)
        else:
            faceattr.load(ckpt).predict(sorted((place / folder).rglob("*.png")))
    lines = [record.message for record in caplog.records if "look unlike the training images" in record.message]
    assert len(lines) == warned and all("Likely: darker" in line for line in lines)


def test_predict_says_of_each_image_whether_it_is_unusual(place, caplog):
    files = [place / folder / "female" / "0.png" for folder in ("usual", "dark")]
    rows = faceattr.load(place / "best.ckpt").predict([files[0], "absent.jpg", files[1]], unusual=True)
    assert rows["unusual"].tolist() == [False, None, True] and not caplog.records


def test_the_answer_of_the_server_says_it_too(place, tmp_path):
    pytest.importorskip("starlette", reason="serve is an extra")
    from serving import client, create

    with client(create(place / "best.ckpt", tmp_path)) as app:
        sent = [(place / folder / "female" / "0.png").read_bytes() for folder in ("usual", "dark")]
        answers = [app.post("/predict", content=image).json()["faces"][0] for image in sent]
    assert [answer["unusual"] for answer in answers] == [False, True]
