"""Files that are no images are called by their name."""

import zipfile
from pathlib import Path

import pytest

from faceattr.data.file_kinds import describe_other_file


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", "empty"),
        (b"%PDF-1.7", "a PDF document"),
        (b"%!PS-Adobe", "PostScript"),
        (b"\0\0\0\x18ftypheic\0\0", "a HEIC photo; with the package pillow-heif"),
        (b"\0\0\0\x18ftypcrx \0\0", "a raw photo of a camera"),
        (bytes(128) + b"DICM", "a DICOM image"),
        (b"\0\0\0\x18ftypisom\0\0", "a video or audio file"),
        (b"RIFF\0\0\0\0AVI ", "a video or audio file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns=", "an SVG or XML file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"PK\x03\x04 and no more", "a damaged ZIP archive"),
    ],
)
def test_describe_other_file_names_what_it_is(tmp_path, start, kind):
    assert f"it is {kind}" in describe_other_file(write(tmp_path / "x.jpg", start))


def test_describe_other_file_looks_into_archives(tmp_path):
    for inside, kind in (("xl/workbook.xml", "an Excel workbook"), ("1.jpg", "a ZIP archive")):
        with zipfile.ZipFile(tmp_path / "x.png", "w") as archive:
            archive.writestr(inside, "x")
        assert describe_other_file(tmp_path / "x.png") == f"not an image file: it is {kind}"
    assert describe_other_file(write(tmp_path / "x.png", b"path,label\n")) == "not an image file: it is text"
    assert describe_other_file(write(tmp_path / "x.png", b"path\tlabel\r\n")) == "not an image file: it is text"
    assert describe_other_file(write(tmp_path / "x.png", b"\1\2\3\n")) == "not an image file"
