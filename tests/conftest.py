"""Shared by all tests: a cache folder of the session's own, and the data that lie beside a checkout."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs and sample faces go here, not into the user's cache; subprocesses inherit it."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["FACEATTR_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def shared() -> Callable[..., Path]:
    """`shared("data", "faces")`: real images and weights; skips where they are absent, fails in CI that has the folder."""
    folder = Path(os.environ.get("FACEATTR_SHARED", ROOT.parent / "shared"))

    def find(*parts: str) -> Path:
        path = folder.joinpath(*parts)
        if not path.exists():
            if folder.exists() and os.environ.get("CI"):
                pytest.fail(f"{path} is missing in {folder}")
            pytest.skip(f"{path} is not here (FACEATTR_SHARED)")
        return path

    return find


def pytest_collection_finish() -> None:
    """Garbage collection no longer looks at the modules' and tests' own objects, hundreds of thousands of them."""
    gc.collect()
    gc.freeze()
