"""Kept arrays: read by row, made by one process only, and not taken away from a run that uses them."""

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from faceattr.data import array_cache
from faceattr.data.array_cache import NoRoom, RowArray, folder, get_or_create
from faceattr.errors import FaceattrError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path))
    monkeypatch.delenv("FACEATTR_CACHE_GB", raising=False)


def kept(name: str, value: int = 1, rows: int = 10) -> RowArray:
    """`rows` rows of 100 bytes."""

    def fill(array: RowArray) -> dict[str, int]:
        for row in range(rows):
            array[row] = np.full((10, 10), value + row, np.uint8)
        return {"value": value}

    found, about = get_or_create(name, (rows, 10, 10), np.uint8, fill, what=name)
    assert about["value"] == value
    return found


def test_rows_come_in_the_order_that_is_asked_for():
    rows = kept("a")
    assert rows.shape == (10, 10, 10) and rows.dtype == np.uint8 and len(rows) == 10
    assert rows[np.array([7, 0, 7])][:, 3, 3].tolist() == [8, 1, 8]
    assert rows[np.array([], int)].shape == (0, 10, 10)


def test_rows_go_to_another_process_and_outlive_their_file():
    rows = kept("a")
    copy = pickle.loads(pickle.dumps(rows))
    rows.file.unlink()
    for array in (rows, copy):
        assert array[np.array([2])].max() == 3


def test_a_file_cut_short_under_a_run_is_a_clear_error():
    rows = kept("a")
    os.truncate(rows.file, rows.file.stat().st_size - 150)
    assert rows[np.array([0])].max() == 1
    with pytest.raises(FaceattrError, match=r"a\.npy has been cut short.*faceattr cache clear"):
        rows[np.array([9])]


def test_what_could_not_be_filled_leaves_nothing():
    def fill(array: RowArray) -> dict[str, int]:
        array[0] = np.ones((10, 10), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_or_create("a", (10, 10, 10), np.uint8, fill, what="a")
    assert not [path for path in folder().iterdir() if path.suffix != ".lock"]
    assert kept("a")[np.array([9])].max() == 10


def test_an_array_in_use_is_not_removed_for_another(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("FACEATTR_CACHE_GB", "3.5e-6")  # three arrays with their headers
    used = kept("used")
    for name in ("b", "c", "d"):
        kept(name)
    assert sorted(path.stem for path in folder().glob("*.npy")) == ["c", "d", "used"]
    with pytest.raises(NoRoom, match="less what is in use"):  # it would fit if the first one went
        kept("large", rows=28)
    del used
    kept("large", rows=28)
    assert [path.stem for path in folder().glob("*.npy")] == ["large"]


def test_a_disk_without_room_is_told_before_anything_is_made(monkeypatch):
    free = array_cache.shutil.disk_usage(Path("/"))
    monkeypatch.setattr(array_cache.shutil, "disk_usage", lambda _: free._replace(free=2**30 + 999))
    with pytest.raises(NoRoom, match=r"a: 0\.00 GB, and .* has room for 0\.00"):
        kept("a")
    assert not folder().exists()


def test_get_or_create_counts_only_arrays_of_its_own_folder(tmp_path, monkeypatch):
    elsewhere = kept("a")
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("FACEATTR_CACHE_GB", "1.5e-6")
    assert len(kept("b")) == len(elsewhere)
