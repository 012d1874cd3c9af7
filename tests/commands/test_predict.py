"""predict.py in this process: its table, its pictures, what it says of bad input. With a network that was never trained."""

import logging
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checkpoints import untrained
from PIL import Image
from programs import quick
from signal_at import SignalAt
from videos import write_video

import faceattr
from faceattr import FaceattrError
from faceattr.commands.from_python import run_command
from faceattr.commands.predict import predict

WHOLE = ["path", "predicted", "probability_female", "probability_male"]
FACES = ["path", "face", *WHOLE[1:], "x", "y", "width", "height", "score"]


def run(ckpt: Path, source: Path, out: Path, *overrides: str) -> pd.DataFrame:
    """predictions.csv of predict.py."""
    run_command("predict", [f"ckpt={ckpt}", f"input={source}", f"hydra.run.dir={out}", *overrides], predict)
    return pd.read_csv(out / "predictions.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return untrained(tmp_path_factory.mktemp("whole") / "best.ckpt")


@pytest.fixture(scope="module")
def align(tmp_path_factory, shared) -> Path:
    """A checkpoint that takes aligned faces; the detector is in the cache afterwards."""
    from faceattr.data.faces.detector_file import detector_file

    detector_file(str(shared("weights", "face_detection_yunet_2023mar.onnx")))
    return untrained(tmp_path_factory.mktemp("align") / "best.ckpt", "faces=align")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, shared) -> Path:
    """a/portrait.jpg with one face, pair.png with two, empty.webp with none, broken.jpg."""
    folder = tmp_path_factory.mktemp("photos")
    first, second = sorted(shared("data", "small_csv", "images").iterdir())[:2]
    (folder / "a").mkdir()
    shutil.copy(first, folder / "a" / "portrait.jpg")
    pair = Image.new("RGB", (512, 256))
    for place, file in enumerate((first, second)):
        pair.paste(Image.open(file).resize((256, 256)), (256 * place, 0))
    pair.save(folder / "pair.png")
    Image.new("RGB", (80, 60), "teal").save(folder / "empty.webp")
    (folder / "broken.jpg").write_bytes((folder / "a" / "portrait.jpg").read_bytes()[:900])
    return folder


def noise(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{number:03}.png")
    return folder


def test_predict_of_whole_images_has_a_row_for_each(whole, tmp_path):
    rows = run(whole, noise(tmp_path / "in", 9), tmp_path / "out", "batch_size=4")
    assert list(rows) == WHOLE and len(rows) == 9
    assert rows["path"].tolist() == sorted(rows["path"])
    pd.testing.assert_series_equal(
        rows["probability_female"] + rows["probability_male"], pd.Series(np.ones(9)), check_names=False
    )
    ours = faceattr.load(whole).predict(rows["path"])
    assert ours["probability_male"].to_numpy(np.float32) == pytest.approx(rows["probability_male"], abs=1e-6)


def test_predict_has_a_row_for_each_face_and_a_reason_without_one(align, photos, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(FaceattrError, match=r"1 of 4 files could not be read: .*broken\.jpg"):
        run(align, photos, tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(rows)[: len(FACES)] == FACES and list(rows)[-1] == "reason" and len(list(rows)) == len(FACES) + 11
    rows["path"] = [str(Path(path).relative_to(photos)) for path in rows["path"]]
    assert rows["path"].tolist() == ["a/portrait.jpg", "broken.jpg", "empty.webp", "pair.png", "pair.png"]
    assert rows["face"].tolist()[3:] == [0, 1] and rows["face"].isna().tolist() == [False, True, True, False, False]
    assert rows["reason"].isna().tolist() == [True, False, False, True, True]
    assert rows["reason"][2] == "no face found" and rows["predicted"].isna()[1:3].all()
    assert "no face found" in caplog.text and "None" not in caplog.text
    assert rows["x"][3] < 256 < rows["x"][4] and rows["score"].min() > 0.6
    assert pd.read_csv(tmp_path / "out" / "bad_images.csv")["path"].tolist() == [str(photos / "broken.jpg")]


def test_predictor_gives_the_rows_of_the_command(align, photos, tmp_path):
    with pytest.raises(FaceattrError):
        run(align, photos, tmp_path / "out")
    expected = pd.read_csv(tmp_path / "out" / "predictions.csv")
    model = faceattr.load(align)
    model.predict(list(dict.fromkeys(expected["path"]))).to_csv(tmp_path / "ours.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "ours.csv"), expected, check_dtype=False)
    pixels = np.asarray(Image.open(photos / "pair.png"))
    assert model.predict(pixels)["face"].tolist() == [0, 1]
    crops = model.predict(pixels, faces="none")
    assert list(crops) == [*WHOLE, "reason"] and len(crops) == 1
    assert model.predict_proba([photos / "pair.png", photos / "a" / "portrait.jpg"]).shape == (2, 2)
    with pytest.raises(FaceattrError, match="no face found"):
        model.predict_proba(photos / "empty.webp")
    with pytest.raises(FaceattrError, match="choose one of none, square, align"):
        model.predict(pixels, faces="box")


def test_predictor_takes_bytes_and_answers_for_the_largest_faces_only(align, photos):
    model = faceattr.load(align)
    content = (photos / "pair.png").read_bytes()
    both, largest = model.predict(content), model.predict([content], max_faces=1)
    assert both["reason"].isna().all() and both["path"].tolist() == [0, 0]
    size = (both["width"] * both["height"]).to_numpy()
    assert largest["predicted"].isna().tolist() == (size < size.max()).tolist()
    assert largest["reason"].dropna().tolist() == ["2 faces in the picture; at most 1 get an answer, the largest"]
    pd.testing.assert_series_equal(largest["x"], both["x"])


def test_explain_takes_the_face_of_a_number(align, photos):
    model = faceattr.load(align)
    first, second = (model.explain(photos / "pair.png", "male", face=number) for number in (0, 1))
    assert first.shape == (32, 32, 3) and not np.array_equal(first, second)
    whole = model.explain(photos / "pair.png", "male", faces="none")
    assert not any(np.array_equal(whole, face) for face in (first, second))
    with pytest.raises(FaceattrError, match="face=2: the image has no face of this number"):
        model.explain(photos / "pair.png", face=2)
    with pytest.raises(FaceattrError, match="no face found"):
        model.explain(photos / "empty.webp")


def test_predict_faces_none_takes_photos_whole_and_says_so(align, photos, tmp_path, caplog):
    rows = run(align, photos / "pair.png", tmp_path / "out", "faces=none")
    assert list(rows) == WHOLE and len(rows) == 1
    assert "not as in training: faces=none (align in training)" in caplog.text


def test_predict_annotate_and_crops_write_pictures(align, photos, tmp_path):
    with pytest.raises(FaceattrError, match="1 of 4"):
        run(align, photos, tmp_path / "out", "annotate=true", "crops=true")
    made = {
        str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.*") if ".hydra" not in str(file)
    }
    assert {"annotated/a/portrait.jpg", "annotated/pair.png", "annotated/empty.webp.jpg"} <= made
    crops = {f"crops/{name}.png" for name in ("a/portrait.jpg.face0", "pair.png.face0", "pair.png.face1")}
    assert {name for name in made if name.startswith("crops/")} == crops
    before, after = (np.asarray(Image.open(root / "pair.png")) for root in (photos, tmp_path / "out" / "annotated"))
    assert before.shape == after.shape and (before != after).any()
    assert np.asarray(Image.open(tmp_path / "out" / "crops" / "pair.png.face1.png")).shape == (32, 32, 3)


def test_predict_of_videos_has_rows_with_times(align, photos, tmp_path):
    pair = np.asarray(Image.open(photos / "pair.png"))
    frames = [pair] * 10 + [np.zeros_like(pair)] * 10 + [pair] * 10
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "clip.avi", frames, 10)
    Image.fromarray(pair).save(tmp_path / "in" / "photo.png")
    rows = run(align, tmp_path / "in", tmp_path / "out", "annotate=true")
    assert list(rows)[:3] == ["path", "time", "face"]
    assert rows["time"].tolist()[:5] == [0, 0, 1, 2, 2] and rows["time"][5:].isna().all()
    assert rows["face"].fillna(-1).tolist() == [0, 1, -1, 0, 1, 0, 1]
    assert {file.name for file in (tmp_path / "out" / "annotated").iterdir()} == {
        *(f"clip.avi.{second}.000s.jpg" for second in range(3)),
        "photo.png",
    }
    file = tmp_path / "in" / "clip.avi"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(FaceattrError, match=r"clip\.avi \(the video breaks off after"):
        run(align, tmp_path / "in", tmp_path / "cut", "annotate=true")
    rows = pd.read_csv(tmp_path / "cut" / "predictions.csv")
    assert len(rows) >= 5 and rows["reason"].str.contains("breaks off").sum() == 1
    times = rows.loc[rows["path"].str.endswith(".avi"), "time"].dropna().unique()
    assert {file.name for file in (tmp_path / "cut" / "annotated").iterdir()} == {
        *(f"clip.avi.{time:.3f}s.jpg" for time in times),
        "photo.png",
    }


def test_predict_abstains_and_mirrors(whole, tmp_path):
    source = noise(tmp_path / "in", 6)
    plain = run(whole, source, tmp_path / "plain")
    best = plain[WHOLE[2:]].max(axis=1)
    rows = run(whole, source, tmp_path / "abstain", f"abstain={sorted(best)[3]:.9f}")
    assert (rows["predicted"] == "uncertain").sum() == 3
    assert (rows["predicted"] == "uncertain").tolist() == (best < sorted(best)[3]).tolist()
    for file in source.iterdir():
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / file.name)
    (tmp_path / "list.txt").write_text("".join(f"{file.name}\n" for file in sorted(source.iterdir())))
    mirrored = run(whole, tmp_path / "list.txt", tmp_path / "mirrored")
    both = run(whole, source, tmp_path / "both", "predict.mirror=true")
    mean = (plain["probability_male"] + mirrored["probability_male"]) / 2
    assert both["probability_male"].tolist() == pytest.approx(mean.tolist(), abs=1e-6)


def test_predict_of_attributes_lists_them(tmp_path):
    ckpt = untrained(tmp_path / "a.ckpt", classes=("Male", "Smiling"), multilabel=True)
    rows = run(ckpt, noise(tmp_path / "in", 3), tmp_path / "out")
    assert list(rows)[2:] == ["probability_Male", "probability_Smiling"]
    with pytest.raises(FaceattrError, match="attributes are not one answer"):
        run(ckpt, tmp_path / "in", tmp_path / "abstain", "abstain=0.9")
    assert not (tmp_path / "abstain").exists()


def test_predict_leaves_what_is_done_at_ctrl_c(whole, tmp_path):
    image = next(noise(tmp_path / "in", 1).iterdir())
    (tmp_path / "list.txt").write_text(f"{image}\n" * 1000)
    file = tmp_path / "out" / "predictions.csv"
    two_batches = SignalAt(signal.SIGINT, "out/predictions.csv", lines=32)  # the one being written may be taken back
    given = (f"ckpt={whole}", "input=list.txt", "batch_size=16", "hydra.run.dir=out")
    ended = quick("predict", *given, cwd=tmp_path, signal_at=two_batches)
    assert ended.code == 130 and "Traceback" not in ended.err, ended.err
    rows = pd.read_csv(file)
    assert 0 < len(rows) < 1000 and rows.notna().all(axis=None)
    assert file.read_bytes().endswith(b"\n")


def test_predict_leaves_what_is_done_when_it_fails(whole, tmp_path, monkeypatch):
    """Here by an interruption after the third batch."""
    from faceattr.training.lightning_module import Classifier

    step, done = Classifier.predict_step, []

    def interrupted(self, batch, number):
        if len(done) == 3:
            raise RuntimeError("stopped")
        done.append(number)
        return step(self, batch, number)

    monkeypatch.setattr(Classifier, "predict_step", interrupted)
    with pytest.raises(RuntimeError, match="stopped"):
        run(whole, noise(tmp_path / "in", 30), tmp_path / "out", "batch_size=5")
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(rows) == 15 and rows["probability_male"].notna().all()


def test_predict_of_one_face_of_each_picture(align, photos, tmp_path):
    """`faces.pick` on the command line; without it every face, whatever the checkpoint says."""
    every = run(align, photos / "pair.png", tmp_path / "every")
    pd.testing.assert_frame_equal(run(align, photos / "pair.png", tmp_path / "all", "faces.pick=all"), every)
    largest = run(align, photos / "pair.png", tmp_path / "one", "faces.pick=largest")
    assert len(every) == 2 and len(largest) == 1 and largest["face"].tolist() == [0]
    assert largest["width"][0] * largest["height"][0] == (every["width"] * every["height"]).max()


def test_predict_prints_one_probability_of_many_classes(tmp_path, caplog):
    untrained(tmp_path / "many.ckpt", classes=tuple(f"person_{n:02d}" for n in range(12)))
    Image.new("RGB", (32, 32)).save(tmp_path / "1.png")
    with caplog.at_level(logging.INFO):
        rows = run(tmp_path / "many.ckpt", tmp_path / "1.png", tmp_path / "out")
    assert " probability\n" in caplog.text and "probability_person_00" not in caplog.text
    assert rows.filter(like="probability_").shape == (1, 12)


def test_predict_names_the_folder_of_its_pictures_where_it_wrote_some(align, photos, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(align, photos / "empty.webp", tmp_path / "none", "crops=true")
        assert "Pictures:" not in caplog.text
        run(align, photos / "pair.png", tmp_path / "two", "crops=true")
    assert f"Pictures: {tmp_path / 'two' / 'crops'}" in caplog.text
