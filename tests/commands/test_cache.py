"""faceattr cache: lists the arrays stored between runs, and removes them."""

import os

import numpy as np
import pytest

from faceattr.commands.cache import cache
from faceattr.data.disk_cache import folder, get_or_create
from faceattr.data.faces.detector_file import cached_file


@pytest.fixture(autouse=True)
def two_arrays(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path))
    for name, rows in (("pixels-a", 3), ("hashes-b", 5)):
        get_or_create(name, (rows, 4), np.uint8, lambda array: {}, title=name)


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
    assert capsys.readouterr().out == "usage: faceattr cache [verify | clear]\n"
    with pytest.raises(SystemExit, match=r"faceattr cache \[verify \| clear\]"):
        cache(["clera"])
    with pytest.raises(SystemExit, match="Did you mean clear"):
        cache(["clean"])
    assert list(folder().glob("*.npy"))


def test_cache_verify_removes_damaged_arrays(capsys):
    cache(["verify"])
    assert capsys.readouterr().out.endswith(f"2 arrays as written, 0 damaged, in {folder()}\n")
    damaged = folder() / "pixels-a.npy"
    stat, content = damaged.stat(), bytearray(damaged.read_bytes())
    content[-20] ^= 1
    damaged.write_bytes(content)
    os.utime(damaged, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(SystemExit) as stop:
        cache(["verify"])
    assert stop.value.code == 1 and "pixels-a.npy" in capsys.readouterr().out.splitlines()[1]
    assert [file.name for file in folder().glob("*.npy")] == ["hashes-b.npy"]


def test_cache_lists_a_file_that_is_no_array_as_damaged(capsys):
    (folder() / "x.npy").write_bytes(b"no array")
    cache([])
    assert capsys.readouterr().out.splitlines()[2].endswith("damaged")


def test_cache_lists_generated_images_and_the_detector(tmp_path, capsys):
    for name in ("sample/v6_n2/images/1.jpg", f"detector/{cached_file().name}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(200_000))
    cache([])
    sample, detector = capsys.readouterr().out.splitlines()[3:]
    assert sample.startswith(f"{tmp_path / 'sample' / 'v6_n2'} ") and sample.endswith(
        "0.2 MB  1 file, images of data=sample"
    )
    assert detector.startswith(str(cached_file())) and detector.endswith("0.2 MB  face detector")
