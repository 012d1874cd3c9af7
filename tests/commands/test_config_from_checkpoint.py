"""What `ckpt=…` is refused for before anything is read from it."""

import sys

import pytest

from faceattr.commands.config_from_checkpoint import stored_config
from faceattr.errors import FaceattrError


@pytest.mark.parametrize(
    ("name", "message"), [("", "Give a checkpoint in it"), ("absent.ckpt", "there is no such file")]
)
def test_stored_config_refuses_what_is_no_file_before_torch_is_imported(tmp_path, monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "faceattr.training.checkpoint_format", None)
    with pytest.raises(FaceattrError, match=message):
        stored_config(str(tmp_path / name))
