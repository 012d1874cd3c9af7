"""Which functions a `_target_` may name: a stranger's checkpoint runs no code."""

import os
from pathlib import Path

import pytest
import torch
from programs import inside, tiny_run

from faceattr.config.allowed_targets import target_function
from faceattr.errors import FaceattrError


@pytest.mark.parametrize(
    ("group", "target"),
    [
        *[
            ("data", f"faceattr.data.sources.{source}.load")
            for source in ("celeba", "csv", "folders", "imfdb", "sample")
        ],
        *[("model", f"faceattr.models.conv_stacks.{builder}") for builder in ("cnn", "alexnet", "alexnet_imagenet")],
        ("model", "faceattr.models.timm_backbone.from_timm"),
        ("optim", "torch.optim.AdamW"),
        ("logger", "pytorch_lightning.loggers.TensorBoardLogger"),
    ],
)
def test_target_function_finds_what_a_group_may_name(group, target):
    function = target_function({"_target_": target}, group)
    assert function.__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.check_call",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "torch.optim.lr_scheduler.math.floor",
        "torch.optim.optimizer.Optimizer",
        "torch.optim.lr_scheduler.LambdaLR",
        "torch.optimism.Evil",
        "faceattr.commands.train.shutil.rmtree",  # reached through a module of ours
        "faceattr.models.staged_network.torch.load",
        "faceattr.models.staged_network.Network",
        "faceattr.models.conv_stacks.Network",  # imported there, defined elsewhere
        "faceattr.models.conv_stacks._conv",
        "faceattr.models.timm_backbone.timm_backbone",
        "faceattr.data.sources.csv.io.open",
        "faceattr.data.sources.csv.read",  # a function of a source that is not its load
        "faceattr.data.sources.sample.write",
        "faceattr.data.sources.sample.main",
        "faceattr.data.sources.sample.shutil.rmtree",
        "faceattr.data.sources.imfdb.csv.load",
        "pytorch_lightning.loggers.csv_logs.os.makedirs",
        "pytorch_lightning.loggers.logger.Logger",
        "",
    ],
)
@pytest.mark.parametrize("group", ["data", "model", "optim", "logger"])
def test_target_function_refuses_every_other_name(group, target):
    with pytest.raises(FaceattrError, match=rf"^{group}\._target_=.* is not allowed") as caught:
        target_function({"_target_": target}, group)
    assert "FACEATTR_ALLOW" in str(caught.value)


@pytest.mark.parametrize("group", ["data", "model", "optim", "logger"])
def test_target_function_refuses_the_functions_of_another_group(group):
    own = {
        "data": "faceattr.data.sources.csv.load",
        "model": "faceattr.models.conv_stacks.cnn",
        "optim": "torch.optim.SGD",
        "logger": "pytorch_lightning.loggers.CSVLogger",
    }
    for other in set(own) - {group}:
        with pytest.raises(FaceattrError, match="is not allowed"):
            target_function({"_target_": own[other]}, group)


def test_target_function_names_a_missing_target():
    with pytest.raises(FaceattrError, match=r"^data: has no _target_"):
        target_function({}, "data")


def test_the_environment_allows_what_a_package_defines(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("import os\n\n\ndef load(root: str, speed: int = 1):\n    return root, speed\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "mine.load"}
    with pytest.raises(FaceattrError, match="FACEATTR_ALLOW"):
        target_function(node, "data")
    monkeypatch.setenv("FACEATTR_ALLOW", "other, mine")
    assert target_function(node, "data")("here") == ("here", 1)
    with pytest.raises(FaceattrError, match="is not allowed"):
        target_function({"_target_": "mine.os.system"}, "data")
    with pytest.raises(FaceattrError, match="cannot be imported"):
        target_function({"_target_": "mine.lod"}, "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("config") / "run", "trainer.max_epochs=1")


ATTACKS = [
    ("evaluate", "data", {"_target_": "os.system", "command": "touch MARK"}),
    ("evaluate", "data", {"_target_": "faceattr.data.sources.sample.shutil.copyfile", "src": "CKPT", "dst": "MARK"}),
    ("evaluate", "model", {"_target_": "pathlib.Path.touch", "self": "MARK"}),
    ("predict", "model", {"_target_": "subprocess.check_call", "args": ["touch", "MARK"]}),
    ("predict", "model", {"extra": {"_target_": "os.system", "command": "touch MARK"}}),
    ("train", "optim", {"_target_": "shutil.copyfile", "src": "CKPT", "dst": "MARK"}),
    ("train", "logger", {"_target_": "os.mkdir", "path": "MARK"}),
]


@pytest.mark.parametrize(("program", "group", "change"), ATTACKS)
def test_a_strangers_checkpoint_runs_no_code(trained, tmp_path, program, group, change):
    ckpt, mark = tmp_path / "stranger" / "checkpoints" / "last.ckpt", tmp_path / "mark"
    ckpt.parent.mkdir(parents=True)
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    text = {"MARK": str(mark), "CKPT": str(ckpt)}
    filled = {
        key: [text.get(v, v) for v in value] if isinstance(value, list) else value for key, value in change.items()
    }
    filled = {
        key: value.replace("MARK", str(mark)).replace("CKPT", str(ckpt)) if isinstance(value, str) else value
        for key, value in filled.items()
    }
    content["faceattr"]["config"][group] |= filled
    torch.save(content, ckpt)
    photo = next(Path(os.environ["FACEATTR_CACHE"]).rglob("*.jpg"))
    more = {"predict": [f"input={photo}"], "train": ["trainer.max_epochs=2"], "evaluate": []}[program]
    ended = inside(program, f"ckpt={ckpt}", *more, cwd=tmp_path)
    assert ended.code == 1 and not mark.exists()
    assert f"{group}." in ended.err and ended.err.count("\n") <= 3 and "Traceback" not in ended.err, ended.err
