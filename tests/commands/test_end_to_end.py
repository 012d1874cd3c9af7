"""From the command line to the files: what a run leaves, judging and predicting from its checkpoint, going on, sweeps."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import untrained
from PIL import Image
from programs import FIGURES, OFFLINE, ROOT, S0_MAP, TINY, inside, quick, shell, tiny_run
from signal_at import SignalAt
from small_run import Run

from faceattr.data.sources import sample

CONF = ROOT / "conf"
NUMBERS = {
    *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
    *(
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "checkpoints/training_hashes.npy",
        "metrics.csv",
        "table.csv",
        "run.json",
        "train.log",
    ),
    *(f"{split}_metrics.json" for split in ("val", "test")),
    *(f"{kind}_{split}.csv" for kind in ("predictions", "slices") for split in ("val", "test")),
}
PICTURES = {"report.html", "curves.png"} | {f"{n}_{s}.png" for n in ("confusion", "gallery") for s in ("val", "test")}
FILES = NUMBERS | PICTURES
TIMES = ["seconds", "images_per_second"]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read(file: Path) -> dict:
    return json.loads(file.read_text())


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """One finished run, read by many tests and changed by none."""
    folder = tmp_path_factory.mktemp("end_to_end") / "run"
    more = ["trainer.max_epochs=3", "optim.lr=3e-3", "evaluate.report=full", f"hydra.run.dir={folder}"]
    ended = inside("train", *TINY, *more, cwd=folder.parent)
    assert ended.code == 0 and ended.err == "", ended.err
    return folder


@pytest.fixture
def best(run, tmp_path) -> Path:
    """The run's best checkpoint alone, in another folder."""
    (tmp_path / "elsewhere").mkdir()
    return shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "elsewhere" / "model.ckpt")


# What a run leaves behind


def test_a_run_leaves_the_files_of_the_design(run):
    assert names(run) == FILES
    assert not [path for path in run.rglob("*") if "=" in path.name]
    about = read(run / "run.json")
    promised = (
        "versions",
        "git",
        "seed",
        "device",
        "precision",
        "fingerprint",
        "seconds",
        "command",
        "weights",
        "classes",
    )
    assert set(promised) <= set(about) and about["status"] == "finished" and about["error"] is None
    assert about["parameters"] == {"total": 389_633, "trainable": 389_633}
    assert about["images"]["train"] + about["images"]["val"] + about["images"]["test"] == 60
    assert about["precision"] == "32" and about["weights"].startswith("random") and about["seconds"] > 0
    assert about["command"].startswith("python ") and "data.n=60" in about["command"]
    assert about["images_per_second"] > 0 and set(about["versions"]) >= {"python", "torch", "faceattr"}


def test_metrics_csv_has_a_row_per_epoch(run):
    rows = pd.read_csv(run / "metrics.csv")
    assert rows["epoch"].tolist() == [0, 1, 2] and rows.notna().all(axis=None)
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "lr", *TIMES} <= set(rows)
    assert read(run / "run.json")["best_epoch"] == rows["val_loss"].idxmin()


@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_agree_with_the_predictions(run, split):
    found, table = read(run / f"{split}_metrics.json"), pd.read_csv(run / "table.csv")
    rows = pd.read_csv(run / f"predictions_{split}.csv")
    assert list(rows) == ["path", "true", "predicted", "probability_female", "probability_male"]
    own = table[table["split"] == split]
    assert rows["path"].tolist() == own["path"].tolist() and rows["true"].tolist() == own["label"].tolist()
    probabilities = rows[["probability_female", "probability_male"]]
    assert probabilities.sum(axis=1).tolist() == pytest.approx([1] * len(rows), abs=1e-6)
    assert (probabilities.idxmax(axis=1) == "probability_" + rows["predicted"]).all()
    n, p, z = len(rows), (rows["true"] == rows["predicted"]).mean(), 1.959963984540054
    assert found["n"] == n and found["accuracy"] == pytest.approx(p)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx((centre - half, centre + half))
    assert {"average_precision", "auroc", "f1", "balanced_accuracy", "recall_male"} <= set(found)
    assert found["positive_class"] == "male"
    given_to_true = [row[f"probability_{row['true']}"] for _, row in rows.iterrows()]
    assert found["log_loss"] == pytest.approx(sum(-math.log(p) for p in given_to_true) / n, abs=1e-5)
    hits = (rows["true"] == rows["predicted"]).groupby(rows["true"]).mean()
    assert (found["recall_female"], found["recall_male"]) == pytest.approx((hits["female"], hits["male"]))


def test_pictures_can_be_looked_at(run):
    for name in ("curves.png", "confusion_test.png", "confusion_val.png"):
        with Image.open(run / name) as picture:
            picture.load()
            assert picture.width >= 400 and picture.height >= 300
            assert len(picture.convert("L").getcolors(256) or range(257)) > 20, f"{name} is empty"


# Judging and predicting


@pytest.mark.slow
def test_train_evaluate_predict_from_the_shell(tmp_path):
    ended = shell("train", *TINY, "trainer.max_epochs=1", cwd=tmp_path)
    assert ended.code == 0 and ended.err == "", ended.err
    (run,) = (tmp_path / "outputs" / "sample_cnn_full").iterdir()
    assert names(run) == NUMBERS
    assert "Test accuracy" in ended.out and "95%" in ended.out and f"Results: {run}" in ended.out
    ckpt = shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "copy.ckpt")
    moved = run.rename(tmp_path / "away")
    (tmp_path / "other").mkdir()
    ended = quick("evaluate", f"ckpt={ckpt}", FIGURES, cwd=tmp_path / "other")
    assert ended.code == 0 and ended.err == "" and "Test accuracy" in ended.out
    (judged,) = (tmp_path / "other" / "outputs" / "evaluate").iterdir()
    assert (judged / "test_metrics.json").read_bytes() == (moved / "test_metrics.json").read_bytes()
    table = pd.read_csv(moved / "table.csv")
    photo = Path(os.environ["FACEATTR_CACHE"]) / "sample" / table["path"][0]
    ended = quick("predict", f"ckpt={ckpt}", f"input={photo}", "hydra.run.dir=said", cwd=tmp_path / "other")
    assert ended.code == 0 and ended.err == "" and "probability_male" in ended.out, ended
    assert len(pd.read_csv(tmp_path / "other" / "said" / "predictions.csv")) == 1


@pytest.mark.parametrize(
    ("given", "split"), [([], "test"), (["split=val", FIGURES], "val"), (["split=train", FIGURES], "train")]
)
def test_evaluate_repeats_the_runs_own_figures(run, best, given, split):
    ended = inside("evaluate", f"ckpt={best}", *given, "hydra.run.dir=out", cwd=best.parent)
    assert ended.code == 0, ended.err
    out = best.parent / "out"
    pictures = set() if given else {f"confusion_{split}.png", f"gallery_{split}.png", "report.html"}
    made = {f"{split}_metrics.json", f"predictions_{split}.csv", f"slices_{split}.csv", *pictures, "evaluate.log"}
    assert names(out) == made | {name for name in FILES if name.startswith(".hydra")}
    for name in (f"{split}_metrics.json", f"predictions_{split}.csv"):
        assert split == "train" or (out / name).read_bytes() == (run / name).read_bytes(), name
    assert read(out / f"{split}_metrics.json")["n"] == read(run / "run.json")["images"][split]


def test_an_evaluation_is_sliced_by_the_columns_that_are_asked_for(run, best, tmp_path):
    wanted = "evaluate.slices=[glasses,brightness]"
    ended = inside("evaluate", f"ckpt={best}", FIGURES, wanted, "split=all", "hydra.run.dir=out", cwd=tmp_path)
    assert ended.code == 0, ended.err
    found = pd.read_csv(tmp_path / "out" / "slices_all.csv")
    assert set(found["column"]) == {"glasses", "brightness"} and (found.groupby("column")["n"].sum() == 60).all()
    table = pd.read_csv(run / "table.csv", keep_default_na=False).set_index("path")
    rows = pd.read_csv(tmp_path / "out" / "predictions_all.csv").join(table[["glasses"]], on="path")
    for _, row in found[found["column"] == "glasses"].iterrows():
        own = rows[rows["glasses"] == row["value"]]
        assert len(own) == row["n"] and (own["true"] == own["predicted"]).mean() == pytest.approx(row["accuracy"])
    wrong = inside("evaluate", f"ckpt={best}", "evaluate.slices=[hat]", cwd=tmp_path)
    assert wrong.code == 1 and wrong.err.startswith("Error: evaluate.slices: no column hat. There are: ")
    none = inside("evaluate", f"ckpt={best}", "evaluate.slices=[]", FIGURES, "hydra.run.dir=none", cwd=tmp_path)
    assert none.code == 0 and not (tmp_path / "none" / "slices_test.csv").exists()


def test_a_temperature_is_fitted_kept_and_used(run, best, album, tmp_path):
    plain = read(run / "test_metrics.json")
    copy = shutil.copy(best, tmp_path / "best.ckpt")
    ended = inside("evaluate", f"ckpt={copy}", "evaluate.calibrate=true", FIGURES, "hydra.run.dir=out", cwd=tmp_path)
    assert ended.code == 0 and "Temperature " in ended.out, ended.err
    found = read(tmp_path / "out" / "test_metrics.json")
    temperature = found["temperature"]
    for name in ("ece", "brier", "log_loss"):
        assert found[f"{name}_uncalibrated"] == pytest.approx(plain[name], abs=1e-5)
    assert found["accuracy"] == plain["accuracy"] and temperature != 1
    again = inside("evaluate", f"ckpt={copy}", FIGURES, "hydra.run.dir=again", cwd=tmp_path)
    assert again.code == 0 and read(tmp_path / "again" / "test_metrics.json") == found
    before, after = (pd.read_csv(f / "predictions_test.csv")["probability_male"] for f in (run, tmp_path / "out"))
    assert after.to_numpy() == pytest.approx(1 / (1 + (1 / before - 1) ** (1 / temperature)), abs=1e-4)
    said = inside("predict", f"ckpt={copy}", f"input={album}", "hydra.run.dir=predicted", cwd=tmp_path)
    assert f"calibrated: temperature {temperature:.3f}" in said.out
    assert "calibrated" not in inside("predict", f"ckpt={best}", f"input={album}", cwd=tmp_path).out


def test_a_threshold_that_cannot_be_reached_loses_nothing(best, tmp_path):
    wanted = "evaluate.precision=1.0"
    ended = inside("evaluate", f"ckpt={best}", FIGURES, wanted, "split=all", "hydra.run.dir=out", cwd=tmp_path)
    assert ended.code == 0, ended.err
    found = read(tmp_path / "out" / "all_metrics.json")
    reached = "threshold" in found
    assert reached or "no threshold reaches evaluate.precision=1.0" in ended.out + ended.err
    assert not reached or found["precision_at_threshold"] == 1.0


def test_a_run_fits_its_temperature_on_validation_and_judges_the_test_with_it(tmp_path):
    folder = tiny_run(tmp_path / "run", "evaluate.calibrate=true", "evaluate.recall=0.5", "trainer.max_epochs=1")
    val, test = (read(folder / f"{split}_metrics.json") for split in ("val", "test"))
    assert "temperature" not in val and test["temperature"] > 0
    assert test["recall_at_threshold"] >= 0.5 and 0 <= test["threshold"] <= 1


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("evaluate.precision=2", "evaluate.precision=2.0: must be above 0 and at most 1"),
        ("evaluate={precision: 0.5, recall: 0.5}", "exclude each other"),
        ("evaluate.calibrate=true loss=one_vs_rest", "needs probabilities that sum to 1"),
        ("evaluate.recall=0.9 data.attribute=age", "needs two classes; there are 3"),
        ("evaluate.slices=[hat]", "no column hat"),
    ],
)
def test_wishes_that_cannot_be_are_refused_before_training(tmp_path, wish, said):
    given = [wish] if "{" in wish else wish.split()
    ended = inside("train", *TINY, *given, "hydra.run.dir=run", cwd=tmp_path)
    assert ended.code == 1 and said in ended.err and not (tmp_path / "run" / "checkpoints").exists()


def test_two_checkpoints_are_compared_on_the_same_images(run, best, tmp_path):
    compared = f"compare={untrained(tmp_path / 'other.ckpt', 'model.image_size=[48,40]')}"
    ended = inside("evaluate", f"ckpt={best}", FIGURES, compared, "split=all", "hydra.run.dir=out", cwd=tmp_path)
    assert ended.code == 0, ended.err
    out = tmp_path / "out"
    first, second = (pd.read_csv(folder / "predictions_all.csv") for folder in (out, out / "compared"))
    rights = [frame["true"] == frame["predicted"] for frame in (first, second)]
    found = read(out / "comparison.json")
    assert found["difference"] == pytest.approx(rights[0].mean() - rights[1].mean())
    assert (found["wins"], found["losses"]) == ((rights[0] & ~rights[1]).sum(), (rights[1] & ~rights[0]).sum())
    assert found["low"] < found["difference"] < found["high"] and "Difference " in ended.out
    rows = pd.read_csv(out / "disagreements.csv")
    assert rows["path"].tolist() == first["path"][first["predicted"] != second["predicted"]].tolist()
    wrong = inside("evaluate", f"ckpt={best}", "compare=nowhere.ckpt", cwd=tmp_path)
    assert (
        wrong.code == 1
        and wrong.err.startswith("Error: compare=")
        and "nowhere.ckpt: there is no such file" in wrong.err
    )


def test_other_data_are_matched_by_class_name(best, tmp_path):
    """The same pictures in S0's layout, where male is 0 and female 1, give the same figures per class."""
    sample.write("csv", tmp_path / "csv", n=60, image_size=32)
    other = inside(
        "evaluate", f"ckpt={best}", "data=csv", S0_MAP, "data.root=csv", FIGURES, "hydra.run.dir=csv_out", cwd=tmp_path
    )
    own = inside("evaluate", f"ckpt={best}", FIGURES, "split=all", "hydra.run.dir=own_out", cwd=tmp_path)
    assert other.code == own.code == 0, other.err + own.err
    other, own = (read(tmp_path / f"{name}_out" / "all_metrics.json") for name in ("csv", "own"))
    assert (other.pop("interval_unit"), own.pop("interval_unit")) == ("image", "group")  # S0 names nobody
    figures = [name for name in own if not name.endswith(("_low", "_high"))]
    assert {name: other[name] for name in figures} == pytest.approx({name: own[name] for name in figures}, abs=1e-6)
    assert own["recall_male"] != own["recall_female"]
    rows = pd.read_csv(tmp_path / "csv_out" / "predictions_all.csv")
    assert list(rows)[3:] == ["probability_female", "probability_male"], "in the model's order"


def test_data_of_other_classes_are_refused_with_both_lists(best, tmp_path):
    ended = inside("evaluate", f"ckpt={best}", "data=sample", "data.n=60", "data.attribute=age", cwd=tmp_path)
    assert ended.code == 1 and "female, male" in ended.err and "young, middle, old" in ended.err
    assert not (tmp_path / "outputs").exists()


@pytest.fixture(scope="session")
def album(run, tmp_path_factory) -> Path:
    """The run's test images: in nested folders, and named by a list and a CSV; beside them what is no image."""
    folder, root = tmp_path_factory.mktemp("album"), Path(os.environ["FACEATTR_CACHE"]) / "sample"
    for path in pd.read_csv(run / "predictions_test.csv")["path"]:
        place = folder / "photos" / ("a" if int(Path(path).stem) % 2 else "b/c")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, place)
    (folder / "photos" / "notes.md").write_text("no image\n")
    files = sorted((folder / "photos").rglob("*.jpg"))
    (folder / "list.txt").write_text("".join(f"{file}\n" for file in files) + "\n")
    relative = [file.relative_to(folder).as_posix() for file in files]
    pd.DataFrame({"n": range(len(files)), "path": relative}).to_csv(folder / "table.csv", index=False)
    return folder


@pytest.mark.parametrize("source", ["photos", "photos/**/*.jpg", "list.txt", "table.csv", "photos/a/*.jpg", "one"])
def test_predict_takes_files_folders_globs_lists_and_tables(run, best, album, tmp_path, source):
    own = pd.read_csv(run / "predictions_test.csv").set_index("path")
    own.index = own.index.map(lambda path: Path(path).name)
    one = next((album / "photos" / "a").iterdir())
    ended = inside(
        "predict",
        f"ckpt={best}",
        f"input='{one if source == 'one' else album / source}'",
        "batch_size=4",
        "hydra.run.dir=out",
        cwd=tmp_path,
    )
    assert ended.code == 0 and ended.err == "", ended.err
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(rows) == ["path", "predicted", "probability_female", "probability_male"]
    expected = {"one": 1, "photos/a/*.jpg": len(list((album / "photos" / "a").iterdir()))}.get(source, len(own))
    assert len(rows) == expected and rows["path"].is_unique
    own = own.loc[rows["path"].map(lambda path: Path(path).name)]
    for column in ("probability_female", "probability_male"):
        assert rows[column].tolist() == pytest.approx(own[column].tolist(), abs=1e-6)
    assert rows["predicted"].tolist() == own["predicted"].tolist()
    assert all(Path(path).name in ended.out for path in rows["path"]), "few predictions are printed"


def test_predict_goes_on_past_unreadable_files(best, album, tmp_path):
    photos = shutil.copytree(album / "photos", tmp_path / "photos")
    good = len(list(photos.rglob("*.jpg")))
    (photos / "a" / "broken.jpg").write_bytes(b"no image")
    (photos / "empty.png").write_bytes(b"")
    ended = inside("predict", f"ckpt={best}", "input=photos", "batch_size=2", "hydra.run.dir=out", cwd=tmp_path)
    assert ended.code == 1 and f"2 of {good + 2} files" in ended.err and "Traceback" not in ended.err
    assert "broken.jpg" in ended.err and "empty.png" in ended.err
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(rows) == good and not rows["path"].str.contains("broken|empty").any()


# Going on


LONG = ("trainer.max_epochs=7", "trainer.patience=null")
GRADUAL = "finetune.train_from=[[0,head],[2,block4],[4,block2],[6,block1]]"


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("uninterrupted") / "run", *LONG, GRADUAL)


@pytest.mark.parametrize(
    ("by", "code"),
    [(signal.SIGKILL, -9), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
    ids=["kill", "term"],
)
def test_interrupted_and_resumed_equals_uninterrupted(uninterrupted, tmp_path, by, code):
    given, three_epochs = (*TINY, *LONG, GRADUAL, "hydra.run.dir=run"), SignalAt(by, "run/metrics.csv", lines=3)
    assert quick("train", *given, cwd=tmp_path, signal_at=three_epochs).code == code
    about = read(tmp_path / "run" / "run.json")
    assert about["status"] == ("running" if by == signal.SIGKILL else "interrupted")
    run = (tmp_path / "run").rename(tmp_path / "moved")
    last = run / "checkpoints" / "last.ckpt"
    reached = torch.load(last, weights_only=True)["epoch"]
    assert 1 <= reached <= 3 and not (run / "test_metrics.json").exists(), "it was not interrupted on the way"
    ended = inside("train", f"ckpt={last}", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert names(run) == NUMBERS and read(run / "run.json")["status"] == "finished"
    assert_equal_runs(run, uninterrupted)


def assert_equal_runs(run: Path, other: Path) -> None:
    """Bit for bit: weights, optimizer, every epoch's figures, the judgement."""
    for name in ("last", "best"):
        a, b = (torch.load(r / "checkpoints" / f"{name}.ckpt", weights_only=True) for r in (run, other))
        assert a["epoch"] == b["epoch"] and a["state_dict"].keys() == b["state_dict"].keys()
        assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"]), name
        states = [saved["optimizer_states"][0]["state"] for saved in (a, b)]
        torch.testing.assert_close(*states, rtol=0, atol=0)
    rows, others = (pd.read_csv(r / "metrics.csv").drop(columns=TIMES) for r in (run, other))
    pd.testing.assert_frame_equal(rows, others, check_exact=True)
    for name in ("test_metrics.json", "val_metrics.json", "predictions_test.csv"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


def test_an_existing_run_is_not_overwritten(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    ended = inside("train", *TINY, "trainer.max_epochs=1", f"hydra.run.dir={copy}", cwd=tmp_path)
    assert ended.code == 1 and "already holds a run" in ended.err and f"ckpt={copy}/checkpoints/last.ckpt" in ended.err
    for command, *arguments in (["evaluate"], ["predict", "input=."], ["export"]):
        given = (f"ckpt={run / 'checkpoints' / 'best.ckpt'}", *arguments, f"hydra.run.dir={copy}")
        ended = inside(command, *given, cwd=tmp_path)
        assert ended.code == 1 and f"{copy}: this folder already holds a run" in ended.err, ended
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("change", ["model.head.dropout=0.5", "finetune=frozen", "augment=none", "seed=1", "data.n=61"])
def test_going_on_as_something_else_is_refused(run, tmp_path, change):
    copy = shutil.copytree(run, tmp_path / "run")
    ended = inside("train", f"ckpt={copy}/checkpoints/last.ckpt", change, "trainer.max_epochs=4", cwd=tmp_path)
    changed = "fingerprint" if change.startswith("data") else change.partition("=")[0].partition(".")[0]
    assert ended.code == 1 and "not the same run" in ended.err and changed in ended.err, ended.err
    for name in names(run) - {name for name in FILES if name.endswith(".log")}:
        assert (copy / name).read_bytes() == (run / name).read_bytes(), f"{name} was changed"


def test_the_seed_decides_everything(run, tmp_path):
    again = tiny_run(tmp_path / "again", "trainer.max_epochs=3", "optim.lr=3e-3")
    assert_equal_runs(again, run)
    assert read(again / "run.json")["fingerprint"] == read(run / "run.json")["fingerprint"]
    one_epoch = ("trainer.max_epochs=1", "optim.lr=3e-3", "seed=1")
    other = tiny_run(tmp_path / "other", *one_epoch)
    assert read(other / "run.json")["fingerprint"] != read(run / "run.json")["fingerprint"]
    same_split = tiny_run(tmp_path / "same", *one_epoch, "data.seed=0")
    assert read(same_split / "run.json")["fingerprint"] == read(run / "run.json")["fingerprint"]
    losses = [pd.read_csv(folder / "metrics.csv")["train_loss"][0] for folder in (run, other, same_split)]
    assert losses[0] != losses[1] and losses[0] != losses[2]


# Sweeps


@pytest.mark.slow
def test_a_sweep_with_a_failing_job(tmp_path):
    over = ["finetune.train_from=head,nowhere", "seed=0,1"]
    ended = inside("train", "-m", *TINY, "trainer.max_epochs=1", *over, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ended.code == 1 and "2 of 4 jobs failed" in ended.err and "nowhere" in ended.err, ended.err
    assert "Traceback" not in ended.out + ended.err
    board = pd.read_csv(tmp_path / "sweep" / "leaderboard.csv").set_index("finetune.train_from")
    assert board["seeds"].to_dict() == {"head": 2, "nowhere": 0}
    assert board["failed"].to_dict() == {"head": 0, "nowhere": 2}
    assert board["trainable"].dropna().to_dict() == {"head": 257}
    assert not [path for path in (tmp_path / "sweep").rglob("*") if "=" in path.name]
    for number, (start_at, seed) in enumerate([(s, n) for s in ("head", "nowhere") for n in (0, 1)]):
        job = tmp_path / "sweep" / str(number)
        about = read(job / "run.json")
        assert f"finetune.train_from={start_at}" in about["overrides"] and f"seed={seed}" in about["overrides"]
        assert about["status"] == ("failed" if start_at == "nowhere" else "finished")
        assert start_at == "nowhere" or names(job) == NUMBERS
    mean = sum(read(tmp_path / "sweep" / n / "val_metrics.json")["accuracy"] for n in "01") / 2
    assert board.loc["head", "val_accuracy"] == pytest.approx(mean)
    assert str(tmp_path / "sweep" / "leaderboard.csv") in ended.out or "sweep/leaderboard.csv" in ended.out


@pytest.mark.slow
def test_a_search(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    more = ["hparams_search=optuna", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep"]
    ended = quick("train", "-m", *TINY, "trainer.max_epochs=1", *more, cwd=tmp_path)
    assert ended.code == 0, ended.err
    board = pd.read_csv(tmp_path / "sweep" / "leaderboard.csv")
    assert (
        len(board) == 2
        and board["optim.lr"].nunique() == 2
        and (tmp_path / "sweep" / "optimization_results.yaml").exists()
    )


# Every option in a real run


@pytest.mark.slow
def test_every_finetune_option_trains(tmp_path):
    """Found by globbing: a new YAML is tested with no new test."""
    over = f"finetune={','.join(options('finetune'))}"
    ended = inside("train", "-m", *TINY, "trainer.max_epochs=2", over, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert len(options("finetune")) == len(list((tmp_path / "sweep").glob("*/test_metrics.json"))) > 3


@pytest.mark.slow
@pytest.mark.parametrize("group", ["augment", "optim"])
def test_every_option_trains(group):
    for option in options(group):
        fitted = Run(f"{group}={option}", "data.n=60", "trainer=cpu", epochs=1)
        assert np.isfinite([*fitted.losses.steps, *fitted.losses.validation]).all(), option
    assert len(options(group)) > 3


def test_the_debug_trainer(tmp_path):
    ended = inside("train", "trainer=debug", *TINY[:3], FIGURES, "data.batch_size=4", "hydra.run.dir=run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == 1
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.slow
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    run = tiny_run(tmp_path / "run", "trainer.max_epochs=1", "logger=tensorboard")
    assert list((run / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(("loss", "balance"), [pytest.param("bce", "sampler", marks=pytest.mark.slow), ("ce", "loss")])
def test_losses_and_balance(run, tmp_path, loss, balance):
    made = tiny_run(tmp_path / "run", "trainer.max_epochs=1", f"loss={loss}", f"data.balance={balance}")
    outputs = {"bce": 1, "ce": 2}[loss]
    state = torch.load(made / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert next(tensor for name, tensor in state.items() if name.endswith("head.out.bias")).shape == (outputs,)
    assert read(made / "test_metrics.json").keys() == read(run / "test_metrics.json").keys()


def test_ordinal_classes_have_ordered_metrics(tmp_path):
    made = tiny_run(tmp_path / "run", "trainer.max_epochs=1", "data.attribute=age")
    found, rows = read(made / "val_metrics.json"), pd.read_csv(made / "predictions_val.csv")
    code = {"young": 0, "middle": 1, "old": 2}
    true, predicted = rows["true"].map(code), rows["predicted"].map(code)
    assert found["mean_absolute_error"] == pytest.approx((true - predicted).abs().mean())
    assert "quadratic_kappa" in found and {"recall_young", "recall_middle", "recall_old"} <= set(found)
    assert list(rows)[3:] == ["probability_young", "probability_middle", "probability_old"]


@pytest.mark.parametrize(
    "how", [pytest.param(["data.pack=ram"], marks=pytest.mark.slow), ["data.pack=off", "data.workers=0"]]
)
def test_packing_changes_nothing_but_speed(run, tmp_path, how):
    made = tiny_run(tmp_path / "run", "trainer.max_epochs=3", "optim.lr=3e-3", *how)
    for name in ("test_metrics.json", "predictions_test.csv"):
        assert (made / name).read_bytes() == (run / name).read_bytes(), name
    rows, others = (pd.read_csv(r / "metrics.csv").drop(columns=TIMES) for r in (made, run))
    pd.testing.assert_frame_equal(rows, others, check_exact=True)


@pytest.mark.slow
def test_worker_processes_change_nothing_either(run, tmp_path):
    how = ["trainer.max_epochs=3", "optim.lr=3e-3", "data.pack=off", "data.workers=2"]
    ended = shell("train", *TINY, *how, "hydra.run.dir=run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "predictions_test.csv").read_bytes() == (run / "predictions_test.csv").read_bytes()


def test_unreadable_images_are_left_out_on_request(tmp_path):
    root = sample.write("csv", tmp_path / "csv", n=60, image_size=32)
    for number in (3, 7, 30):
        (root / "images" / f"{number:06d}.jpg").write_bytes(b"no image")
    arguments = ["data=csv", S0_MAP, "data.root=csv", *TINY[2:], "trainer.max_epochs=1", "hydra.run.dir=run"]
    ended = inside("train", *arguments, "data.on_bad_image=skip", cwd=tmp_path)
    assert ended.code == 0 and "3 unreadable images" in ended.out, ended.err
    bad = pd.read_csv(tmp_path / "run" / "bad_images.csv")
    assert [Path(path).stem for path in bad["path"]] == ["000003", "000007", "000030"] and bad["reason"].notna().all()
    assert len(pd.read_csv(tmp_path / "run" / "table.csv")) == 57
    assert read(tmp_path / "run" / "run.json")["bad_images"] == 3


def test_random_weights_are_said_loudly(tmp_path):
    """`model.pretrained=auto` goes on without a network, and says so at the start, at the end and in run.json."""
    arguments = ["model=timm", "model.name=test_resnet", *TINY]
    ended = inside(
        "train",
        *arguments,
        "trainer.max_epochs=1",
        "hydra.run.dir=run",
        cwd=tmp_path,
        TORCH_HOME=str(tmp_path),
        **OFFLINE,
    )
    assert ended.code == 0, ended.err
    assert ended.out.count("model.weights=FILE") >= 2 and "RANDOM" in ended.out
    assert read(tmp_path / "run" / "run.json")["weights"].startswith("random (")


# Real images


def _real(tmp_path: Path, *arguments: object) -> dict:
    ended = inside("train", *arguments, *TINY[2:], "trainer.max_epochs=1", "hydra.run.dir=run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert names(tmp_path / "run") == NUMBERS
    return read(tmp_path / "run" / "run.json")


@pytest.mark.slow
def test_real_portraits_by_a_csv(shared, tmp_path):
    about = _real(tmp_path, "data=csv", S0_MAP, f"data.root={shared('data', 'small_csv')}")
    assert about["images"] == {"train": 140, "val": 30, "test": 30} and about["classes"] == ["male", "female"]


@pytest.mark.slow
def test_real_faces_by_age(shared, tmp_path):
    drawn = "data.per_class={train:40,val:20,test:20}"
    about = _real(tmp_path, "data=imfdb", f"data.root={shared('data', 'faces')}", drawn)
    assert about["images"] == {"train": 120, "val": 60, "test": 60} and about["classes"] == ["young", "middle", "old"]
    assert "quadratic_kappa" in read(tmp_path / "run" / "test_metrics.json")


def test_real_celebrities_by_identity(shared, tmp_path):
    about = _real(tmp_path, "data=celeba", f"data.root={shared('data', 'celeba')}", "data.split=identity")
    assert sum(about["images"].values()) == 692 and about["classes"] == ["female", "male"]
    table = pd.read_csv(tmp_path / "run" / "table.csv")
    assert (table.groupby("group")["split"].nunique() == 1).all() and table["group"].nunique() > 10
