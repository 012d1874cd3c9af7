"""Which files are images, and how a folder is searched for them: the one walk that training and prediction share.

Links are followed. Hidden files and folders, and what systems leave behind, are skipped at any depth. Nothing is left out
silently: `Listing.left_out` says what was, by suffix and count.
"""

import logging
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from PIL import features

from faceattr.errors import FaceattrError
from faceattr.message_text import listed

log = logging.getLogger(__name__)

try:
    from pillow_heif import register_heif_opener
except ImportError:
    HEIF = False
else:
    register_heif_opener()
    HEIF = True

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "WEBP": (".webp",) if features.check("webp") else (),
    "AVIF": (".avif",) if features.check("avif") else (),
    "HEIF": (".heic", ".heif", ".hif") if HEIF else (),
}
"""Pillow's name of each format that is read, and the suffixes of its files; none where this Pillow cannot decode it. Formats
that only viewers, printers and games use are not read: their decoders see few photographs and many attacks."""
FORMATS = tuple(name for name, suffixes in SUFFIXES.items() if suffixes)
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

LEFTOVERS = frozenset(
    {"__macosx", "__pycache__", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found"}
    | {"@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}  # of NAS systems
)
"""Names, in lower case, of what archives and systems leave in folders. Hidden ones begin with a dot and need no entry."""


def suffix_of(name: str) -> str:
    """In lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (200,000 Path objects are slow)


def is_image(name: str) -> bool:
    """Whether the name has the suffix of an image file."""
    return suffix_of(name) in IMAGE_SUFFIXES


@dataclass
class Listing:
    """What a folder holds: `files`, sorted paths relative to it with `/`, and counts of what was left out."""

    files: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    """Counts of the files that are no images."""
    leftovers: int = 0
    """Hidden files and folders, and those of systems; a folder counts as one."""
    special: list[str] = field(default_factory=list)
    """Pipes, devices, sockets, and links to nothing."""
    loops: list[str] = field(default_factory=list)
    """Links to a folder that contains them."""
    closed: list[str] = field(default_factory=list)
    """Folders that may not be read."""

    def left_out(self) -> str:
        """What was left out, in words; "" where nothing was."""
        by_count = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
        others = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in by_count]
        parts = [f"no images: {listed(others)}"] if others else []
        if not HEIF and any(suffix in self.suffixes for suffix in (".heic", ".heif", ".hif")):
            parts[0] += " (HEIC is read where the package pillow-heif is installed)"
        parts += [f"hidden or left by a system: {self.leftovers:,}"] if self.leftovers else []
        for kind, paths in (
            ("no regular file", self.special),
            ("link to a folder around it", self.loops),
            ("folder that may not be read", self.closed),
        ):
            parts += [f"{kind}: {len(paths):,} ({paths[0]})"] if paths else []
        return "; ".join(parts)


def walk(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> Listing:
    """The files with these suffixes at any depth below `folder`. Raises FaceattrError: the folder itself may not be read."""
    listing, real = Listing(), os.path.realpath(folder)
    todo: list[tuple[str, str, tuple[str, ...]]] = [("", real, (real,))]
    while todo:
        inside, real, around = todo.pop()
        try:
            with os.scandir(folder / inside) as scan:
                entries = list(scan)
        except OSError as error:
            if not inside:
                raise FaceattrError(f"{folder}: {error.strerror}.") from error
            listing.closed.append(inside)
            continue
        for entry in entries:
            path, kind = f"{inside}/{entry.name}" if inside else entry.name, _kind(entry)
            if is_leftover(entry.name):
                listing.leftovers += 1
            elif kind == "folder":
                target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)  # noqa: PTH118
                if any(_contains(target, parent) for parent in around):
                    listing.loops.append(path)
                else:
                    todo.append((path, target, (*around, target)))
            elif kind != "file":
                listing.special.append(path)
            elif suffix_of(entry.name) in suffixes:
                listing.files.append(path)
            else:
                listing.suffixes[suffix_of(entry.name)] += 1
    for paths in (listing.files, listing.special, listing.loops, listing.closed):
        paths.sort()
    return listing


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder` or `file`, links followed, or `other`."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:  # a link that leads to itself, or to where one may not look
        return "other"


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left by a system."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def _contains(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or lies below it; both are real paths."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
