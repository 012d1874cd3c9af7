"""What `ckpt=…` on a command line adds to it, and is refused for before anything is read from it."""

import sys

import pytest

from faceattr.commands.config_from_checkpoint import resumed_overrides, stored_config
from faceattr.errors import FaceattrError


@pytest.mark.parametrize(
    ("name", "message"), [("", "Give a checkpoint in it"), ("absent.ckpt", "there is no such file")]
)
def test_stored_config_refuses_what_is_no_file_before_torch_is_imported(tmp_path, monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "faceattr.training.checkpoint_format", None)
    with pytest.raises(FaceattrError, match=message):
        stored_config(str(tmp_path / name))


@pytest.mark.parametrize("command", ["train", "preview", "leaks"])
def test_resumed_overrides_name_the_folder_of_the_run_for_train_only(command):
    stored = {"seed": 1, "loss": "ce", "name": "a"}
    added = resumed_overrides(command, "/run/checkpoints/last.ckpt", stored, {})
    assert added["seed"] == "1" and (added.get("hydra.run.dir") == "'/run'") == (command == "train")
    assert "hydra.run.dir" not in resumed_overrides(command, "/run/last.ckpt", stored, {})
