"""The command line: which commands there are, and folders of the user's own YAMLs."""

import gc
import os
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest
from programs import FIGURES, TINY, inside, quick

from faceattr.commands.error_message import error_message
from faceattr.commands.hydra_app import hydra_parser
from faceattr.commands.main import COMMANDS, add_own_options, main, overview, quick_imports

PACKAGE = '''
import numpy as np
import pandas as pd
from PIL import Image
from pathlib import Path
from torch import nn
from faceattr.models.staged_network import Network


def load(root, *, shades: int = 2) -> pd.DataFrame:
    """Grey images, dark and bright."""
    rows = []
    for number in range(40):
        label = ("dark", "bright")[number % 2]
        values = np.random.default_rng(number).integers(0, 120, (16, 16)) + 120 * (number % 2)
        file = Path(root) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(file)
        rows.append((file.name, label))
    table = pd.DataFrame(rows, columns=["path", "label"])
    table.attrs["classes"] = ["dark", "bright"]
    return table


def mean_colour(*, image_size: list, num_logits: int, head: dict, channels: int) -> Network:
    features = nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU())
    return Network(features, {"0": "block1"}, image_size, num_logits, head)
'''
DATA = """
defaults: [_base, _self_]
_target_: mypackage.load
shades: 2
"""
MODEL = """
defaults: [_base, _self_]
_target_: mypackage.mean_colour
image_size: [16, 16]
channels: 4
"""


def test_config_dir_adds_a_data_set_and_a_model_from_another_package(tmp_path):
    (tmp_path / "mypackage.py").write_text(PACKAGE)
    for group, text in (("data", DATA), ("model", MODEL)):
        (tmp_path / "myconf" / group).mkdir(parents=True)
        (tmp_path / "myconf" / group / "mine.yaml").write_text(text)
    mine = ("--config-dir", tmp_path / "myconf", "data=mine", f"data.root={tmp_path / 'faces'}", "model=mine")
    run = (*mine, *TINY[3:], "trainer.max_epochs=1", "hydra.run.dir=run")
    refused = quick("train", *run, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert refused.code == 1 and "FACEATTR_ALLOW" in refused.err, f"{refused}"
    assert not (tmp_path / "run").exists()
    ended = quick("train", *run, cwd=tmp_path, PYTHONPATH=str(tmp_path), FACEATTR_ALLOW="mypackage")
    assert ended.code == 0, ended.err
    again = (
        "ckpt=run/checkpoints/best.ckpt",
        "hydra.run.dir=again",
        FIGURES,
    )  # the checkpoint names both: no --config-dir
    ended = quick("evaluate", *again, cwd=tmp_path, PYTHONPATH=str(tmp_path), FACEATTR_ALLOW="mypackage")
    assert ended.code == 0, ended.err
    metrics = [(tmp_path / folder / "test_metrics.json").read_text() for folder in ("run", "again")]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    "wrong",
    [
        "trainer.max_epochs=0",
        "data.batch_size=0",
        "optim.lr=-1",
        "model.image_size=[64]",
        "evaluate.report=no",
        "data=csv",
        "quirks=corrected",
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_imported_for_the_command(tmp_path, monkeypatch, wrong):
    def imported(name):
        raise AssertionError(f"{name} is imported")

    monkeypatch.setattr(
        pkgutil, "resolve_name", imported
    )  # as `main.run` gets its commands, and `validate` the open groups
    ended = inside("train", wrong, cwd=tmp_path)
    assert ended.code == 1 and ended.err.startswith("Error: ") and wrong.split("=")[0].split(".")[0] in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint_is_refused_before_torch_is_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faceattr.training.checkpoint_format", None)
    ended = inside("evaluate", "ckpt=none.ckpt", cwd=tmp_path)
    assert ended.code == 1 and ended.err.startswith("Error: ckpt=none.ckpt: there is no such file.")


def test_overview_has_a_line_for_each_command():
    lines = [line.split(maxsplit=1) for line in overview().splitlines() if line.startswith("  ")]
    assert [name for name, _ in lines] == [*COMMANDS, "cache"]
    assert all(summary for _, summary in lines)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [(["--help"], 0, "evaluate"), (["-h"], 0, "evaluate"), ([], 1, "evaluate"), (["evalute"], None, "mean evaluate?")],
)
def test_main_without_a_command(monkeypatch, capsys, arguments, code, message):
    monkeypatch.setattr(sys, "argv", ["faceattr", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert message in capsys.readouterr().out + str(stop.value.code)
    assert code is None or stop.value.code == code


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--cfg", "job"], ["cache"]])
def test_main_ends_without_a_message_when_nobody_reads_its_output(tmp_path, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"FACEATTR_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "faceattr", *arguments]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_add_own_options_puts_them_before_those_of_the_user():
    for before, after in (["--config-dir=mine"], []), ([], ["--config-dir=mine"]), (["-cd", "mine"], []):
        arguments = add_own_options("preview", [*before, "data=sample", "data.n=200", *after])
        overrides = hydra_parser().parse_intermixed_args(arguments).overrides
        assert overrides[-2:] == ["data=sample", "data.n=200"], arguments


def test_error_message_names_a_missing_package_of_torch_only():
    missing = ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    assert "This command needs the package torch, which is not installed" in str(error_message(missing, "train", []))
    assert error_message(ModuleNotFoundError("No module named 'mine'", name="mine"), "train", []) is None


def test_quick_imports_pauses_the_garbage_collector_while_torch_is_imported(monkeypatch, request):
    request.addfinalizer(gc.unfreeze)
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with quick_imports():
        assert gc.isenabled(), "torch is here already"
    torch = sys.modules.pop("torch")
    with pytest.raises(ZeroDivisionError), quick_imports():
        sys.modules["torch"] = torch
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled() and gc.get_freeze_count()
