"""faceattr cache: lists the arrays stored between runs, and removes them."""

import numpy as np
import pytest

from faceattr.commands.cache import cache
from faceattr.data.array_cache import folder, get_or_create


@pytest.fixture(autouse=True)
def two_arrays(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path))
    for name, rows in (("pixels-a", 3), ("hashes-b", 5)):
        get_or_create(name, (rows, 4), np.uint8, lambda array: {}, what=name)


def test_cache_lists_arrays_with_their_rows(capsys):
    cache([])
    first, second, total = capsys.readouterr().out.splitlines()
    assert first.startswith("hashes-b.npy ") and first.endswith(" 5 rows")
    assert second.startswith("pixels-a.npy ") and second.endswith(" 3 rows")
    assert total == f"2 arrays in {folder()}"


def test_cache_clear_removes_them(capsys):
    cache(["clear"])
    assert capsys.readouterr().out.endswith(f"2 arrays removed from {folder()}\n")
    cache([])
    assert capsys.readouterr().out == f"0 arrays in {folder()}\n"


def test_cache_help_and_unknown_arguments(capsys):
    cache(["--help"])
    assert capsys.readouterr().out == "usage: faceattr cache [clear]\n"
    with pytest.raises(SystemExit, match=r"faceattr cache \[clear\]"):
        cache(["clera"])
    assert list(folder().glob("*.npy"))
