"""Headless Chromium for the tests of what people look at: reports, the served page, the documentation."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium(*more: str) -> Iterator[Any]:
    """A browser of playwright, without background requests; `more` are arguments of Chromium. Skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    quiet = [f"--disable-{what}" for what in ("background-networking", "component-update", "sync", "gpu")]
    with playwright.sync_playwright() as player:
        started = player.chromium.launch(executable_path=program, args=["--no-sandbox", "--no-first-run", *quiet, *more])
        yield started
        started.close()


def opened(browser: Any, address: str, width: int) -> tuple[Any, list[str]]:
    """The page, and its requests and console messages."""
    shown, noticed = browser.new_page(viewport={"width": width, "height": 800}), []
    shown.on("console", lambda message: noticed.append(f"{message.type}: {message.text}"))
    shown.on("pageerror", lambda error: noticed.append(str(error)))
    shown.on("request", lambda request: request.url.startswith("data:") or noticed.append(request.url))
    shown.goto(address)
    return shown, noticed
