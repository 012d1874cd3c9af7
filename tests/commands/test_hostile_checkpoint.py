"""A checkpoint of a stranger: nothing in it is run, nothing is written outside the run, every refusal is one line."""

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import inside, tiny_run

from faceattr.config.stored_config import with_own_paths
from faceattr.errors import FaceattrError
from faceattr.training import checkpoint_format
from faceattr.training.checkpoint_format import load

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tiny_run(tmp_path_factory.mktemp("security") / "run", "trainer.max_epochs=1", "model.blocks=[[4],[4]]")
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def group(name: str, **keys: Any) -> Change:
    def change(saved: dict[str, Any]) -> None:
        saved["faceattr"]["config"][name] |= keys

    return change


def top(**keys: Any) -> Change:
    return lambda saved: saved["faceattr"]["config"].update(keys)


def field(**keys: Any) -> Change:
    return lambda saved: saved["faceattr"].update(keys)


CALLBACK = {"callbacks": {"x": {"_target_": "pathlib.Path.touch", "self": "MARK"}}}
ATTACKS: dict[str, Change] = {
    "a defaults list": group("trainer", defaults=[{"/optim@_global_": "checkpoint"}, "_self_"]),
    "a defaults list in data": group("data", defaults=[{"override /hydra/launcher": "joblib"}]),
    "a group hydra": group("optim", hydra=CALLBACK),
    "a top-level hydra": top(hydra=CALLBACK),
    "a target in a closed group": group("trainer", _target_="os.system", command="touch MARK"),
    "a target below a group": group("model", head={"_target_": "os.system", "command": "touch MARK"}),
    "a target that writes": group("data", _target_="faceattr.data.sources.sample.write", layout="csv", out="MARK"),
    "a target of pandas": group("data", _target_="pandas.read_pickle", filepath_or_buffer="MARK"),
    "a target through a module of ours": group("model", _target_="faceattr.models.staged_network.torch.load", f="MARK"),
    "a target that is no text": group("model", _target_=["os.system"]),
    "a partial": group("optim", _partial_=True),
    "recursion off": group("data", _recursive_=False),
    "positional arguments": group("data", _args_=["MARK"]),
    "an environment variable in name": top(name="${oc.env:HOME}"),
    "an environment variable in a group": group("data", root="${oc.env:HOME}"),
    "an interpolation in a key": group("data", **{"${oc.env:HOME}": 1}),
    "an interpolation in a list": group("data", classes=["${oc.env:HOME}", "b"]),
    "a name that leads elsewhere": top(name="../../.."),
    "a name that is absolute": top(name="/MARK"),
    "a name of two lines": top(name="a\nb"),
    "a name for Windows": top(name="a\\..\\b"),
    "a logger's name that leads elsewhere": top(
        logger={"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "save_dir": "x", "name": "../../MARK"}
    ),
    "a logger that is none": top(logger={"_target_": "os.mkdir", "path": "MARK"}),
    "a group that is text": top(model="cnn"),
    "a group that is a list": top(trainer=[1]),
    "a config that is none": field(config=None),
    "a deep config": top(data={"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": 1}}}}}}}}}}),
    "a large config": top(quirks=list(range(200_000))),
    "a tensor in the config": top(seed=torch.zeros(1)),
    "a number that is none": group("optim", lr=math.nan),
    "no classes": field(classes=[]),
    "classes that are numbers": field(classes=[0, 1]),
    "a class twice": field(classes=["a", "a"]),
    "a class of two lines": field(classes=["a\nb", "c"]),
    "a class that clears the screen": field(classes=["\x1b[2J", "c"]),
    "a class of 100,000 characters": field(classes=["x" * 100_000, "c"]),
    "a temperature near 0": field(temperature=1e-300),
    "a temperature that is none": field(temperature=math.nan),
    "a temperature below 0": field(temperature=-1.0),
    "a temperature that is text": field(temperature="1"),
    "no fingerprint": field(fingerprint=None),
    "no loss": top(loss=None),
    "no name": top(name=None),
    "no trainer": top(trainer=None),
    "no optim": top(optim=None),
    "a seed that is text": top(seed="0"),
    "no weights": lambda saved: saved.pop("state_dict"),
    "an epoch that is text": lambda saved: saved.update(epoch="3"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_read_refuses_a_strangers_checkpoint_in_one_line(content, tmp_path, attack):
    hostile = copy.deepcopy(content)
    ATTACKS[attack](hostile)
    torch.save(hostile, tmp_path / "x.ckpt")
    with pytest.raises(FaceattrError, match=r"x\.ckpt") as refusal:
        checkpoint_format.read(tmp_path / "x.ckpt")
    assert len(str(refusal.value)) < 700 and str(refusal.value).count("\n") <= 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_load_refuses_weights_that_are_not_finite(content, tmp_path, value):
    broken = copy.deepcopy(content)
    name = next(iter(broken["state_dict"]))
    broken["state_dict"][name][...] = value
    torch.save(broken, tmp_path / "x.ckpt")
    with pytest.raises(FaceattrError, match="not finite"):
        load(str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize(
    "change",
    [lambda t: t.to(torch.int8), lambda t: t.to(torch.complex64), lambda t: t.to_sparse(), lambda t: t.to("meta")],
)
def test_load_refuses_weights_of_another_kind(content, tmp_path, change):
    state = {name: change(tensor) for name, tensor in content["state_dict"].items()}
    torch.save(content | {"state_dict": state}, tmp_path / "x.ckpt")
    with pytest.raises(FaceattrError, match=r"ckpt=.*its weights do not fit its own config"):
        checkpoint_format.load(tmp_path / "x.ckpt")


def test_load_refuses_a_network_that_is_larger_than_its_weights(content, tmp_path):
    large = copy.deepcopy(content)
    large["faceattr"]["config"]["model"] |= {"blocks": [[4096, 4096, 4096]], "max_parameters": 10**12}
    torch.save(large, tmp_path / "x.ckpt")
    with pytest.raises(FaceattrError, match=r"x\.ckpt: its weights do not fit its own config"):
        load(str(tmp_path / "x.ckpt"))


END_TO_END = ["a defaults list", "a group hydra", "a target that writes", "a name that leads elsewhere"]


@pytest.mark.parametrize("attack", END_TO_END)
@pytest.mark.parametrize("program", ["train", "evaluate", "predict", "compare", "export", "serve"])
def test_commands_refuse_a_strangers_checkpoint_before_anything_is_written(content, tmp_path, program, attack):
    hostile, mark, good = copy.deepcopy(content), tmp_path / "mark", tmp_path / "good.ckpt"
    ATTACKS[attack](hostile)
    folder = tmp_path / "stranger" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(hostile, folder / "last.ckpt")
    torch.save(content, good)
    before = set(tmp_path.rglob("*"))
    ckpt = [f"ckpt={folder / 'last.ckpt'}"]
    more = {
        "train": [*ckpt, "trainer.max_epochs=2"],
        "evaluate": ckpt,
        "predict": [*ckpt, "input=."],
        "export": ckpt,
        "serve": ckpt,
        "compare": [f"ckpt={good}", f"compare={folder / 'last.ckpt'}"],
    }[program]
    ended = inside("evaluate" if program == "compare" else program, *more, cwd=tmp_path)
    assert ended.code == 1 and ended.err.startswith("Error: ") and "Traceback" not in ended.err, ended.err
    written = set(tmp_path.rglob("*")) - before
    assert not mark.exists() and all("outputs" in path.parts for path in written)


def test_with_own_paths_names_no_server():
    stored = {"_target_": "pytorch_lightning.loggers.MLFlowLogger", "tracking_uri": "https://example.org"}
    assert "MLFLOW_TRACKING_URI" in with_own_paths({"logger": stored})["logger"]["tracking_uri"]


def test_with_own_paths_downloads_nothing():
    data = {"_target_": "faceattr.data.sources.celeba.load", "root": "/any", "download": True}
    assert with_own_paths({"data": data})["data"] == data | {"download": False}
    drawn = {"_target_": "faceattr.data.sources.sample.load", "root": "/any", "download": True}
    own = with_own_paths({"data": drawn})["data"]
    assert own["root"] != "/any" and not own["download"], "one replacement must not undo the other"


def test_a_checkpoint_decides_no_path_that_is_written_to(content, tmp_path):
    """The sample's faces and a logger's files go where conf/ says."""
    moved = copy.deepcopy(content)
    moved["faceattr"]["config"]["data"]["root"] = str(tmp_path / "elsewhere")
    torch.save(moved, tmp_path / "x.ckpt")
    ended = inside("evaluate", f"ckpt={tmp_path / 'x.ckpt'}", "split=val", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert not (tmp_path / "elsewhere").exists() and Path(os.environ["FACEATTR_CACHE"], "sample").exists()
