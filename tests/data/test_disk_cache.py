"""Kept arrays: read by row, made by one process only, and not taken away from a run that uses them."""

import logging
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from faceattr.data import disk_cache
from faceattr.data.array_file import RowArray
from faceattr.data.disk_cache import NoRoom, folder, get_or_create, is_damaged
from faceattr.errors import FaceattrError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path))
    monkeypatch.delenv("FACEATTR_CACHE_GB", raising=False)


def stored(name: str, value: int = 1, rows: int = 10) -> RowArray:
    """`rows` rows of 100 bytes."""

    def fill(array: RowArray) -> dict[str, int]:
        for row in range(rows):
            array[row] = np.full((10, 10), value + row, np.uint8)
        return {"value": value}

    array, metadata = get_or_create(name, (rows, 10, 10), np.uint8, fill, title=name)
    assert metadata["value"] == value
    return array


def test_row_array_gives_rows_in_the_requested_order():
    rows = stored("a")
    assert rows.shape == (10, 10, 10) and rows.dtype == np.uint8 and len(rows) == 10
    assert rows[np.array([7, 0, 7])][:, 3, 3].tolist() == [8, 1, 8]
    assert rows[np.array([], int)].shape == (0, 10, 10)


def test_row_array_goes_to_another_process_and_outlives_its_file():
    rows = stored("a")
    copy = pickle.loads(pickle.dumps(rows))
    rows.file.unlink()
    for array in (rows, copy):
        assert array[np.array([2])].max() == 3


def test_row_array_whose_file_is_cut_short_is_one_error():
    rows = stored("a")
    os.truncate(rows.file, rows.file.stat().st_size - 150)
    assert rows[np.array([0])].max() == 1
    with pytest.raises(FaceattrError, match=r"a\.npy has been cut short.*faceattr cache verify"):
        rows[np.array([9])]


def test_get_or_create_that_fails_leaves_nothing():
    def fill(array: RowArray) -> dict[str, int]:
        array[0] = np.ones((10, 10), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_or_create("a", (10, 10, 10), np.uint8, fill, title="a")
    assert not [path for path in folder().iterdir() if path.suffix != ".lock"]
    assert stored("a")[np.array([9])].max() == 10


def test_get_or_create_does_not_evict_an_array_in_use(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("FACEATTR_CACHE_GB", "3.6e-6")  # three arrays with their headers and checksums
    used = stored("used")
    for name in ("b", "c", "d"):
        stored(name)
    assert sorted(path.stem for path in folder().glob("*.npy")) == ["c", "d", "used"]
    with pytest.raises(NoRoom, match="less what is in use"):  # it would fit if the first one went
        stored("large", rows=28)
    del used
    stored("large", rows=28)
    assert [path.stem for path in folder().glob("*.npy")] == ["large"]


def test_get_or_create_on_a_full_disk_fails_before_it_computes(monkeypatch):
    free = disk_cache.shutil.disk_usage(Path("/"))
    monkeypatch.setattr(disk_cache.shutil, "disk_usage", lambda _: free._replace(free=2**30 + 999))
    with pytest.raises(NoRoom, match=r"a: 0\.00 GB, and .* has room for 0\.00"):
        stored("a")
    assert not folder().exists()


def test_get_or_create_counts_only_arrays_of_its_own_folder(tmp_path, monkeypatch):
    elsewhere = stored("a")
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("FACEATTR_CACHE_GB", "1.5e-6")
    assert len(stored("b")) == len(elsewhere)


def flip(file: Path, position: int) -> None:
    """One bit, without a trace in the file's size or date."""
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_is_damaged_and_reading_find_a_changed_byte():
    file = stored("a").file
    assert not is_damaged(file)
    flip(file, file.stat().st_size - 10 * 4 - 650)  # before the checksums: row 3
    again = stored("a")
    assert again[np.array([2, 4])][:, 0, 0].tolist() == [3, 5]
    with pytest.raises(FaceattrError, match=r"a\.npy is damaged: row 3 .*faceattr cache verify"):
        again[np.array([3])]
    assert is_damaged(file)


def test_row_array_rows_without_values_have_valid_checksums():
    rows, _ = get_or_create("a", (3, 5), np.float32, lambda array: {}, title="a")
    assert not rows[np.arange(3)].any()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"written": 1}', "value"])
def test_get_or_create_with_a_damaged_side_file_makes_the_array_anew(damage):
    file = stored("a").file.with_suffix(".json")
    file.write_text(file.read_text().replace('"value": 1', '"value": 2') if damage == "value" else damage)
    assert stored("a")[np.array([9])].max() == 10


@pytest.mark.parametrize("given", ["inf", "-1", "nan", "much"])
def test_get_or_create_refuses_a_limit_that_is_no_number_of_gigabytes(monkeypatch, given):
    monkeypatch.setenv("FACEATTR_CACHE_GB", given)
    with pytest.raises(FaceattrError, match=f"FACEATTR_CACHE_GB={given}: must be a number"):
        stored("a")


def test_folder_is_in_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("~/mine", ""):
        monkeypatch.setenv("FACEATTR_CACHE", given)
        assert folder() == tmp_path / (given.removeprefix("~/") or ".cache/faceattr") / "kept"


def test_get_or_create_in_a_folder_that_cannot_be_written_has_no_room(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "file"))
    with pytest.raises(NoRoom, match="Cannot write"):
        stored("a")


def test_get_or_create_in_a_folder_that_is_removed_in_the_middle_has_no_room():
    def fill(array: RowArray) -> dict[str, int]:
        shutil.rmtree(folder())
        return {}

    with pytest.raises(NoRoom, match=r"Cannot write .*a\.npy: No such file"):
        get_or_create("a", (2, 2), np.uint8, fill, title="a")
    assert stored("a")[np.array([0])].max() == 1


def test_get_or_create_finds_an_array_in_a_folder_that_is_read_only(monkeypatch):
    stored("a")

    def refused(*given: object, **options: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "utime", refused)  # permissions do not bind root
    assert stored("a", value=1)[np.array([9])].max() == 10


def test_get_or_create_removes_parts_of_dead_processes_only():
    stored("a")
    dead, own, alive = (folder() / f"{name}.0123abcd.part" for name in ("dead", "b", "alive"))
    for part in (dead, own, alive):
        part.touch()
    with FileLock(folder() / "alive.lock"):
        stored("b")
    assert not dead.exists() and not own.exists() and alive.exists()
