"""Many attributes at once: the table, and the way from the command line to the files."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from programs import TINY, inside

from faceattr.data import table
from faceattr.data.sources import celeba, csv, sample
from faceattr.errors import FaceattrError

# Tables


def table_of(root: Path, values: dict[str, list], **columns: list) -> pd.DataFrame:
    n = len(next(iter(values.values())))
    for i in range(n):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(root / f"{i:03d}.png")
    found = pd.DataFrame({"path": [f"{i:03d}.png" for i in range(n)]} | values | columns)
    found.attrs.update(classes=list(values), multilabel=True)
    return found


def test_a_table_of_attributes_is_split_by_identity_and_keeps_what_is_not_known(tmp_path):
    values = {"Male": [1.0, 0.0] * 20, "Young": [1.0, math.nan, 0.0, math.nan] * 10}
    given = table_of(tmp_path, values, group=[str(i // 4) for i in range(40)])
    ready = table.prepare(given, tmp_path)
    assert list(ready) == ["path", "Male", "Young", "split", "group"]
    assert table.targets(ready).dtype == np.float32
    assert np.array_equal(table.targets(ready), given[["Male", "Young"]].to_numpy(np.float32), equal_nan=True)
    assert (ready.groupby("group")["split"].nunique() == 1).all()
    counted = table.counts(ready)
    assert counted.loc["Male"].sum() == 20 and counted.loc["Young"].sum() == 10
    assert table.prepare(given, tmp_path, max_images=10).shape[0] == 10
    turned = table.with_classes(ready, ["Young", "Male"])
    assert np.array_equal(table.targets(turned)[:, ::-1], table.targets(ready), equal_nan=True)
    assert ready.attrs["classes"] == ["Male", "Young"]


def test_the_fingerprint_follows_the_attributes(tmp_path):
    values = {"Male": [1.0, 0.0] * 20, "Young": [1.0, 0.0] * 20}
    ready = table.prepare(table_of(tmp_path, values), tmp_path)
    changed = ready.copy()
    changed.loc[0, "Young"] = math.nan
    turned = table.with_classes(ready, ["Young", "Male"])
    assert len({table.fingerprint(t) for t in (ready, changed, turned)}) == 3
    assert table.fingerprint(ready.assign(age=1)) == table.fingerprint(ready)


def test_all_problems_of_attributes_are_named(tmp_path):
    values = {"Male": [1.0, 2.0, math.nan, 0.0], "Young": [1.0, 1.0, math.nan, math.nan]}
    with pytest.raises(FaceattrError) as error:
        table.prepare(table_of(tmp_path, values, split=["val", "train", "train", "train"]), tmp_path)
    assert "attribute that is neither 1, 0 nor missing (1): 001.png" in str(error.value)
    assert "no attribute known (1): 002.png" in str(error.value)
    values = {"Male": [1.0, 0.0, 1.0], "Young": [1.0, 1.0, math.nan]}
    with pytest.raises(FaceattrError, match=r"attribute without a known label in train \(1\): Young"):
        table.prepare(table_of(tmp_path, values, split=["val", "val", "train"]), tmp_path)
    with pytest.raises(FaceattrError, match=r"data\.per_class draws classes"):
        table.prepare(table_of(tmp_path, values, split=["val", "val", "train"]), tmp_path, per_class={"train": 1})


# Sources


def test_celebas_file_gives_any_attributes_and_a_zero_is_not_known(tmp_path):
    root = sample.write("celeba", tmp_path / "celeba", n=12, image_size=32)
    file = root / "list_attr_celeba.txt"
    lines = file.read_text().splitlines()
    signs = lines[2].split()
    lines[2] = " ".join([signs[0], "0", *signs[2:]])  # the first image's Eyeglasses
    file.write_text("\n".join(lines) + "\n")
    every = celeba.load(root, attributes="all")
    assert every.attrs["notes"][0].endswith("1 means yes, -1 no, 0 not known (because -1, 0 and 1 all occur)")
    assert {key: every.attrs[key] for key in ("classes", "multilabel")} == {
        "classes": ["Eyeglasses", "Male", "No_Beard", "Smiling", "Young"],
        "multilabel": True,
    }
    assert math.isnan(every["Eyeglasses"][0]) and every["Eyeglasses"].notna().sum() == 11
    two = celeba.load(root, attributes=["Young", "Male"])
    assert two.attrs["classes"] == ["Young", "Male"] and two["Smiling"].dtype == bool and "label" not in two
    assert (two["Male"] == (celeba.load(root)["label"] == "male")).all()
    with pytest.raises(FaceattrError, match=r"data.attributes: Bald not in .*There: Eyeglasses, Male.*or all"):
        celeba.load(root, attributes=["Bald"])
    with pytest.raises(FaceattrError, match=r"data\.first_per_class draws classes"):
        celeba.load(root, attributes="all", first_per_class=2)


def test_a_csvs_columns_say_yes_no_or_nothing(tmp_path):
    (tmp_path / "results.csv").write_text("Filename,Hat,Glasses\na.png,1,yes\nb.png,-1,\nc.png,0,False\n")
    (tmp_path / "images").mkdir()
    found = csv.load(tmp_path, attributes=["Glasses", "Hat"])
    assert (
        found["Hat"][:2].tolist() == [1, 0]
        and math.isnan(found["Hat"][2])
        and found["Glasses"][[0, 2]].tolist() == [1, 0]
    )
    assert math.isnan(found["Glasses"][1]) and found.attrs["classes"] == ["Glasses", "Hat"]
    assert csv.load(tmp_path, attributes=["Hat"], unknown="none")["Hat"].tolist() == [1, 0, 0]
    (tmp_path / "results.csv").write_text("Filename,Hat\na.png,1\nb.png,maybe\n")
    with pytest.raises(FaceattrError, match=r"1 cell of column 'Hat', not 1, .* line 3: 'maybe'"):
        csv.load(tmp_path, attributes=["Hat"])


# From the command line to the files


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("multilabel")
    sample.write("celeba", folder / "celeba", n=90, image_size=32)
    keys = [f"data.root={folder / 'celeba'}", "data.attributes=all", "data.balance=loss", "trainer.max_epochs=1"]
    keys += ["data.attribute_weights={Young: 2}", "evaluate.calibrate=true", *TINY[2:], "evaluate.report=full"]
    ended = inside("train", "data=celeba", *keys, f"hydra.run.dir={folder / 'run'}", cwd=folder)
    assert ended.code == 0, ended.err
    return folder / "run"


def test_a_run_on_attributes_leaves_its_files(run):
    there = {path.name for path in run.iterdir()}
    kinds = ("attributes_{}.csv", "slices_{}.csv", "gallery_{}.png")
    assert {"report.html", *(kind.format(split) for kind in kinds for split in ("val", "test"))} <= there
    assert not [name for name in there if name.startswith("confusion")]
    found = json.loads((run / "test_metrics.json").read_text())
    each = pd.read_csv(run / "attributes_test.csv")
    assert found["accuracy"] == pytest.approx(each["accuracy"].mean())
    frame = pd.read_csv(run / "predictions_test.csv")
    assert {"path", "predicted", "true_Male", "probability_Male"} <= set(frame)
    assert found["accuracy_Male"] == pytest.approx(((frame["probability_Male"] > 0.5) == frame["true_Male"]).mean())
    assert "temperature" in found and {"Male", "Smiling"} <= set(pd.read_csv(run / "slices_test.csv")["column"])


def test_evaluation_and_comparison_give_the_same_again(run, tmp_path):
    best = run / "checkpoints" / "best.ckpt"
    ended = inside("evaluate", f"ckpt={best}", f"compare={best}", f"hydra.run.dir={tmp_path / 'again'}", cwd=tmp_path)
    assert ended.code == 0, ended.err
    again, before = (json.loads((folder / "test_metrics.json").read_text()) for folder in (tmp_path / "again", run))
    assert set(again) == set(before)
    assert again["accuracy"] == before["accuracy"] and again["ece"] == pytest.approx(before["ece"], abs=1e-6)
    assert again["log_loss"] == pytest.approx(before["log_loss"], abs=1e-6)
    pair = json.loads((tmp_path / "again" / "comparison.json").read_text())
    assert pair["difference"] == 0 and pair["wins"] == pair["losses"] == 0


def test_prediction_names_the_attributes_that_are_there(run, tmp_path):
    root = run.parent / "celeba" / "img_align_celeba"
    arguments = (f"ckpt={run / 'checkpoints' / 'best.ckpt'}", f"input={root}", f"hydra.run.dir={tmp_path / 'told'}")
    assert inside("predict", *arguments, cwd=tmp_path).code == 0
    frame = pd.read_csv(tmp_path / "told" / "predictions.csv", keep_default_na=False)
    names = ("Eyeglasses", "Male", "No_Beard", "Smiling", "Young")
    said = [", ".join(n for n in names if row[f"probability_{n}"] > 0.5) for _, row in frame.iterrows()]
    assert frame["predicted"].tolist() == said and len(frame) == 90


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["data.attributes=[Male]", "data.balance=sampler"], "data.balance=sampler draws classes"),
        (["data.attribute_weights={Male: 2}"], "data.attribute_weights needs data.attributes"),
        (["data.attributes=[Male]", "data.attribute_weights={Mal: 2}"], "data.attribute_weights.Mal"),
        (["data.attributes=[Male]", "evaluate.recall=0.9"], "evaluate.recall needs two classes; there are attributes"),
        (["data.attributes=[Moustache]"], "data.attributes: Moustache not in the sample faces"),
        (["data.attributes=[Male,Male]"], "a list of names, each once"),
        (["data.attributes=[]"], "a list of names, each once"),
        (["data.attributes=3"], "a list of names, each once"),
        (["data.attributes=[Male,Young]", "data.classes=[a,b]"], "with data.attributes leave it out"),
    ],
)
def test_wishes_that_attributes_cannot_be_given_are_refused(keys, message, tmp_path):
    ended = inside("train", *TINY, *keys, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert ended.code == 1 and message in ended.err and "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_a_model_of_attributes_is_not_judged_on_classes(run, tmp_path):
    ended = inside("evaluate", f"ckpt={run / 'checkpoints' / 'best.ckpt'}", "data=sample", "data.n=60", cwd=tmp_path)
    assert ended.code == 1 and "Give 'data.attributes=[Eyeglasses,Male,No_Beard,Smiling,Young]'" in ended.err
