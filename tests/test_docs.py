"""The README and docs/: what they name exists (links, files, options, keys, commands, Python names), and the README is short."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from composing import compose_config
from PIL import Image

import faceattr
from faceattr.commands.build_from_config import create_network
from faceattr.commands.main import COMMANDS
from faceattr.data import table
from faceattr.metrics import compute_metrics, registry
from faceattr.models import conv_stacks
from faceattr.models.task import Task

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md")))]
EXAMPLES = {  # files and modules that docs/extending.md tells the reader to write
    "src/faceattr/data/sources/mine.py",
    "faceattr.data.sources.mine",
    "conf/data/mine.yaml",
    "conf/model/two_convs.yaml",
    "conf/finetune/mine.yaml",
}
GROUPS = ("data", "faces", "model", "finetune", "augment", "optim", "trainer", "evaluate")
FOLDERS = ("src", "conf", "docs", "tests", "benchmarks", "studies")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(text: str) -> str:
    """What stands in backticks and in code blocks."""
    blocks = re.findall(r"^```.*?^```", text, re.M | re.S)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            missing.append(link)
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_files_and_modules_that_are_named_exist(page):
    text = code(read(page))
    paths = set(re.findall(rf"(?<![\w/.$-])(?:{'|'.join(FOLDERS)})/[\w/.-]+\.(?:py|yaml|md|json|png)", text))
    scripts = set(re.findall(r"python (\w[\w/]*\.py)", text))
    generated = {"benchmarks/results-gpu.json"}
    assert not [path for path in paths | scripts if path not in EXAMPLES | generated and not (ROOT / path).exists()]
    modules = set(re.findall(r"python -m ((?:faceattr|benchmarks)[\w.]*)", text))
    places = [ROOT / ("src" if module.startswith("faceattr") else "") / module.replace(".", "/") for module in modules]
    assert not [
        place for place in places if not place.with_suffix(".py").exists() and not (place / "__main__.py").exists()
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/config.md"])
def test_config_keys_that_are_named_exist(page):
    known = set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", read("docs/config.md")))
    groups = {key.rpartition(".")[0] for key in known}
    named = re.findall(rf"(?<![\w./])((?:{'|'.join(GROUPS)})\.[a-z_.]+)(?=[=`,) …]|$)", code(read(page)), re.M)
    named = [key for key in named if key not in ("faces.csv", "faces.png", "model.onnx", "model.safetensors")]  # files
    assert not [key for key in named if key not in known | groups and not (ROOT / key).exists()]


def test_readme_lists_every_option_of_every_group():
    listed = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+` ?|… ?)+)\|", read("README.md"), re.M))
    options = {folder.name: {file.stem for file in folder.glob("*.yaml")} for folder in (ROOT / "conf").iterdir()}
    options["quirks"] = {"as_published", "corrected"}
    for group, names in listed.items():
        named, existing = set(re.findall(r"`(\w+)`", names)), {name for name in options[group] if name[0] != "_"}
        assert named <= existing and (named == existing or "…" in names), group
    assert set(listed) == {name for name in options if name not in ("hydra",) and (ROOT / "conf" / name).is_dir()}


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page):
    named = set(re.findall(r"(?:^|`|\s)faceattr ([a-z]+)(?= |`|$)", code(read(page)), re.M))
    assert named <= {*COMMANDS, "cache"}
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", code(read(page)), re.M)) <= targets


def test_python_names_in_the_readme_exist():
    text = code(read("README.md"))
    assert set(re.findall(r"faceattr\.([a-z]\w*)\(", text)) == {"load", "train", "evaluate"}
    assert all(callable(getattr(faceattr, name)) for name in ("load", "train", "evaluate"))
    predictor = faceattr.Predictor
    assert all(hasattr(predictor, name) for name in re.findall(r"^model\.(\w+)\(", text, re.M))


def test_readme_has_at_most_150_lines():
    assert len(read("README.md").splitlines()) <= 150


# The examples of docs/extending.md, run as they stand there


def example(name: str, module: ModuleType) -> Any:
    """`name` as the code block of docs/extending.md that defines it gives it, inside `module`."""
    blocks = re.findall(r"^```python\n(.*?)^```", read("docs/extending.md"), re.M | re.S)
    (block,) = [block for block in blocks if f"def {name}(" in block]
    namespace = dict(vars(module))
    exec(block, namespace)
    return namespace[name]


def test_extending_names_imports_that_exist():
    (block,) = re.findall(r"^```python\n(from faceattr.*?)^```", read("docs/extending.md"), re.M | re.S)
    exec(block, {})


def test_extending_data_set_example_reads_a_table(tmp_path):
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("path,label,split\na.png,no,train\nb.png,yes,val\n")
    prepared = table.prepare(example("load", table)(str(tmp_path)), tmp_path, split=None)
    assert table.class_names(prepared) == ["no", "yes"] and prepared["label"].tolist() == ["no", "yes"]


def test_extending_model_example_is_a_network_of_stages():
    network = example("two_convs", conv_stacks)(image_size=[64, 64], num_logits=1, head={})
    assert network.stage_names == ["block1", "block2", "head"]
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 1)


def test_extending_metric_example_has_a_value_and_an_interval(monkeypatch):
    monkeypatch.setattr(registry, "METRICS", metrics := dict(registry.METRICS))
    monkeypatch.setattr(compute_metrics, "METRICS", metrics)
    example("_specificity", registry)
    task = Task.from_config(["no", "yes"], ordinal=False, loss="auto")
    positive = torch.rand(60, generator=torch.Generator().manual_seed(0))
    truth = torch.arange(60) % 2
    scores = torch.stack((1 - positive, positive), 1)
    metrics = compute_metrics.all_metrics(task, scores, truth)
    metrics |= compute_metrics.intervals_of(metrics, task, scores, truth, None)
    assert metrics["specificity"] == pytest.approx(metrics["recall_no"])
    assert metrics["specificity_low"] < metrics["specificity"] < metrics["specificity_high"]


@pytest.mark.slow
def test_models_page_gives_the_parameters_of_each_network():
    rows = re.findall(r"^\| `(\w+)` .*\| ([\d,]+) \| [^|]+ \|$", read("docs/models.md"), re.M)
    task = Task.from_config(["no", "yes"], ordinal=False, loss="auto")
    counts = {}
    for model, _ in rows:
        with torch.device("meta"):
            network = create_network(compose_config(f"model={model}"), task)
        counts[model] = f"{sum(parameter.numel() for parameter in network.parameters()):,}"
    assert dict(rows) == counts
    assert set(counts) == {file.stem for file in (ROOT / "conf" / "model").glob("*.yaml")}
