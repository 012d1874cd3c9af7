"""The path in `ckpt=…`: what is absent or a folder is refused, with what there is instead."""

import re

import pytest

from faceattr.config.checkpoint_path import checkpoint_file, existing_path
from faceattr.errors import FaceattrError


def test_existing_path_names_what_is_near(tmp_path):
    (tmp_path / "best.ckpt").touch()
    assert existing_path(tmp_path) == tmp_path and existing_path(str(tmp_path / "best.ckpt")) == tmp_path / "best.ckpt"
    with pytest.raises(FaceattrError, match=r"bset\.ckpt: there is no such file\. Did you mean .*best\.ckpt\?"):
        existing_path(tmp_path / "bset.ckpt")


def test_existing_path_resolves_the_home_directory(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):  # the second is of Windows
        monkeypatch.setenv(name, str(tmp_path))
    assert existing_path("~") == tmp_path


@pytest.mark.parametrize("inside", ["best.ckpt", "checkpoints/best.ckpt"])
def test_checkpoint_file_names_the_checkpoint_in_a_folder(tmp_path, inside):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / inside).touch()
    assert checkpoint_file(tmp_path / inside) == tmp_path / inside
    with pytest.raises(
        FaceattrError, match=f"this is a folder. Give a checkpoint in it: {re.escape(str(tmp_path / inside))}"
    ):
        checkpoint_file(tmp_path)
    last = (tmp_path / inside).with_name("last.ckpt")
    last.touch()
    with pytest.raises(FaceattrError, match=f"; to train on: {re.escape(str(last))}$"):
        checkpoint_file(tmp_path)
