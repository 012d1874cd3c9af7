"""The path in `ckpt=…`, checked without torch, whose import takes seconds."""

from pathlib import Path

from faceattr.errors import FaceattrError
from faceattr.message_text import instead_of


def existing_path(path: str | Path) -> Path:
    """The file or folder that `ckpt=path` names. Raises FaceattrError: there is none."""
    path = Path(path).expanduser()
    if not path.is_file() and not path.is_dir():
        raise FaceattrError(f"ckpt={path}: there is no such file.{instead_of(path)}")
    return path


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint that `ckpt=path` names. Raises FaceattrError: there is none, or a folder."""
    path = existing_path(path)
    if path.is_dir():
        present = [file for file in (path / "best.ckpt", path / "checkpoints" / "best.ckpt") if file.is_file()]
        file = next(iter(present), path / "checkpoints" / "best.ckpt")
        last = file.with_name("last.ckpt")
        more = f"; to train on: {last}" if last.is_file() else ""
        raise FaceattrError(f"ckpt={path}: this is a folder. Give a checkpoint in it: {file}{more}")
    return path
