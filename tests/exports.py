"""Exported folders: of models that were never trained, and changed as a stranger may change them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import untrained

import faceattr
from faceattr.errors import FaceattrError
from faceattr.training import checkpoint_format
from faceattr.training.exported_folder import CONFIG, ONNX, WEIGHTS, describe_export, write_config
from faceattr.training.onnx_export import write_onnx
from faceattr.training.safetensors_model import write_weights


def write_export(folder: Path, *overrides: str, **given: Any) -> tuple[Path, Path]:
    """The checkpoint of a network with random weights and a temperature, and its export."""
    ckpt, out = untrained(folder / "best.ckpt", *overrides, **given), folder / "out"
    checkpoint_format.add_to_description(ckpt, temperature=1.3)
    model, description = checkpoint_format.load(ckpt)
    out.mkdir()
    metadata = describe_export(model, description, "float32")
    write_onnx(model, out / ONNX, {"faceattr": metadata})
    write_config(out, metadata, write_weights(model, out / WEIGHTS, half=False), (ONNX, WEIGHTS))
    return ckpt, out


def noise(count: int, height: int, width: int) -> np.ndarray:
    """Images, uint8 [count, height, width, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def copied(folder: Path, to: Path) -> Path:
    """A copy of an exported folder, to be changed."""
    return Path(shutil.copytree(folder, to / "x"))


def signed(folder: Path, content: bytes) -> None:
    """`content` as model.onnx, with its own size and checksum in config.json: what a stranger writes."""
    (folder / ONNX).write_bytes(content)
    ours = json.loads((folder / CONFIG).read_text())["faceattr"]
    write_config(folder, ours, {}, (ONNX,))


def assert_refused(folder: Path, match: str | None = None) -> None:
    """`load` of `folder` gives one line, which names it."""
    with pytest.raises(FaceattrError, match=match) as refusal:
        faceattr.load(folder)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value) and len(str(refusal.value)) < 700
