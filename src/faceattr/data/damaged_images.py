"""Checks that Pillow does not make: the checksums of a PNG, the end of a JPEG."""

import io
import os
import re
import stat
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from faceattr.data.file_kinds import PathOrContent, open_file

LARGEST_FILE = 600_000_000
"""Bytes. 64 million pixels of 16-bit colour and transparency, uncompressed, have fewer."""


def reason_not_opened(path: str | os.PathLike[str]) -> str | None:
    """Why `path` is not opened: a folder; a pipe or a device, which may never end; too large. None if all is well.

    Raises OSError: no such file.
    """
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        return "a directory, not a file" if stat.S_ISDIR(status.st_mode) else "a pipe or a device, not a file"
    return f"{status.st_size:,} bytes; the limit is {LARGEST_FILE:,}" if status.st_size > LARGEST_FILE else None


def check_png(file: PathOrContent) -> None:
    """Raises SyntaxError or OSError if a chunk does not have its checksum, or the end is missing."""
    with open_file(file) as stream, Image.open(stream, formats=("PNG",)) as image:
        image.verify()


class Scan(NamedTuple):
    """A scan of a JPEG: its components, the first and last coefficient that it gives, and their lowest bit."""

    components: tuple[int, ...]
    first: int
    last: int
    low_bit: int


class JpegLayout(NamedTuple):
    """The frame's marker and components, the scans, the offset where the last one's data end, and whether an end marker follows."""

    frame: int
    components: tuple[int, ...]
    scans: list[Scan]
    data_end: int
    ended: bool


HUFFMAN_CODED = (0xC0, 0xC1, 0xC2)
"""Markers of the frames that are checked; other frames are arithmetic-coded or lossless."""
FRAMES, SCAN, END = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}, 0xDA, 0xD9
MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
PAD = bytes(range(1, 250, 3))
"""Arbitrary data without 0xFF, to stand for missing data."""


def jpeg_is_cut(file: PathOrContent, pixels: Image.Image) -> bool:
    """Whether the data of a JPEG end before its picture does, although an end marker or enough bytes follow.

    libjpeg then leaves the rest of the picture grey, with a warning that Pillow does not show. `pixels` is what Pillow
    decoded. A file is cut if no scan gives some coefficient, or if the picture changes when other bytes follow its data:
    a whole picture does not depend on them. This second decoding is done only where the last pixel has the grey of a
    missing block, where the file has no end marker, or where it has several scans.
    """
    with open_file(file) as stream:
        raw = stream.read()
    one_scan = raw.count(b"\xff\xda") == 1 and "progressive" not in pixels.info
    if one_scan and raw.endswith(b"\xff\xd9") and not _last_pixel_is_grey(pixels):
        return False
    layout = _jpeg_layout(raw)
    if layout.frame not in HUFFMAN_CODED:
        return False
    if not _complete(layout):
        return True
    if len(layout.scans) == 1 and layout.ended and not _last_pixel_is_grey(pixels):
        return False
    extended = raw[: layout.data_end] + PAD + b"\xff\xd9"
    try:
        with Image.open(io.BytesIO(extended), formats=("JPEG",)) as other:
            return not np.array_equal(np.asarray(pixels), np.asarray(other))
    except OSError:
        return True


def _jpeg_layout(raw: bytes) -> JpegLayout:
    """The layout of the first picture in the file; phones put others behind it."""
    frame, components, scans = 0, b"", []
    position, data_end = 2, None
    while match := MARKER.search(raw, position):
        marker, position = raw[match.end() - 1], match.end()
        data_end = match.start() if data_end is None else data_end
        if marker == END:
            break
        body = raw[position + 2 : position + int.from_bytes(raw[position : position + 2])]
        position += 2 + len(body)
        if marker in FRAMES:
            frame, components = marker, body[6::3]
        elif marker == SCAN:
            n, (first, last, bits) = body[0], body[-3:]
            scans.append(Scan(tuple(body[1 : 1 + 2 * n : 2]), first, last, bits & 15))
            data_end = None
    return JpegLayout(frame, tuple(components), scans, data_end or len(raw), match is not None)


def _complete(layout: JpegLayout) -> bool:
    """Whether the scans give each of the 64 coefficients of each component to its last bit."""
    coefficients: dict[int, set[int]] = defaultdict(set)
    for scan in layout.scans:
        if scan.low_bit == 0:
            for component in scan.components:
                coefficients[component] |= set(range(scan.first, scan.last + 1))
    return bool(layout.components) and all(
        len(coefficients[component] & set(range(64))) == 64 for component in layout.components
    )


def _last_pixel_is_grey(pixels: Image.Image) -> bool:
    """Whether the last pixel has a brightness of about 128, as libjpeg fills missing blocks. CMYK, which is not checked: True."""
    if pixels.mode not in ("L", "RGB"):
        return True
    last: Any = pixels.getpixel((pixels.width - 1, pixels.height - 1))
    luma = last if pixels.mode == "L" else 0.299 * last[0] + 0.587 * last[1] + 0.114 * last[2]
    return abs(luma - 128) <= 2
