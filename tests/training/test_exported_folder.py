"""Every kind of network and task as ONNX; an exported folder of a stranger; and one that answers without torch."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from checkpoints import ON_CPU, untrained
from PIL import Image
from programs import ROOT

import faceattr
from faceattr.errors import FaceattrError
from faceattr.training import checkpoint_format
from faceattr.training.exported_folder import CONFIG, ONNX, WEIGHTS, describe_export, write_config
from faceattr.training.inference_onnx import BLOCK, OnnxBackend, create_session
from faceattr.training.onnx_export import write_onnx
from faceattr.training.safetensors_model import write_weights

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
"""Convolutions with ordered classes, and attention with two: an export takes seconds."""


def write(folder: Path, *overrides: str, **given: Any) -> tuple[Path, Path]:
    """The checkpoint of a network with random weights and a temperature, and its export."""
    ckpt, out = untrained(folder / "best.ckpt", *overrides, **given), folder / "out"
    checkpoint_format.add_to_description(ckpt, temperature=1.3)
    model, description = checkpoint_format.load(ckpt)
    out.mkdir()
    about = describe_export(model, description, "float32")
    write_onnx(model, out / ONNX, {"faceattr": about})
    write_config(out, about, write_weights(model, out / WEIGHTS, half=False), (ONNX, WEIGHTS))
    return ckpt, out


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write(tmp_path_factory.mktemp("exported"))


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def test_every_model_has_a_case():
    assert {file.stem for file in (ROOT / "conf" / "model").glob("[!_]*.yaml")} <= set(CASES)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_write_onnx_answers_as_the_checkpoint_at_every_batch_size(tmp_path, case):
    overrides, task = CASES[case]
    ckpt, out = write(tmp_path, f"model={case.partition(' ')[0]}", *overrides, base=ON_CPU, **task)
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


def test_write_weights_holds_the_networks_tensors(exported):
    from safetensors.torch import load_file

    ckpt, out = exported
    state = checkpoint_format.load(ckpt)[0].network.state_dict()
    stored = load_file(out / WEIGHTS)
    assert set(stored) == set(state) and all(torch.equal(stored[name], state[name]) for name in state)


def test_load_of_an_export_has_the_rows_of_the_checkpoint(exported, tmp_path):
    ckpt, out = exported
    Image.fromarray(noise(1, 20, 24)[0]).save(tmp_path / "a.png")
    given = [tmp_path / "a.png", tmp_path / "absent.png", *noise(70, 30, 30)]
    tables = [faceattr.load(path).predict(given, mirror=True, abstain=0.55) for path in (ckpt, out)]
    assert list(tables[0]) == list(tables[1]) and len(tables[0]) == 72
    for name in tables[0]:
        left, right = (table[name] for table in tables)
        numbers = name.startswith("probability")
        assert (
            left.to_numpy() == pytest.approx(right.to_numpy(), abs=1e-5, nan_ok=True) if numbers else left.equals(right)
        )


def test_explain_of_an_export_says_what_it_needs(exported):
    with pytest.raises(FaceattrError, match="Grad-CAM needs the run's checkpoint"):
        faceattr.load(exported[1]).explain(noise(1, 32, 32)[0])


def test_load_of_an_export_computes_on_the_cpu_only(exported):
    assert faceattr.load(exported[1], accelerator="cpu").predict_proba(noise(1, 32, 32)).shape == (1, 2)
    with pytest.raises(FaceattrError, match="computes on the CPU"):
        faceattr.load(exported[1], accelerator="cuda")


# A stranger's folder

Change = Callable[[dict[str, Any]], None]


def field(**keys: Any) -> Change:
    return lambda ours: ours.update(keys)


def inside(group: str, **keys: Any) -> Change:
    return lambda ours: ours[group].update(keys)


ATTACKS: dict[str, Change] = {
    "another format": field(format=2),
    "no format": lambda ours: ours.pop("format"),
    "a name of two lines": field(name="a\nb"),
    "a name that is a number": field(name=1),
    "no classes": field(classes=[]),
    "classes that are numbers": field(classes=[0, 1]),
    "a class twice": field(classes=["a", "a"]),
    "more classes than probabilities": field(classes=["a", "b", "c"]),
    "an unknown kind": field(kind="regression"),
    "a temperature of 0": field(temperature=0),
    "a temperature that is none": field(temperature=float("nan")),
    "no input": field(input=None),
    "a huge input": inside("input", height=10**9),
    "another input": inside("input", height=33),
    "an input that is no number": inside("input", height=True),
    "an interpolation that is a method": inside("input", interpolation="__init__"),
    "an unknown resize": inside("input", resize="fill"),
    "faces that are a list": field(faces=[]),
    "an unknown mode of faces": inside("faces", mode="any"),
    "a margin that is text": inside("faces", margin="0.1"),
    "a margin beyond its bounds": inside("faces", margin=1e9),
    "another detector": inside("faces", mode="align", detector="0" * 64),
    "no files": field(files={}),
    "files that are text": field(files={ONNX: "../../etc/passwd"}),
    "another size": lambda ours: ours["files"][ONNX].update(bytes=7),
    "statistics of other images": field(inputs={"mean": [0]}),
    "another checksum": lambda ours: ours["files"][ONNX].update(sha256="0" * 64),
}


def copied(exported: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[1], tmp_path / "x"))


def assert_refused(folder: Path, match: str | None = None) -> None:
    with pytest.raises(FaceattrError, match=match) as refusal:
        faceattr.load(folder)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value) and len(str(refusal.value)) < 700


@pytest.mark.parametrize("attack", ATTACKS)
def test_load_refuses_a_strangers_config_in_one_line(exported, tmp_path, attack):
    folder = copied(exported, tmp_path)
    content = json.loads((folder / CONFIG).read_text())
    ATTACKS[attack](content["faceattr"])
    (folder / CONFIG).write_text(json.dumps(content))
    assert_refused(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"faceattr": 1}', "[" * 100_000, " " * 1_000_001, "\0"])
def test_load_refuses_a_config_that_is_none(exported, tmp_path, text):
    folder = copied(exported, tmp_path)
    (folder / CONFIG).write_text(text)
    assert_refused(folder, CONFIG)


def signed(folder: Path, content: bytes) -> None:
    """`content` as model.onnx, with its own size and checksum in config.json: what a stranger writes."""
    (folder / ONNX).write_bytes(content)
    ours = json.loads((folder / CONFIG).read_text())["faceattr"]
    write_config(folder, ours, {}, (ONNX,))


def test_load_refuses_a_model_that_was_changed(exported, tmp_path):
    folder = copied(exported, tmp_path)
    content = bytearray((folder / ONNX).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / ONNX).write_bytes(content)
    assert_refused(folder, "is not the file that config.json describes")
    (folder / ONNX).unlink()
    assert_refused(folder, "cannot be read: No such file")
    os.mkfifo(folder / ONNX)
    assert_refused(folder, "is no file")


@pytest.mark.parametrize("key", [b"\n\x08", b"\x8a\x00\x08", b"\n\x88\x00", b"\x8a\x80\x80\x00\x88\x80\x00"])
@pytest.mark.parametrize("before", [0, BLOCK - 30, BLOCK - 13, BLOCK - 2])
def test_create_session_refuses_every_spelling_of_a_reference(tmp_path, key, before):
    """Of protobuf's two integers before the text: a tag and a length. Also where it lies in two blocks of the file."""
    (tmp_path / ONNX).write_bytes(bytes(before) + b"location " + key + b"location")
    with pytest.raises(FaceattrError, match="refers to other files"):
        create_session(tmp_path / ONNX, "here")


@pytest.mark.parametrize("location", ["secret.bin", "/etc/hostname", "../secret.bin", "*/_ORT_MEM_ADDR_/*"])
def test_load_refuses_a_model_that_refers_to_other_files(exported, tmp_path, location):
    folder = copied(exported, tmp_path)
    proto = onnx.load(folder / ONNX)
    tensor = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    signed(folder, proto.SerializeToString())
    assert_refused(folder, "refers to other files")


def test_load_refuses_what_is_no_model_or_another(exported, tmp_path):
    folder = copied(exported, tmp_path)
    signed(folder, b"no model")
    assert_refused(folder, "cannot run it")
    proto = onnx.load(exported[1] / ONNX)
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "others"
    signed(folder, proto.SerializeToString())
    assert_refused(folder, "does not fit")


def test_create_session_allows_the_text_location(exported, tmp_path):
    """As in the name of an attribute: only a tensor's reference is refused."""
    proto = onnx.load(exported[1] / ONNX)
    proto.metadata_props.add(key="classes", value='["location", "\\nlocation"]')
    (tmp_path / ONNX).write_bytes(proto.SerializeToString())
    create_session(tmp_path / ONNX, "here")


WITHOUT_TORCH = """
import sys, time

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import faceattr, numpy
model = faceattr.load(sys.argv[1])
print(model.predict_proba(sys.argv[2]).tolist(), "pandas" in sys.modules)
print(model.predict([sys.argv[2], "absent.png"]).to_csv(index=False))
for path in ("absent", ".", sys.argv[2]):
    try:
        faceattr.load(path)
    except faceattr.FaceattrError as error:
        print(error)
"""
ABSENT = {
    *(
        "torch",
        "pytorch_lightning",
        "lightning_fabric",
        "torchmetrics",
        "hydra",
        "omegaconf",
        "antlr4",
        "torchvision",
        "timm",
    ),
    *(
        "safetensors",
        "huggingface_hub",
        "scipy",
        "matplotlib",
        "tqdm",
        "filelock",
        "yaml",
        "jinja2",
        "onnx",
        "onnxscript",
    ),
}


def test_load_of_an_export_needs_no_torch(exported, tmp_path):
    ckpt, out = exported
    Image.fromarray(noise(1, 40, 30)[0]).save(tmp_path / "a.png")
    (tmp_path / "run.py").write_text(WITHOUT_TORCH.format(absent=ABSENT))
    command = [sys.executable, "run.py", str(out), "a.png"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    first, header, *rows = ended.stdout.strip().splitlines()
    expected = faceattr.load(ckpt).predict_proba(tmp_path / "a.png")
    assert np.array(json.loads(first.removesuffix(" False"))) == pytest.approx(expected, abs=1e-5)
    assert header == "path,predicted,probability_female,probability_male,reason"
    assert rows[0].startswith("a.png,") and "No such file" in rows[1]
    absent, folder, file = [line for line in rows if line.startswith("ckpt=")]
    assert "there is no such file" in absent and "a folder without config.json" in folder and "this is a file" in file
