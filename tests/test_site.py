"""The documentation site: built without a warning, complete, nothing is fetched from elsewhere; the pages' commands work."""

import functools
import http.server
import logging
import re
import shlex
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium, opened
from composing import compose_unchecked
from programs import ROOT, quick

from faceattr.commands.launch import COMMANDS
from faceattr.config.validate import validate
from faceattr.data.sources import sample

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    build(config)  # strict: a warning ends it
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.mark.slow
def test_site_has_every_page_and_fetches_nothing(site):
    assert {page.with_suffix(".html").name for page in PAGES} <= {page.name for page in site.glob("*.html")}
    assert (site / "tour.ipynb").exists()
    for page in site.rglob("*.html"):
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(https?:[^\s\">]+)", text := page.read_text("utf-8"))
        fetched += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon)[^>]*href=\"?(https?:[^\s\">]+)", text)
        assert not fetched, page.name
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?https?:", sheet.read_text("utf-8")), sheet.name
    api = (site / "api.html").read_text("utf-8")
    assert all(f'id="faceattr.api.{name}"' in api for name in ("train", "evaluate", "load", "Predictor.predict", "Run"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1280])
def test_site_in_a_browser_is_read_and_searched(address, browser, width):
    shown, noticed = opened(browser, f"{address}/index.html", width)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.keyboard.press("f")  # Material's key for the search
    shown.keyboard.type("template of the five points")
    shown.wait_for_selector(".md-search-result__link")
    assert "faces.html" in shown.locator(".md-search-result__link").first.get_attribute("href")
    assert not [line for line in noticed if not line.startswith(address)]
    for page in PAGES:
        shown.goto(f"{address}/{page.stem}.html")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width, page.name
    assert not [line for line in noticed if not line.startswith(address)]


def commands(text: str) -> list[str]:
    """The commands in the code blocks, one a line, without comments."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [" ".join(shlex.split(line, comments=True)) for line in lines if re.match(r"(python|faceattr) ", line)]


@pytest.mark.slow
def test_commands_of_the_first_page_run(tmp_path):
    """As they stand there, but for the size of the images and the length of training."""
    sample.write("csv", tmp_path / "OTHER", n=60, image_size=32)
    few = ["data.n=60", "model.image_size=[32,32]", "trainer=cpu", "trainer.max_epochs=1"]
    smaller = {"train": few[1:], "preview": few[1:2], "evaluate": ["data.label_map={0:Male,1:Female}"], "predict": []}
    ran = []
    for line in commands((ROOT / "docs" / "index.md").read_text("utf-8")):
        program, *arguments = line.split()
        if program == "python" and "faceattr.data.sources.sample" in arguments:
            given = dict(argument.split("=") for argument in arguments[2:])
            sample.write(given["layout"], tmp_path / given["out"], n=60, image_size=int(given["image_size"]))
        elif program == "faceattr":
            ended = quick(arguments[0], *arguments[1:], *smaller[arguments[0]], cwd=tmp_path)
            assert ended.code == 0, f"{line}: {ended.err}"
            ran.append(arguments[0])
    assert ran == ["preview", "train", "predict", "evaluate"]
    assert (tmp_path / "first" / "report.html").exists()


def composed_commands() -> list[tuple[str, str]]:
    """Those of train and evaluate on every page that name all that they need."""
    found = {}
    for page in [ROOT / "README.md", *PAGES]:
        for line in commands(page.read_text("utf-8")):
            words = line.removeprefix("python ").removeprefix("faceattr ").split(" ")
            name = words[0].removesuffix(".py")
            if name in COMMANDS and name in ("train", "preview", "leaks") and not re.search(r"[…$]|ckpt=|--|-m|\bG\b", line):
                found.setdefault(line, page.name)
    return sorted((page, line) for line, page in found.items())


@pytest.mark.parametrize(("page", "line"), composed_commands())
def test_commands_of_every_page_compose(page, line):
    """Their keys, options and values are the schema's."""
    overrides = shlex.split(line)[2:]
    validate(compose_unchecked("train", ["name=test", *overrides]))


@pytest.mark.slow
def test_tour_runs(tmp_path, monkeypatch):
    """The notebook, with fewer images and one epoch."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(shutil.copy(ROOT / "docs" / "tour.ipynb", tmp_path), as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("n=2000", "n=60").replace(
            '"trainer=cpu"', '"trainer=cpu", "trainer.max_epochs=1", "model.image_size=[32,32]"'
        )
    assert "max_epochs=1" in str(notebook.cells)
    client.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "probability_Male" in str(notebook.cells) and not [p for p in tmp_path.rglob("*.part")]
