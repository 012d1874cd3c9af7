"""The Python names: the figures of the commands, errors as FaceattrError, and a process that is as it was before."""

import doctest
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from programs import FIGURES, TINY, inside, tiny_run

import faceattr
from faceattr import FaceattrError, api
from faceattr.config.conf_folder import config_folder
from faceattr.training import predictor


@pytest.fixture(scope="module")
def command_run(tmp_path_factory) -> Path:
    """A run of the command."""
    return tiny_run(tmp_path_factory.mktemp("command") / "run", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> faceattr.Run:
    """The same run from Python."""
    return faceattr.train(*TINY, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path_factory.mktemp('api') / 'run'}")


@pytest.fixture(scope="module")
def model(command_run) -> faceattr.Predictor:
    return faceattr.load(command_run / "checkpoints" / "best.ckpt")


@pytest.fixture(scope="module")
def photos(command_run) -> list[Path]:
    """A dozen of the sample faces, as files."""
    folder = _sample_folder()
    return sorted(folder.rglob("*.jpg"))[:12]


def _sample_folder() -> Path:
    return next(Path(os.environ["FACEATTR_CACHE"]).glob("sample/*_n60_size32_*"))


def metrics_of(folder: Path, split: str) -> dict:
    return json.loads((folder / f"{split}_metrics.json").read_text())


def test_import_is_quick_and_brings_no_torch():
    code = """
import sys, faceattr
print(sorted({'torch', 'hydra', 'pandas', 'numpy'} & set(sys.modules)), dir(faceattr))
faceattr.Predictor  # reads images, finds faces, makes rows
heavy = {'torch', 'pytorch_lightning', 'hydra', 'omegaconf', 'yaml', 'pandas', 'tqdm', 'scipy', 'filelock', 'timm'}
print(sorted(heavy & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second = out.splitlines()
    assert first.startswith("[] ") and all(name in first for name in faceattr.__all__)
    assert second == "[]"
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        faceattr.lod  # noqa: B018


def test_train_gives_the_metrics_and_files_of_the_command(run, command_run):
    assert run.folder.is_dir()
    for split in ("val", "test"):
        assert run.metrics[split] == metrics_of(command_run, split) == metrics_of(run.folder, split)
    names = {path.relative_to(run.folder) for path in run.folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(command_run) for path in command_run.rglob("*") if path.is_file()}
    assert "Test accuracy" in (run.folder / "train.log").read_text()
    command = json.loads((run.folder / "run.json").read_text())["command"]
    assert command.startswith("faceattr.train('data.n=60', ") and command.endswith(f"'hydra.run.dir={run.folder}')")


def test_train_twice_in_one_process_leaves_no_state(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["notebook", "--surely=no argument of ours"])
    logger = logging.getLogger("faceattr")
    before = (logger.level, list(logger.handlers), list(logging.root.handlers), list(sys.argv))
    again = faceattr.train(*TINY, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'again'}")
    assert again.metrics == run.metrics
    assert again.folder != run.folder
    assert not GlobalHydra.instance().is_initialized() and not HydraConfig.initialized()
    assert (logger.level, list(logger.handlers), list(logging.root.handlers), list(sys.argv)) == before


def test_train_resumes_a_run(run, command_run, tmp_path):
    first = faceattr.train(*TINY, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'resumed'}")
    last = first.folder / "checkpoints" / "last.ckpt"
    longer = faceattr.train(f"ckpt={last}", "trainer.max_epochs=3")
    assert longer.folder == first.folder
    rates = pd.read_csv(longer.folder / "metrics.csv")["lr"] / 1e-3
    assert rates.tolist() == pytest.approx([1, 0.75, 0.25]), "the cosine of the new trainer.max_epochs"

    shorter = faceattr.train(f"ckpt={last}", "trainer.max_epochs=2", f"hydra.run.dir={tmp_path / 'shorter'}")
    assert "trainer.max_epochs=2: 3 epochs trained already; no more are" in (shorter.folder / "train.log").read_text()
    files = ("metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "test_metrics.json")
    assert all((shorter.folder / name).read_bytes() == (longer.folder / name).read_bytes() for name in files)


def test_evaluate_gives_the_metrics_of_the_run(command_run, tmp_path):
    ckpt = command_run / "checkpoints" / "best.ckpt"
    for split in ("val", "test"):
        found = faceattr.evaluate(ckpt, f"split={split}", FIGURES, f"hydra.run.dir={tmp_path / split}")
        assert found == metrics_of(command_run, split)


def test_run_model_is_the_evaluated_checkpoint(run, photos):
    assert run.model is run.model
    pd.testing.assert_frame_equal(run.model.predict(photos), faceattr.load(run.checkpoint).predict(photos))


def test_predict_gives_the_figures_of_the_command(model, command_run, photos, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(map(str, photos)))
    ckpt = command_run / "checkpoints" / "best.ckpt"
    ended = inside("predict", f"ckpt={ckpt}", "input=list.txt", f"hydra.run.dir={tmp_path / 'out'}", cwd=tmp_path)
    assert ended.code == 0, ended.err
    expected = pd.read_csv(tmp_path / "out" / "predictions.csv")
    model.predict(photos).drop(columns="reason").to_csv(tmp_path / "ours.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "ours.csv"), expected, check_exact=True)


def test_predict_takes_paths_pil_images_and_arrays_alike(model, photos):
    files = photos[:4]
    expected = model.predict_proba(files)
    assert expected.dtype == np.float32 and expected.shape == (4, 2)
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    mixed = [str(files[0]), Image.open(files[1]), arrays[2], files[3]]
    for images in (mixed, arrays, np.stack(arrays), (file for file in files), pd.Series(files)):
        assert np.array_equal(model.predict_proba(images), expected)
    table = model.predict(mixed)
    assert table["path"].tolist() == [str(files[0]), 1, 2, str(files[3])]
    assert table["probability_male"].to_numpy(np.float32).tolist() == expected[:, 1].tolist()
    assert table["predicted"].tolist() == [model.classes[row] for row in expected.argmax(1)]


@pytest.mark.parametrize("kind", ["path", "pil", "array", "grey"])
def test_predict_takes_one_image(model, photos, kind):
    image = {
        "path": photos[0],
        "pil": Image.open(photos[0]),
        "array": np.asarray(Image.open(photos[0])),
        "grey": np.zeros((20, 30), np.uint8),
    }[kind]
    assert model.predict_proba(image).shape == (1, 2)
    assert len(model.predict(image)) == 1


def test_predict_gives_unreadable_images_a_row_with_the_reason(model, photos, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    bad = [text, tmp_path / "absent.jpg", np.zeros((3, 8, 8)), 7]
    table = model.predict([photos[0], *bad, photos[1]])
    assert table.index.tolist() == list(range(6)) and table["path"].tolist()[1] == str(text)
    assert table["predicted"].isna().tolist() == [False, True, True, True, True, False]
    assert table["probability_male"].isna().tolist() == table["predicted"].isna().tolist()
    assert table["reason"].isna().tolist() == [True, False, False, False, False, True]
    for reason, expected in zip(
        table["reason"][1:5], ["not an image", "No such file", "float64 [3, 8, 8]", "int"], strict=True
    ):
        assert expected in reason
    with pytest.raises(FaceattrError, match=r"4 of 6 images have no answer; the first: .*text\.jpg"):
        model.predict_proba([photos[0], *bad, photos[1]])


def test_predict_of_nothing_is_an_empty_table(model):
    assert len(model.predict([])) == 0 and model.predict_proba([]).shape == (0, 2)


def test_predictor_says_what_it_takes_and_gives(model):
    assert model.classes == ("female", "male") and model.input_size == (32, 32)
    assert repr(model) == "Predictor(sample_cnn_full: female, male)"


def test_load_computes_where_it_is_told(command_run, photos, model):
    ckpt = command_run / "checkpoints" / "best.ckpt"
    assert np.array_equal(faceattr.load(ckpt, accelerator="cpu").predict_proba(photos), model.predict_proba(photos))
    with pytest.raises(FaceattrError, match="accelerator"):
        faceattr.load(ckpt, accelerator="abacus").predict_proba(photos)


def test_explain_is_the_overlay_of_the_most_probable_class(model, photos):
    shown = model.explain(photos[0])
    assert shown.dtype == np.uint8 and shown.shape == (32, 32, 3)
    best = model.predict(photos[0])["predicted"][0]
    other = next(name for name in model.classes if name != best)
    assert np.array_equal(shown, model.explain(photos[0], best))
    assert not np.array_equal(shown, model.explain(photos[0], other))
    with pytest.raises(FaceattrError, match=r"label=child: no such class. Classes: female, male"):
        model.explain(photos[0], "child")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["modle=vgg16"], "Did you mean model?"),
        (["model=vgg61"], "vgg16_half"),
        (["trainer.max_epochs=few"], "few"),
        (["seed=-1"], "from 0 to"),
        (["data=csv"], "data.root"),
        (["-m", "seed=0,1"], "-m: give key=value"),
        (["hparams_search=optuna"], "command line"),
        (["trainer=ddp"], "command line"),
    ],
)
def test_train_raises_one_clear_error(overrides, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FaceattrError, match=message):
        faceattr.train(*overrides)
    assert not list(tmp_path.iterdir())
    assert not GlobalHydra.instance().is_initialized() and not HydraConfig.initialized()


def test_hydra_of_the_program_stays_as_it_is():
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        own = GlobalHydra.instance().hydra
        with pytest.raises(FaceattrError, match="Did you mean model"):
            faceattr.train("modle=vgg16")
        assert GlobalHydra.instance().hydra is own


def test_train_refuses_a_folder_that_holds_a_run(run):
    with pytest.raises(FaceattrError, match="already holds a run"):
        faceattr.train(*TINY, f"hydra.run.dir={run.folder}")


def test_load_and_evaluate_of_no_checkpoint_are_clear_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for function in (faceattr.load, faceattr.evaluate):
        with pytest.raises(FaceattrError, match="no such file"):
            function(tmp_path / "absent.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_examples_in_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for modules in ((faceattr,), (api, predictor)):
        tests = []
        for module in modules:
            examples = [test for test in doctest.DocTestFinder().find(module) if test.examples]
            assert examples
            tests += sorted(
                examples, key=lambda test: test.lineno or 0
            )  # the module's own makes the run that the others use
        runner = doctest.DocTestRunner()
        for test in tests:
            test.globs = tests[0].globs  # they read as one session
            assert runner.run(test, clear_globs=False).failed == 0, test.name
