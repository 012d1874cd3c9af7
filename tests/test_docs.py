"""The README and docs/: what they name exists (links, files, options, keys, commands, Python names), and the README is short."""

import re
from pathlib import Path

import pytest

import faceattr
from faceattr.commands.launch import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md")))]
EXAMPLES = {  # files and modules that docs/extending.md tells the reader to write
    "src/faceattr/data/sources/mine.py",
    "faceattr.data.sources.mine",
    "conf/data/mine.yaml",
    "conf/model/two_convs.yaml",
    "conf/finetune/mine.yaml",
}
GROUPS = ("data", "model", "finetune", "augment", "optim", "trainer", "evaluate")
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
