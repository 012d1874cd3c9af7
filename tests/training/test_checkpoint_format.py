"""Checkpoints: none is lost while another is written, and what is not one of ours gets one clear line."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from checkpoints import untrained

from faceattr.config.schema import Faces
from faceattr.data.faces.detector_file import SHA256
from faceattr.errors import FaceattrError
from faceattr.training import checkpoint_format
from faceattr.training.checkpoint_format import AtomicCheckpointIO, read, read_description, upgrade

DESCRIBED = {
    "format": checkpoint_format.FORMAT,
    "version": "1.0",
    "config": {"name": "x", "loss": "bce", "seed": 0}
    | {key: {} for key in ("data", "model", "finetune", "augment", "optim", "trainer")},
    "classes": ["woman", "man"],
    "fingerprint": "",
    "weights": "",
    "pretrained_stages": ["block1"],
}


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses further bytes, as it does on a full disk."""
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(size: int = 10) -> dict[str, object]:
    return {"state_dict": {"weight": torch.arange(size)}, "epoch": 0, checkpoint_format.KEY: DESCRIBED}


def save(path: Path, size: int = 10) -> None:
    AtomicCheckpointIO().save_checkpoint(content(size), path)


def test_read_gives_what_was_saved(tmp_path):
    save(tmp_path / "new" / "last.ckpt")
    found = read(tmp_path / "new" / "last.ckpt")
    assert torch.equal(found["state_dict"]["weight"], torch.arange(10))
    assert read_description(tmp_path / "new" / "last.ckpt") == DESCRIBED
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]


def test_read_takes_a_tilde_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "last.ckpt")
    assert read_description("~/last.ckpt") == DESCRIBED


def test_save_checkpoint_that_fails_leaves_the_previous_one_and_no_part(tmp_path):
    path = tmp_path / "last.ckpt"
    save(path)
    before = path.read_bytes()
    message = r"Cannot write .*last.ckpt: File too large. The previous last.ckpt is whole."
    with files_no_larger_than(100_000), pytest.raises(FaceattrError, match=message):
        save(path, size=1_000_000)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_checkpoint_that_fails_the_first_time_leaves_nothing(tmp_path):
    with files_no_larger_than(1000), pytest.raises(FaceattrError, match="There was none before"):
        save(tmp_path / "best.ckpt", size=1_000_000)
    assert list(tmp_path.iterdir()) == []


class Stopped:
    """What an interrupt in the middle of pickling looks like."""

    def __reduce__(self) -> object:
        raise KeyboardInterrupt


def test_save_checkpoint_that_is_interrupted_leaves_the_previous_one_and_no_part(tmp_path):
    path = tmp_path / "last.ckpt"
    save(path)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({**content(), "stop": Stopped()}, path)
    assert read_description(path) == DESCRIBED
    assert list(tmp_path.iterdir()) == [path]


def test_save_checkpoint_is_atomic_for_a_reader(tmp_path):
    """The new file takes the old one's name; who has the old one open keeps reading it."""
    path = tmp_path / "last.ckpt"
    save(path)
    old = read(path)["state_dict"]["weight"]  # memory-mapped
    inode = path.stat().st_ino
    save(path, size=20)
    assert path.stat().st_ino != inode
    assert torch.equal(old, torch.arange(10))
    assert len(read(path)["state_dict"]["weight"]) == 20


def write(path: Path, what: str) -> None:
    if what == "empty":
        path.touch()
    elif what == "text":
        path.write_text("epoch,val_loss\n0,0.7\n")
    elif what == "document":
        path.write_bytes(b"%PDF-1.7")
    elif what == "folder":
        path.mkdir()
    elif what == "truncated":
        save(path)
        path.write_bytes(path.read_bytes()[:-500])
    elif what == "code":
        torch.save({checkpoint_format.KEY: DESCRIBED, "hook": Path("x")}, path)  # needs more than plain containers
    elif what == "weights":
        torch.save({"features.0.weight": torch.zeros(2)}, path)
    elif what == "tensor":
        torch.save(torch.zeros(3), path)
    elif what == "foreign":
        torch.save({"state_dict": {}, checkpoint_format.KEY: "something else"}, path)
    elif what == "older":
        torch.save(content() | {checkpoint_format.KEY: {"format": 0, "version": "0.0.1"}}, path)


def test_read_names_what_there_is_instead(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    save(best := tmp_path / "run" / "checkpoints" / "best.ckpt")
    for given, near in (
        (best.with_name("Best.ckp"), f"Did you mean {best}?"),
        (
            tmp_path / "rum" / "checkpoints" / "best.ckpt",
            f"{tmp_path / 'rum'} does not exist. Did you mean {tmp_path / 'run'}?",
        ),
        (tmp_path / "run" / "zzz", f"{tmp_path / 'run'} holds checkpoints."),
        (best.parent, f"Give a checkpoint in it: {best}"),
    ):
        with pytest.raises(FaceattrError, match=re.escape(near)):
            read(given)
    write(other := best.with_name("notes.txt"), "text")
    with pytest.raises(FaceattrError, match=re.escape(f"Give a checkpoint of a run: {best}")):
        read(other)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "there is no such file"),
        ("folder", r"this is a folder. Give a checkpoint in it: .*best\.ckpt"),
        ("empty", "this file is empty. Give a checkpoint of a run: such as RUN/checkpoints/best.ckpt"),
        ("document", "this file is a PDF document. Give a checkpoint of a run: "),
        ("text", "truncated, or not a PyTorch checkpoint"),
        ("truncated", "truncated, or not a PyTorch checkpoint"),
        ("code", "truncated, or not a PyTorch checkpoint"),
        ("weights", "not a faceattr checkpoint. To start from its weights instead: faceattr train model.weights="),
        ("tensor", "not a faceattr checkpoint"),
        ("foreign", "not a faceattr checkpoint"),
        ("older", r"format 0, written by faceattr 0.0.1; this version reads formats 1 to \d+"),
    ],
)
def test_read_refuses_in_one_line_what_is_no_checkpoint(tmp_path, what, message):
    path = tmp_path / "x.ckpt"
    write(path, what)
    with pytest.raises(FaceattrError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"ckpt={path}: ")
    assert "\n" not in str(caught.value)


def test_read_finds_a_flipped_bit(tmp_path):
    """In a tensor, where torch.load sees nothing."""
    path = tmp_path / "last.ckpt"
    save(path, size=5000)
    whole = path.read_bytes()
    place = whole.index(torch.arange(2000, 2010).numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert torch.load(path, weights_only=True)["state_dict"]["weight"][2000] == 2001
    with pytest.raises(FaceattrError, match=r"last\.ckpt: damaged: .*data/0 is not as it was written"):
        read(path)


def test_read_unpacks_no_compressed_checkpoint(tmp_path):
    save(tmp_path / "whole.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "whole.ckpt") as whole,
        zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name) + bytes(10_000_000))
    with pytest.raises(FaceattrError, match=r"x\.ckpt: damaged"):
        read(tmp_path / "x.ckpt")


def test_read_takes_the_former_file_format_of_torch(tmp_path):
    torch.save(content(), tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    assert read_description(tmp_path / "x.ckpt") == DESCRIBED


@pytest.mark.parametrize(
    ("faces", "detector", "message"),
    [
        ({"mode": "align"}, "0123abcd", "found by a detector with SHA-256 0123abcd; this version has 8f2383e4"),
        ({"mode": "align"}, "", "found by a detector with SHA-256 unknown"),
        ({"mode": "sideways"}, "", r"faces\.mode=sideways: choose one of none, square, align"),
        ({"margin": -3}, "", r"faces\.margin=-3"),
        ({"angle": 3}, "", r"faces\.angle: no such key"),
    ],
)
def test_load_refuses_faces_that_this_version_cannot_crop(tmp_path, faces, detector, message):
    described = DESCRIBED | {"config": DESCRIBED["config"] | {"faces": faces}, "detector": detector}
    with pytest.raises(FaceattrError, match=message) as caught:
        checkpoint_format.input_faces(described, "ckpt=x")
    assert str(caught.value).startswith("ckpt=x: ")


def test_input_faces_of_older_checkpoints_are_whole_images():
    older = upgrade({"format": 2, "config": {}, "classes": ["woman", "man"]})
    assert checkpoint_format.input_faces(older, "ckpt=x") == Faces()
    described = {"config": {"faces": {"mode": "square", "margin": 0.1}}, "detector": SHA256}
    assert checkpoint_format.input_faces(described, "ckpt=x") == Faces(mode="square", margin=0.1)


def test_upgrade_maps_the_targets_of_format_1():
    config = {
        "seed": 3,
        "logger": None,
        "data": {"_target_": "faceattr.sources.csv.load", "root": "x"},
        "model": {"_target_": "faceattr.networks.cnn", "head": {"hidden": [2]}},
        "optim": {"_target_": "torch.optim.AdamW", "lr": 0.1},
    }
    old = {"format": 1, "version": "0.1.0", "classes": ["woman", "man"], "config": config}
    upgraded = upgrade(old)
    assert upgraded["format"] == checkpoint_format.FORMAT
    assert upgraded["config"]["data"] == {"_target_": "faceattr.data.sources.csv.load", "root": "x"}
    assert upgraded["config"]["model"] == {"_target_": "faceattr.models.conv_stacks.cnn", "head": {"hidden": [2]}}
    assert all(upgraded["config"][key] == config[key] for key in ("seed", "logger", "optim"))
    assert old["format"] == 1 and config["model"]["_target_"] == "faceattr.networks.cnn"
    timm = {**old, "config": {"model": {"_target_": "faceattr.timm_networks.from_timm"}}}
    assert upgrade(timm)["config"]["model"]["_target_"] == "faceattr.models.timm_backbone.from_timm"
    assert upgrade(upgraded) == upgraded


def test_upgrade_keeps_the_one_learning_rate_of_format_3():
    """Its stages had no rate of their own: a run that goes on trains as it began."""
    old = {**DESCRIBED, "format": 3, "config": {**DESCRIBED["config"], "finetune": {"lr_decay": 0.5}}}
    upgraded = upgrade(old)
    assert upgraded["config"]["finetune"] == {"lr_decay": 0.5, "pretrained_lr": 1.0}
    assert upgraded["pretrained_stages"] == []


def test_epochs_done_refuses_a_checkpoint_that_does_not_say_it(tmp_path):
    """Not one that Lightning wrote: its loops are missing."""
    save(tmp_path / "last.ckpt")
    with pytest.raises(FaceattrError, match=r"last\.ckpt: it does not say how far its run was"):
        checkpoint_format.epochs_done(tmp_path / "last.ckpt")


REPLACES = """
from torch import nn
from faceattr.models.conv_stacks import cnn

def build(*, image_size, num_logits, head, **others):
    network = cnn(image_size=image_size, num_logits=num_logits, head=head, **others)
    network.features[0].weight = nn.Parameter(network.features[0].weight.detach().clone())
    return network
"""


def test_load_takes_a_network_that_replaces_a_parameter_while_it_is_built(tmp_path, monkeypatch):
    """It registers more parameters than it has, as timm's deit_tiny_distilled_patch16_224 and caformer_s18 do."""
    (tmp_path / "replaces.py").write_text(REPLACES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FACEATTR_ALLOW", "replaces")
    saved = torch.load(untrained(tmp_path / "x.ckpt"), weights_only=True)
    saved[checkpoint_format.KEY]["config"]["model"]["_target_"] = "replaces.build"
    torch.save(saved, tmp_path / "x.ckpt")
    model, _ = checkpoint_format.load(tmp_path / "x.ckpt")
    assert torch.equal(model.network.features[0].weight, saved["state_dict"]["network.features.0.weight"])
