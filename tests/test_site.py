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
from browser import chromium
from composing import compose_unchecked
from programs import ROOT, inside

from faceattr.config.quote_for_hydra import quote_arguments
from faceattr.config.validate_keys import validate
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
    shown, noticed = browser.new_page(viewport={"width": width, "height": 800}), list[str]()
    shown.on("console", lambda message: noticed.append(f"{message.type}: {message.text}"))
    shown.on("request", lambda request: noticed.append(request.url))
    shown.goto(f"{address}/index.html")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.keyboard.press("f")  # Material's key for the search
    shown.keyboard.type("YuNet")
    shown.wait_for_selector(".md-search-result__link")
    assert "faces.html" in shown.locator(".md-search-result__link").first.get_attribute("href")
    assert not [line for line in noticed if not line.startswith(address)]
    for page in PAGES:
        shown.goto(f"{address}/{page.stem}.html")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width, page.name
    assert not [line for line in noticed if not line.startswith(address)]


def commands(page: Path) -> list[list[str]]:
    """The words of each command in the code blocks, without comments; a few lines of Python are no command."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    lines = [line for language, block in blocks if not language for line in block.replace("\\\n", " ").splitlines()]
    return [
        shlex.split(line, comments=True)
        for line in lines
        if re.match(r"(python|faceattr) ", line) and not line.startswith("python -c")
    ]


@pytest.mark.slow
def test_commands_of_the_first_page_run(tmp_path):
    """As they stand there, but for the size of the images and the length of training."""
    sample.write("csv", tmp_path / "OTHER", n=60, image_size=32)
    few = ["data.n=60", "model.image_size=[32,32]", "trainer=cpu", "trainer.max_epochs=1"]
    smaller = {"train": few[1:], "preview": few[1:2], "evaluate": ["data.label_map={0:Male,1:Female}"], "predict": []}
    ran = []
    for program, *arguments in commands(ROOT / "docs" / "index.md"):
        if program == "python" and "faceattr.data.sources.sample" in arguments:
            given = dict(argument.split("=") for argument in arguments[2:])
            sample.write(given["layout"], tmp_path / given["out"], n=60, image_size=int(given["image_size"]))
        elif program == "faceattr":
            ended = inside(arguments[0], *arguments[1:], *smaller[arguments[0]], cwd=tmp_path)
            assert ended.code == 0, f"{arguments}: {ended.err}"
            ran.append(arguments[0])
    assert ran == ["preview", "train", "predict", "evaluate"]
    assert (tmp_path / "first" / "report.html").exists()


def complete_commands() -> list[tuple[str, str]]:
    """Page and arguments of those that train.py's config is composed for, where no word stands for something else."""
    found = {}
    for page in [
        ROOT / "README.md",
        *(page for page in PAGES if page.stem != "studies-results"),
    ]:  # tests/test_studies.py
        for program, name, *arguments in commands(page):
            given = shlex.join(arguments)
            command = name.removesuffix(".py") if program == "python" else name
            if command in ("train", "preview", "leaks") and not re.search(r"…|\$|ckpt=|=mine|^-| -", given):
                found.setdefault(given, page.name)
    return sorted((page, given) for given, page in found.items())


@pytest.mark.slow
@pytest.mark.parametrize(("page", "arguments"), complete_commands())
def test_commands_of_every_page_compose(page, arguments):
    """Their keys, options and values are the schema's."""
    validate(compose_unchecked("train", ["name=test", *quote_arguments(shlex.split(arguments))]))


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
    assert "probability_Male" in str(notebook.cells) and not list(tmp_path.rglob("*.part"))
