"""A checkpoint describes itself: reading what it says, and writing it so that none is lost."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from faceattr.config.command_line import typed
from faceattr.errors import FaceattrError

FORMAT = 1
"""Rises when a checkpoint of an older faceattr could no longer be read right."""

KEY = "faceattr"
"""Where the description lies in a Lightning checkpoint: format, version, config (the input spec in its `model`), classes,
ordinal, multilabel, fingerprint and weights (where they came from); plain containers only, so that loading needs no code
(`weights_only=True`)."""


def read(path: str | Path) -> dict[str, Any]:
    """The whole checkpoint, tensors memory-mapped; anything but a checkpoint of ours is refused in one line."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FaceattrError(f"ckpt={path}: there is no such file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:
            raise FaceattrError(f"ckpt={path}: truncated, or not a PyTorch checkpoint.") from error
    described = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(described, dict) or "format" not in described:
        raise FaceattrError(
            f"ckpt={path}: not a faceattr checkpoint. "
            f"To start from its weights instead: {typed('train', f'model.weights={path}')}"
        )
    if described["format"] != FORMAT:
        raise FaceattrError(
            f"ckpt={path}: format {described['format']}, written by faceattr {described.get('version', '?')}; "
            f"this version reads format {FORMAT}. Use that version, or train again."
        )
    return content


def read_description(path: str | Path) -> dict[str, Any]:
    """What the checkpoint says of itself."""
    return read(path)[KEY]


def describe_further(path: str | Path, **more: Any) -> None:
    """Add to what the checkpoint says of itself; the file is written anew beside itself and renamed."""
    content = read(path)
    content[KEY] |= more
    AtomicCheckpointIO().save_checkpoint(content, path)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and then renames: where the disk fills up, the previous checkpoint survives."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(target)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
            kept = f"The previous {target.name} is whole." if target.exists() else "There was none before."
            raise FaceattrError(f"Cannot write {target}: {_reason(error)}. {kept}") from error
        finally:
            part.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError):
            return chain.strerror or str(chain)
        chain = chain.__cause__ or chain.__context__
    return str(error).splitlines()[0]
