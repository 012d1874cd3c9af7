"""What a file is, by its first bytes: for messages about one that is no image, no table or no checkpoint."""

import io
import os
import re
import zipfile
from typing import BinaryIO

EXCEL, PARQUET = "an Excel workbook", "a Parquet table"
SIGNATURES = (
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"%PDF", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"\x1f\x8b|\x1f\x9d|BZh|\xfd7zXZ\0|7z\xbc\xaf\x27\x1c|Rar!|\x28\xb5\x2f\xfd", "a compressed archive"),
    (rb".{257}ustar", "a tar archive"),
    (rb"FUJIFILMCCD-RAW|II\x1a\0\0\0HEAPCCDR|.{4}ftypcrx ", "a raw photo of a camera"),
    (rb".{4}ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", "a HEIC photo"),
    (rb".{4}ftyp(avif|avis)", "an AVIF image, which this Pillow cannot read"),
    (rb".{4}ftyp", "a video or audio file (MP4, MOV or alike)"),
    (rb"RIFF.{4}(AVI |WAVE)|\x1aE\xdf\xa3|\0\0\x01\xba|OggS|ID3", "a video or audio file"),
    (rb"\xd0\xcf\x11\xe0", "an old Office document"),
    (rb"8BPS", "a Photoshop file"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (rb"\s*<(!doctype html|html)", "a web page"),
    (rb"\s*<(\?xml|svg)", "an SVG or XML file"),
    (rb"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` gets the image"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x80[\2-\5]", "a Python pickle"),
    (rb".{128}DICM", "a DICOM image"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image"),
    (rb"\0\0\x01\0", "an icon"),
    (rb"FWS|CWS|ZWS", "a Flash file"),
    (rb"PAR1", PARQUET),
    (rb"ARROW1|FEA1", "an Arrow or Feather table"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"MATLAB ", "a MATLAB file"),
    (rb"SQLite format 3", "an SQLite database"),
)
"""How files begin that are mistaken for images, tables or checkpoints, and what they are."""
PathOrContent = str | os.PathLike[str] | bytes
"""The path of a file, or its content."""


def open_file(file: PathOrContent) -> BinaryIO:
    """A stream of the file's bytes."""
    return io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb")  # noqa: PTH123 (also takes what is only path-like)


def describe_other_file(file: PathOrContent) -> str:
    """`not an image file`, with what the file is instead where its first bytes say so."""
    kind = kind_of_file(file)
    if kind == "a HEIC photo":
        kind += "; with the package pillow-heif it can be read: pip install pillow-heif"
    if not kind:
        with open_file(file) as stream:
            start = stream.read(40)
        kind = "text" if re.fullmatch(rb"[\t\r\n -~]*", start) else ""
    return f"not an image file: it is {kind}" if kind else "not an image file"


def kind_of_file(file: PathOrContent) -> str:
    """What kind of file this is, by its first bytes; "" if they do not say it. For files that are neither an image nor a table."""
    with open_file(file) as stream:
        start = stream.read(512)
    if not start:
        return "empty"
    kind = next((name for pattern, name in SIGNATURES if re.match(pattern, start, re.DOTALL | re.IGNORECASE)), "")
    return _describe_zip(file) if kind == "a ZIP archive" else kind


def _describe_zip(file: PathOrContent) -> str:
    try:
        with open_file(file) as stream, zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a damaged ZIP archive"
    office = {"xl/": EXCEL, "word/": "a Word document", "ppt/": "a PowerPoint file"}
    return next((kind for folder, kind in office.items() if any(n.startswith(folder) for n in names)), "a ZIP archive")
