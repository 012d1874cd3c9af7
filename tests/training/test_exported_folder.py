"""An exported folder: with the rows of its checkpoint, of a stranger, and used without torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exports import assert_refused, copied, noise
from PIL import Image

import faceattr
from faceattr.errors import FaceattrError
from faceattr.training.exported_folder import CONFIG, ONNX


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


@pytest.mark.parametrize("attack", ATTACKS)
def test_load_refuses_a_strangers_config_in_one_line(exported, tmp_path, attack):
    folder = copied(exported[1], tmp_path)
    content = json.loads((folder / CONFIG).read_text())
    ATTACKS[attack](content["faceattr"])
    (folder / CONFIG).write_text(json.dumps(content))
    assert_refused(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"faceattr": 1}', "[" * 100_000, " " * 1_000_001, "\0"])
def test_load_refuses_a_config_that_is_none(exported, tmp_path, text):
    folder = copied(exported[1], tmp_path)
    (folder / CONFIG).write_text(text)
    assert_refused(folder, CONFIG)


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
