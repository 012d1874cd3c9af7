"""Every kind of network and task as ONNX, with the answers of its checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from checkpoints import ON_CPU, untrained
from exports import noise, write_export
from programs import ROOT

import faceattr
from faceattr.errors import FaceattrError
from faceattr.training import checkpoint_format, onnx_export
from faceattr.training.exported_folder import CONFIG
from faceattr.training.inference_onnx import OnnxBackend

THREE: dict[str, Any] = {"classes": ("young", "middle", "old")}
HEAD = ("model.head.hidden=[8]", "model.head.dropout=0")
NARROW = "model.blocks=[[4,4],[8,8],[8,8,8],[8,8,8],[8,8,8]]"
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "cnn": (("model.image_size=[32,36]", "+model.norm_over=height"), {}),
    "cnn7": (("model.image_size=[94,98]", "loss=one_vs_rest"), THREE),
    "cnn_age": (("model.image_size=[94,98]", "loss=corn"), THREE | {"ordinal": True}),
    "cnn_age_bn": (("model.image_size=[94,98]", "loss=ce"), THREE | {"ordinal": True}),
    "alexnet": (("model.image_size=[31,35]", *HEAD), THREE | {"multilabel": True}),
    "alexnet_imagenet": (("model.image_size=[63,67]", *HEAD), {}),
    "vgg16": (("model.image_size=[32,36]", "model.scaling=caffe", NARROW), {}),
    "vgg16_half": (("model.image_size=[32,36]", NARROW), THREE),
    "timm": (("model.image_size=[32,32]", "model.name=test_resnet", "model.scaling=imagenet"), {}),
    "timm vit": (("model.image_size=[32,48]", "model.name=test_vit", "model.scaling=[0.5,0.5]"), {}),
}
"""Each model of conf/, as small as it may be, with one of the kinds of tasks and losses."""
QUICK = ("cnn_age",)
"""Convolutions with ordered classes: an export takes seconds."""


def test_every_model_has_a_case():
    assert {file.stem for file in (ROOT / "conf" / "model").glob("[!_]*.yaml")} <= set(CASES)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_write_onnx_answers_as_the_checkpoint_at_every_batch_size(tmp_path, case):
    overrides, task = CASES[case]
    ckpt, out = write_export(tmp_path, f"model={case.partition(' ')[0]}", *overrides, base=ON_CPU, **task)
    ours, theirs = faceattr.load(ckpt), faceattr.load(out)
    assert theirs.classes == ours.classes and theirs.input_size == ours.input_size
    assert theirs.metadata == ours.metadata | {"explains": False}
    images = noise(40, *ours.input_size)
    expected = ours.predict_proba(images)
    assert theirs.predict_proba(images) == pytest.approx(expected, abs=1e-5)
    backend = OnnxBackend(out)
    for size in (1, 2, 37):
        assert backend.probabilities(images[:size]) == pytest.approx(expected[:size], abs=1e-5)
    if case.startswith("timm"):
        assert_timm_reads(out, images, expected)


def test_write_onnx_refuses_weights_that_no_onnx_file_holds(tmp_path, monkeypatch):
    model, _ = checkpoint_format.load(untrained(tmp_path / "x.ckpt"))
    monkeypatch.setattr(onnx_export, "MOST_ONNX_BYTES", 100)
    with pytest.raises(FaceattrError, match=r"^The weights take 0\.0 GB; an ONNX file has at most 0\.0\.$"):
        onnx_export.write_onnx(model, tmp_path / "x.onnx", {})
    assert not (tmp_path / "x.onnx").exists()


def test_write_onnx_says_in_one_line_why_a_network_cannot_be_exported(tmp_path, monkeypatch):
    """torch itself takes two seconds to find that out."""

    def refuse(*given: Any, **keys: Any) -> None:
        raise NotImplementedError("no such operation\nand much more of it")

    model, _ = checkpoint_format.load(untrained(tmp_path / "x.ckpt"))
    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(FaceattrError) as refused:
        onnx_export.write_onnx(model, tmp_path / "x.onnx", {})
    assert str(refused.value) == "torch.onnx cannot export this network: NotImplementedError: no such operation"
    assert not (tmp_path / "x.onnx").exists()


def test_halve_refuses_a_weight_beyond_fp16(tmp_path):
    values = np.full(256, 7e4, np.float32)
    graph = onnx.helper.make_graph([], "x", [], [], [onnx.numpy_helper.from_array(values, "wide")])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "x.onnx")
    with pytest.raises(FaceattrError, match=r"^export\.half=true: the weight wide is beyond what fp16 holds"):
        onnx_export.halve(tmp_path / "x.onnx", tmp_path / "half.onnx")
    assert not (tmp_path / "half.onnx").exists()


def assert_timm_reads(folder: Path, images: np.ndarray, expected: np.ndarray) -> None:
    """`timm.create_model` builds the network from the folder alone, with our answers."""
    import timm

    config = json.loads((folder / CONFIG).read_text())
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (np.array(config["pretrained_cfg"][name], np.float32) for name in ("mean", "std"))
    inputs = torch.from_numpy((images.astype(np.float32) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        positive = (network(inputs)[:, 0] / config["faceattr"]["temperature"]).sigmoid()
    assert positive.numpy() == pytest.approx(expected[:, 1], abs=1e-4)
