"""export.py in this process: the folder, its proof and its card; what is refused leaves nothing."""

import json
import re
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import yaml
from checkpoints import untrained
from hub import hub
from huggingface_hub import ModelCard
from PIL import ExifTags, Image
from programs import ROOT, tiny_run

import faceattr
from faceattr.commands.export import export
from faceattr.commands.from_python import run_command
from faceattr.commands.predict import predict
from faceattr.errors import FaceattrError

FILES = ["README.md", "config.json", "model.onnx", "model.safetensors", "validation.json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    more = ("trainer.max_epochs=1", "model.blocks=[[16],[32]]", "evaluate.calibrate=true")
    return tiny_run(tmp_path_factory.mktemp("export") / "run", *more)


def exported(ckpt: Path, out: Path, *overrides: str) -> Path:
    """The folder that export.py writes."""
    return run_command("export", [f"ckpt={ckpt}", f"hydra.run.dir={out}", *overrides], export)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    return exported(run / "checkpoints" / "best.ckpt", tmp_path_factory.mktemp("exported") / "output")


def test_export_writes_a_folder_that_answers_as_the_checkpoint(run, folder, tmp_path):
    assert sorted(file.name for file in folder.iterdir()) == FILES and folder.name == "sample_cnn_full"
    validation = json.loads((folder / "validation.json").read_text())
    assert validation["images"] == 17 and validation["splits"] == "7 val and 10 test images", "fewer than 200: all"
    assert validation["largest_difference"] < validation["tolerance"] == 1e-4 and validation["agreement"] == 1
    assert list(validation["largest_difference_by_batch_size"]) == ["1", "2", "37"]
    assert validation["accuracy_onnx"] == validation["accuracy_checkpoint"]

    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).save(tmp_path / f"{number}.png")
    rows = []
    for ckpt in (run / "checkpoints" / "best.ckpt", folder):
        out = tmp_path / "predicted" / ckpt.name
        run_command("predict", [f"ckpt={ckpt}", f"input={tmp_path}/*.png", f"hydra.run.dir={out}"], predict)
        rows.append(pd.read_csv(out / "predictions.csv"))
    pd.testing.assert_frame_equal(*rows, rtol=0, atol=1e-5)
    assert len(rows[0]) == 5 and faceattr.load(folder).classes == ("female", "male")


def test_export_writes_a_card_with_the_figures_of_the_run(run, folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-classification" and card.data.license == "unknown"
    results = {result.dataset_split: result.metric_value for result in card.data.eval_results}
    metrics = {split: json.loads((run / f"{split}_metrics.json").read_text()) for split in ("val", "test")}
    assert results == {split: round(of["accuracy"], 4) for split, of in metrics.items()}
    of = metrics["test"]
    low, high = (100 * of[f"accuracy_{side}"] for side in ("low", "high"))
    assert f"Right on {of['accuracy']:.1%} ({low:.1f}–{high:.1f}) of 10 test images; worst for " in card.text
    assert "cnn, blocks \\[\\[16\\], \\[32\\]\\]" in card.text
    assert f"| Accuracy | {of['accuracy']:.3f} | {of['accuracy_low']:.3f}–{of['accuracy_high']:.3f} |" in card.text
    record = json.loads((run / "run.json").read_text())
    for text in (
        "what annotators perceived in a picture",
        "no decision about a person should depend",
        record["fingerprint"],
        f"A temperature of {of['temperature']:.3f}",
        "No copies of training images were found",
        "0 people are in two splits",
    ):
        assert text in card.text
    for name in FILES:
        content = (folder / name).read_bytes()
        assert not [path for path in (run.parent, Path.home(), ROOT) if str(path).encode() in content], "no user's name"


def test_code_of_the_card_answers_with_and_without_faceattr(folder, tmp_path, monkeypatch):
    """As it stands there; a picture that its EXIF data turn, of another shape than the model's input."""
    ours, without = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.S)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    for name in ("photo.jpg", "crop.jpg"):
        Image.fromarray(noise).save(tmp_path / name, exif=exif)
    (tmp_path / "DIR").symlink_to(folder)
    (tmp_path / "model.onnx").symlink_to(folder / "model.onnx")
    monkeypatch.chdir(tmp_path)
    assert last_value(ours) == pytest.approx(last_value(without), abs=1e-6)


def last_value(code: str) -> Any:
    """The value of the last line, after the others have run."""
    *statements, last = code.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(statements), names)
    return eval(last, names)


@pytest.mark.slow
def test_export_of_half_is_half_as_large(run, folder, tmp_path):
    half = exported(
        run / "checkpoints" / "best.ckpt", tmp_path / "output", "export.half=true", f"out={tmp_path / 'half'}"
    )
    assert half == tmp_path / "half" and sorted(file.name for file in half.iterdir()) == FILES
    for name in ("model.onnx", "model.safetensors"):
        assert (half / name).stat().st_size < 0.75 * (folder / name).stat().st_size
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    difference = np.abs(faceattr.load(half).predict_proba(images) - faceattr.load(folder).predict_proba(images))
    assert 0 < difference.max() < 0.01
    validation = json.loads((half / "validation.json").read_text())
    assert validation["precision"] == "float16" and set(validation["onnx_bytes"]) == {"float32", "float16"}


@pytest.mark.slow
def test_export_of_int8_is_accepted_by_its_accuracy(run, tmp_path):
    ckpt = run / "checkpoints" / "best.ckpt"
    small = exported(ckpt, tmp_path / "output", "export.quantize=int8", "export.max_drop=1")
    validation = json.loads((small / "validation.json").read_text())
    change = validation["accuracy_change"]
    assert validation["precision"] == "int8" and change["low"] <= change["difference"] <= change["high"]
    assert change["difference"] == pytest.approx(validation["accuracy_onnx"] - validation["accuracy_checkpoint"])
    assert sorted(file.name for file in small.iterdir()) == FILES
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)
    probabilities = faceattr.load(small).predict_proba(images)
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-6), "the last layer stays float32"
    assert (small / "README.md").read_text("utf-8").count("before it was reduced to int8") == 2  # in its summary, too


def test_check_drop_refuses_a_lower_accuracy(monkeypatch):
    """On 1,000 images of which the reduced model has 6 more wrong."""
    from faceattr.commands import export_proof

    class Images(export_proof.ReferencePredictions):
        splits = "1,000 val images"

        def correct(self, scores):
            return scores

    data = type("Data", (), {"table": pd.DataFrame({"path": [""] * 1000})})()
    images = Images(data, None, np.arange(1000), np.empty(0))
    whole, reduced = np.ones(1000), np.arange(1000) >= 6
    assert export_proof.check_drop(images, reduced, whole, 0.006, "x")["difference"] == pytest.approx(-0.006)
    with pytest.raises(FaceattrError, match=r"with x the accuracy on 1,000 val images falls by 0\.0060"):
        export_proof.check_drop(images, reduced, whole, 0.005, "x")


def test_proof_rows_refuses_a_run_that_has_training_images_only():
    from faceattr.commands import export_proof

    with pytest.raises(FaceattrError, match="no validation and no test images, on which the export could be proved"):
        export_proof.proof_rows(pd.DataFrame({"split": ["train", "train"]}), 0, calibration=True)


def test_export_beyond_the_tolerance_leaves_nothing(run, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FaceattrError, match=r"Not exported: .* differs .* \(export\.tolerance is 1e-15\)"):
        exported(run / "checkpoints" / "best.ckpt", tmp_path / "output", "export.tolerance=1e-15", f"out={out}")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_export_without_the_runs_files_has_the_figures_of_the_proof(tmp_path, caplog):
    ckpt = untrained(tmp_path / "best.ckpt", "data.n=60", "data.image_size=32")
    text = (exported(ckpt, tmp_path / "output") / "README.md").read_text()
    assert "are not of this checkpoint" in caplog.text and "only the proof's figures" in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert "model-index" not in front and front["library_name"] == "faceattr"
    assert "of 7 val and 10 test images" in text and "The data have changed since training" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["export.half=true", "export.quantize=int8"], "exclude each other"),
        (["export.quantize=int4"], "choose one of none, int8"),
        (["export.tolerance=0"], "must be above 0"),
        (["data=sample"], "proved on the run's own images"),
        (["faces=align"], "crops faces as in training"),
        (["out=."], "holds other files"),
        (["out=here"], "this is a file. Give a new folder"),
        (["export.push=name"], "give user/name"),
        (["export.push=user/name"], "no token of the Hugging Face Hub"),
        (["export.pusch=user/name"], "Did you mean export.push?"),
    ],
)
def test_export_refuses_before_any_work(run, tmp_path, monkeypatch, overrides, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    (tmp_path / "here").write_text("")
    with pytest.raises(FaceattrError, match=message):
        exported(run / "checkpoints" / "best.ckpt", tmp_path / "output", *overrides)
    assert [file.name for file in tmp_path.iterdir()] == ["here"]


def test_push_without_network_keeps_the_export(folder, monkeypatch):
    from faceattr.commands.export_to_hub import check_push, push

    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    check_push("user/name")
    with pytest.raises(FaceattrError, match=r"not pushed: .* The export is complete: ") as error:
        push(folder, "user/name")
    assert "\n" not in str(error.value) and sorted(file.name for file in folder.iterdir()) == FILES


@pytest.mark.slow
def test_push_uploads_every_file_into_a_private_repository(run, tmp_path, monkeypatch, caplog):
    """Through huggingface_hub, to a server on this machine that speaks the Hub's protocol."""
    from faceattr.commands.export_to_hub import push

    with hub("hf_right") as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        folder = exported(run / "checkpoints" / "best.ckpt", tmp_path / "out", "export.push=user/name")
        assert server.files == {file.name: file.read_bytes() for file in folder.iterdir()}
        assert (server.name, server.private) == ("user/name", True)
        assert f"Pushed: {server.url}/user/name" in caplog.text
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(FaceattrError, match=r"not pushed: .*401.* The export is complete: "):
            push(folder, "user/name")


@pytest.mark.parametrize("command", ["evaluate", "export", "train"])
def test_commands_that_need_a_checkpoint_say_so_of_an_export(folder, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FaceattrError, match=f"exported model, for predict and serve. {command} needs a run's checkpoint"
    ):
        run_command(command, [f"ckpt={folder}"], lambda cfg: None)
    assert not list(tmp_path.iterdir())
