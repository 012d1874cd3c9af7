"""Packed pixels: found again, never wrong, shared by processes, bounded on the disk."""

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import inside
from signal_at import kill_at

from faceattr.data.array_file import RowArray
from faceattr.data.decode import InputSpec, read
from faceattr.data.disk_cache import folder
from faceattr.data.pixel_cache import pack
from faceattr.errors import FaceattrError

SPEC = InputSpec(8, 6, "bilinear", "unit")
SIZE = 5 * 8 * 6 * 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FACEATTR_CACHE_GB", raising=False)


@pytest.fixture
def photos(tmp_path) -> list[str]:
    """Five noise images of several sizes."""
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        rewrite(path, i)
    return list(map(str, paths))


def rewrite(path: str | Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (12 + seed % 7, 11, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def packs() -> list[str]:
    return sorted(file.name for file in folder().glob("*.npy"))


def whole(pixels: RowArray) -> np.ndarray:
    return pixels[np.arange(len(pixels))]


def one_by_one(paths: list[str], spec: InputSpec = SPEC) -> np.ndarray:
    return np.stack([read(path, spec) for path in paths])


def python(*code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *code], text=True, stdout=subprocess.PIPE, env=os.environ)


def test_pack_is_found_again_without_decoding(photos, caplog):
    caplog.set_level(logging.INFO)
    first, _ = pack(photos, SPEC, mode="disk", workers=1)
    assert isinstance(first, RowArray)
    file = folder() / packs()[0]
    written = file.stat().st_ino, file.read_bytes()
    again, bad = pack(photos, SPEC, mode="auto", workers=1)
    assert (whole(again) == whole(first)).all()
    assert bad == {}
    assert (file.stat().st_ino, file.read_bytes()) == written
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [
        "Pixels of 5 images: stored",
        "Pixels of 5 images: found",
    ]


def test_pack_is_made_anew_for_a_changed_image_order_or_spec(photos):
    pack(photos, SPEC, mode="disk", workers=1)
    rewrite(photos[2], 9)
    changed, _ = pack(photos, SPEC, mode="disk", workers=1)
    assert (whole(changed) == one_by_one(photos)).all()
    os.utime(photos[2], ns=(1, 1))  # the same size, another date
    pack(photos, SPEC, mode="disk", workers=1)
    assert len(packs()) == 3
    rewrite(photos[2], 10)  # another size, the same date
    os.utime(photos[2], ns=(1, 1))
    resized, _ = pack(photos, SPEC, mode="disk", workers=1)
    assert (whole(resized) == one_by_one(photos)).all()
    turned, _ = pack(photos[::-1], SPEC, mode="disk", workers=1)
    assert (whole(turned) == one_by_one(photos[::-1])).all()
    others = InputSpec(6, 8, "bilinear", "unit"), InputSpec(8, 6, "nearest", "unit"), replace(SPEC, resize="crop")
    for spec in others:
        other, _ = pack(photos, spec, mode="disk", workers=1)
        assert (whole(other) == one_by_one(photos, spec)).all()
    assert len(packs()) == 8
    pack(photos, InputSpec(8, 6, "bilinear", "imagenet"), mode="disk", workers=1)  # scaling comes after the pixels
    assert len(packs()) == 8


@pytest.mark.parametrize("how", ["in its place", "by another file"])
def test_pack_is_made_anew_for_an_image_replaced_by_one_of_the_same_size_and_date(photos, how):
    pack(photos, SPEC, mode="disk", workers=1)
    first, second = Path(photos[0]), Path(photos[1])
    size = max(first.stat().st_size, second.stat().st_size)
    for file in (first, second):  # bytes behind the image's end change nothing
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
        os.utime(file, ns=(1, 1))
    before, _ = pack(photos, SPEC, mode="disk", workers=1)
    if how == "in its place":
        first.write_bytes(second.read_bytes())
    else:
        second.replace(first)
        second.write_bytes(first.read_bytes())
    os.utime(first, ns=(1, 1))
    after, _ = pack(photos, SPEC, mode="disk", workers=1)
    assert (whole(after)[0] == whole(before)[1]).all() and not (whole(before)[0] == whole(before)[1]).all()


def test_pack_gives_the_same_pixels_and_bad_rows_in_all_modes(photos):
    Path(photos[3]).write_text("no image")
    found = {mode: pack(photos, SPEC, mode=mode, workers=2) for mode in ("disk", "ram", "auto", "off")}
    packed, bad = found["disk"]
    pixels = whole(packed)
    assert list(bad) == [3]
    assert all(reasons == bad for _, reasons in found.values())
    assert found["off"][0] is None
    assert not pixels[3].any()
    kept = [0, 1, 2, 4]
    assert (pixels[kept] == one_by_one([photos[row] for row in kept])).all()
    assert (found["ram"][0] == pixels).all()
    assert (whole(found["auto"][0]) == pixels).all()
    assert isinstance(found["ram"][0], np.ndarray)
    assert pack(photos, SPEC, mode="disk", workers=1)[1] == bad, "not found again"


def test_pack_writes_nothing_with_ram_and_off(photos):
    pack(photos, SPEC, mode="ram", workers=1)
    pack(photos, SPEC, mode="off", workers=1)
    assert not folder().exists()


PACK_BIG = """
import sys
from faceattr.data.decode import InputSpec
from faceattr.data.pixel_cache import pack
pixels, bad = pack([sys.argv[1]] * int(sys.argv[2]), InputSpec(16, 16, "bilinear", "unit"), mode="disk", workers=1)
import numpy as np
print(pixels[np.arange(len(pixels))].sum(), len(bad))
"""


@pytest.fixture
def big(tmp_path) -> Path:
    """Takes a while to decode."""
    Image.linear_gradient("L").resize((2000, 2000)).save(tmp_path / "big.png")
    return tmp_path / "big.png"


def test_pack_that_was_interrupted_is_never_used(photos, tmp_path):
    spec = "InputSpec(8, 6, 'bilinear', 'unit')"
    packing = (
        f"from faceattr.data.decode import InputSpec; from faceattr.data.pixel_cache import pack; pack({photos}, {spec}"
    )
    kill_at("cache/kept/*.part", tmp_path, f"{packing}, mode='disk', workers=1)")
    (left,) = folder().glob("*.part")
    assert packs() == []
    pixels, bad = pack(photos, SPEC, mode="disk", workers=2)
    assert packs() == [f"{left.name.partition('.')[0]}.npy"]
    assert not left.exists()
    assert (whole(pixels) == one_by_one(photos)).all()
    assert bad == {}


def test_pack_is_made_once_by_processes_that_run_together(big):
    together = [python("-c", PACK_BIG, str(big), "8") for _ in range(2)]
    outputs = [process.communicate()[0] for process in together]
    assert [process.returncode for process in together] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(packs()) == 1
    assert sorted(path.suffix for path in folder().iterdir()) == [".json", ".lock", ".npy"]


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "scribbled", "no json", "half json"])
def test_pack_that_is_damaged_is_made_again(photos, damage):
    pack(photos, SPEC, mode="disk", workers=1)
    file = folder() / packs()[0]
    content = file.read_bytes()
    about = file.with_suffix(".json")
    if "json" in damage:
        about.unlink() if damage == "no json" else about.write_text(about.read_text()[:9])
    else:
        file.write_bytes(content[: {"truncated": len(content) // 2, "header": 20, "empty": 0}.get(damage, -1)] + b"!")
    pixels, bad = pack(photos, SPEC, mode="disk", workers=1)
    assert (whole(pixels) == one_by_one(photos)).all()
    assert bad == {}
    assert file.read_bytes() == content


def test_pack_removes_the_least_recently_used_beyond_the_limit(photos, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("FACEATTR_CACHE_GB", str(2.9 * SIZE / 1e9))

    def packed(turn: int, used: int) -> str:
        known = set(packs())
        pack(photos[turn:] + photos[:turn], SPEC, mode="disk", workers=1)
        (name,) = set(packs()) - known
        os.utime(folder() / name, ns=(used, (folder() / name).stat().st_mtime_ns))
        return name

    first, second = packed(0, used=1000), packed(1, used=2000)
    pack(photos, SPEC, mode="disk", workers=1)  # use the first again
    third = packed(2, used=3000)
    assert packs() == sorted([first, third])
    assert not (folder() / second).with_suffix(".json").exists()
    assert f"Removed {folder() / second}, the least recently used" in caplog.text


def test_cache_lists_and_clears(photos, tmp_path):
    def run(*arguments: str) -> tuple[str, int]:
        ended = inside("cache", *arguments, cwd=tmp_path)
        return ended.out + ended.err, ended.code

    pack(photos, SPEC, mode="disk", workers=1)
    (folder() / "pixels-0123.part").write_bytes(bytes(1000))  # of a process that was killed
    name = packs()[0]
    output, code = run()
    assert code == 0
    assert name in output and "5 rows" in output and f"1 array in {folder()}" in output
    assert packs() == [name]
    assert "usage" in run("everything")[0]
    output, code = run("clear")
    assert code == 0 and "1 array removed" in output
    assert not folder().exists()


def test_pack_with_too_little_disk_warns_with_auto_and_fails_with_disk(photos, monkeypatch, caplog):
    usage = shutil.disk_usage(folder().parents[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30 + SIZE - 1))
    assert pack(photos, SPEC, mode="auto", workers=1) == (None, {})
    assert "data.pack=auto: Pixels of 5 images: 0.00 GB, and" in caplog.text
    assert "decoded in every epoch" in caplog.text
    with pytest.raises(
        FaceattrError, match=r"data.pack=disk: .* has room for 0.00 .*FACEATTR_CACHE_GB.*\nOr data.pack=off"
    ):
        pack(photos, SPEC, mode="disk", workers=1)
    assert packs() == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30 + SIZE))
    assert pack(photos, SPEC, mode="auto", workers=1)[0] is not None


def test_pack_in_a_folder_that_cannot_be_made_is_one_error(photos, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FACEATTR_CACHE", str(tmp_path / "file"))
    with pytest.raises(FaceattrError, match=r"Cannot write .*file.* FACEATTR_CACHE"):
        pack(photos, SPEC, mode="disk", workers=1)
