"""Headless Chromium, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from programs import PATIENCE


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Without background requests; skips where it is absent. `arguments`: further ones of its command line."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    quiet = ["background-networking", "component-update", "sync"]
    given = ["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{what}" for what in quiet), *arguments]
    with playwright.sync_playwright() as player:
        started = player.chromium.launch(executable_path=program, args=given, timeout=1000 * PATIENCE)
        yield started
        started.close()
