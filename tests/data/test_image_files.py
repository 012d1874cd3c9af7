"""The walk through folders: what it takes, what it leaves out, and that it says so."""

import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from faceattr.data import image_files
from faceattr.data.image_files import FORMATS, IMAGE_SUFFIXES, walk
from faceattr.errors import FaceattrError


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_image_suffixes_are_those_that_pillow_reads_in_these_formats(suffix, tmp_path):
    kind = Image.registered_extensions()[suffix]
    assert kind in (*FORMATS, "MPO")
    file = tmp_path / f"x{suffix}"
    Image.new("1" if suffix == ".pbm" else "RGB", (8, 8)).save(file)
    with Image.open(file, formats=FORMATS) as image:
        image.load()
        assert image.size == (8, 8)


def test_walk_takes_images_at_any_depth_in_upper_case_too_sorted(tmp_path):
    make(tmp_path, "b.jpg", "a/2.PNG", "a/deep/er/1.jfif", "a b/ü (1).webp")
    assert walk(tmp_path).files == ["a b/ü (1).webp", "a/2.PNG", "a/deep/er/1.jfif", "b.jpg"]
    assert walk(tmp_path).left_out() == ""


def test_walk_skips_and_counts_hidden_and_system_files(tmp_path):
    make(tmp_path, "a/1.jpg", "a/._1.jpg", "a/.ipynb_checkpoints/1.jpg", "a/x/@eaDir/1.jpg/S.jpg", "a/THUMBS.DB")
    make(tmp_path, "__MACOSX/a/1.jpg", "#recycle/1.jpg", ".git/1.jpg", "@name/2.jpg")
    listing = walk(tmp_path)
    assert listing.files == ["@name/2.jpg", "a/1.jpg"] and listing.leftovers == 7
    assert listing.left_out() == "hidden or left by a system: 7"
    assert walk(tmp_path / ".git").files == ["1.jpg"], "a hidden folder that is asked for"


def test_walk_says_other_files_by_suffix_and_count(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "HEIF", False)
    make(tmp_path, "1.jpg", "2.CR2", "3.cr2", "README", "4.heic")
    assert walk(tmp_path, {".jpg"}).left_out() == (
        "no images: 2 .cr2, 1 without suffix, 1 .heic (HEIC is read where the package pillow-heif is installed)"
    )


def test_walk_follows_links_and_cuts_loops(tmp_path):
    root = make(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    make(tmp_path / "elsewhere", "3.jpg")
    (root / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "4.jpg").symlink_to(root / "a" / "1.jpg")
    (root / "a" / "root").symlink_to(root)
    (root / "a" / "above").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "back").symlink_to(root / "b")
    (root / "a" / "self.jpg").symlink_to(root / "a" / "self.jpg")
    (root / "a" / "nothing.jpg").symlink_to(root / "absent.jpg")
    listing = walk(root)
    assert listing.files == ["a/1.jpg", "b/2.jpg", "b/4.jpg", "b/linked/3.jpg"]
    assert listing.loops == ["a/above", "a/root", "b/linked/back"]
    assert listing.special == ["a/nothing.jpg", "a/self.jpg"]
    assert "link to a folder around it: 3 (a/above)" in listing.left_out()


def test_walk_leaves_out_pipes_and_folders_named_like_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.png").mkdir()
    listing = walk(tmp_path)
    assert listing.files == [] and listing.left_out() == "no regular file: 1 (pipe.jpg)"


def test_walk_names_folders_that_may_not_be_read(tmp_path):
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "b").chmod(0)
    try:
        if os.access(tmp_path / "b", os.R_OK):
            pytest.skip("this user reads everything")
        assert walk(tmp_path).files == ["a/1.jpg"]
        assert walk(tmp_path).left_out() == "folder that may not be read: 1 (b)"
    finally:
        (tmp_path / "b").chmod(0o700)


def test_walk_names_folders_that_cannot_be_opened(tmp_path):
    """Here because their path is longer than the system takes: a folder above them was renamed."""
    root = tmp_path / "root"
    levels = (os.pathconf(tmp_path, "PC_PATH_MAX") - len(f"{root}/b//2.jpg") - 10) // 201
    make(root, "a/1.jpg", f"b/{'/'.join(['x' * 200] * levels)}/2.jpg")
    (root / "b").rename(root / ("b" * 250))
    try:
        listing = walk(root)
        assert listing.files == ["a/1.jpg"] and len(listing.closed) == 1
        assert listing.left_out().startswith(f"folder that may not be read: 1 ({'b' * 250}/x")
    finally:
        (root / ("b" * 250)).rename(root / "b")  # or nobody removes it


def test_heic_is_an_image_where_pillow_heif_is_installed(monkeypatch):
    registered: list[bool] = []
    package = ModuleType("pillow_heif")
    package.register_heif_opener = lambda: registered.append(True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    module = runpy.run_path(image_files.__file__)
    assert registered == [True] and "HEIF" in module["FORMATS"]
    assert all(module["is_image"](name) for name in ("1.heic", "1.HEIF", "1.hif", "1.jpg"))


def test_walk_of_no_folder_is_an_error(tmp_path):
    with pytest.raises(FaceattrError, match="absent: No such file"):
        walk(tmp_path / "absent")
