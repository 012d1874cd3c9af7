"""Packed pixels: every image decoded and resized once, kept as one memory-mapped uint8 array that later runs find again.

The cache lies in $FACEATTR_CACHE (default ~/.cache/faceattr), `packs/`; the least recently used packs go when it passes
$FACEATTR_CACHE_GB (default 50). `python -m faceattr.pack` lists it, `python -m faceattr.pack clear` empties it.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from faceattr.errors import FaceattrError
from faceattr.images import InputSpec, read_many

log = logging.getLogger(__name__)

FORMAT = 1


def cache_folder() -> Path:
    """Where packs are kept."""
    return Path(os.environ.get("FACEATTR_CACHE") or Path.home() / ".cache" / "faceattr") / "packs"


def pack(
    paths: list[str], spec: InputSpec, *, mode: str, workers: int | None
) -> tuple[np.ndarray | None, dict[int, str]]:
    """Pixels of all `paths`, uint8 [N, height, width, 3], and why which rows are unreadable (those stay zero).

    `mode`: `disk` memory-maps a cached file, `ram` decodes into memory, `off` only checks (None is returned: decode later),
    `auto` is `disk` where there is room for it, else `off`. What was decided is logged.
    """
    size = len(paths) * spec.height * spec.width * 3
    if mode in ("auto", "disk"):
        key = _key(paths, spec)
        found = _open(key)
        if found is not None:
            return found
        room = _free(cache_folder()) - size
        if room > 2**30:
            return _write(key, paths, spec, workers)
        need = f"packing the pixels takes {size / 2**30:.1f} GiB and {cache_folder()} has too little room"
        if mode == "disk":
            raise FaceattrError(f"data.pack=disk: {need}.\nSet FACEATTR_CACHE to another disk, or data.pack=off.")
        log.warning("data.pack=auto: %s; images are decoded in every epoch", need)
    if mode == "ram":
        pixels = np.zeros((len(paths), spec.height, spec.width, 3), np.uint8)
        return pixels, read_many(paths, spec, pixels, workers=workers, label="Decoding")
    return None, read_many(paths, spec, None, workers=workers, label="Checking images")


def _key(paths: list[str], spec: InputSpec) -> str:
    """Changes with the input spec, the order of the images, and the size or date of any file."""
    digest = hashlib.sha256(json.dumps([FORMAT, spec.height, spec.width, spec.interpolation]).encode())
    for path in paths:
        stat = Path(path).stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def _open(key: str) -> tuple[np.ndarray, dict[int, str]] | None:
    file = cache_folder() / f"{key}.npy"
    try:
        pixels = np.load(file, mmap_mode="r")
        about = json.loads(file.with_suffix(".json").read_text())
    except (OSError, ValueError, EOFError):
        return None
    os.utime(file)  # the date of use, for eviction
    log.info("Pixels: %s images found packed in %s", len(pixels), file)
    return pixels, {int(row): reason for row, reason in about["bad"].items()}


def _write(key: str, paths: list[str], spec: InputSpec, workers: int | None) -> tuple[np.ndarray, dict[int, str]]:
    """Both files get their name only when complete, so an interrupted pack is never used; a parallel one merely loses."""
    folder = cache_folder()
    file = folder / f"{key}.npy"
    shape = (len(paths), spec.height, spec.width, 3)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _evict(int(np.prod(shape)))
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{key}.") as work:
            part = Path(work) / "part.npy"
            pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            _reserve(part)
            bad = read_many(paths, spec, pixels, workers=workers, label="Packing")
            pixels.flush()
            about = {"images": len(paths), "spec": asdict(spec), "bad": bad}
            (Path(work) / "part.json").write_text(json.dumps(about))
            (Path(work) / "part.json").replace(file.with_suffix(".json"))
            part.replace(file)
    except OSError as error:
        raise FaceattrError(f"Cannot write the packed pixels to {folder}: {error}. Try data.pack=off.") from error
    log.info("Pixels: %s images packed into %s", len(paths), file)
    return np.load(file, mmap_mode="r"), bad


def _reserve(file: Path) -> None:
    """Take the disk blocks now: writing a sparse map to a full disk later would kill the process with SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _evict(coming: int) -> None:
    """Remove the least recently used packs until `coming` bytes fit under the limit."""
    given = os.environ.get("FACEATTR_CACHE_GB", "50")
    try:
        limit = float(given) * 1e9
    except ValueError:
        raise FaceattrError(f"FACEATTR_CACHE_GB={given}: a number of gigabytes, such as 50.") from None
    found = []
    for file in cache_folder().glob("*.npy"):
        with suppress(FileNotFoundError):  # another process has just removed it
            found.append((file.stat().st_mtime, file.stat().st_size, file))
    total = coming + sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= limit:
            return
        total -= size
        _remove(file)
        log.info("Packed pixels: removed %s, the least recently used (limit %.0f GB)", file.name, limit / 1e9)


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.with_suffix(".json").unlink(missing_ok=True)


def _main(arguments: list[str]) -> None:
    packs = sorted(cache_folder().glob("*.npy"))
    if arguments not in ([], ["clear"]):
        sys.exit("usage: python -m faceattr.pack [clear]")
    for file in packs:
        images = len(np.load(file, mmap_mode="r"))
        print(f"{file.name}  {file.stat().st_size / 1e6:8.1f} MB  {images} images")
        if arguments:
            _remove(file)
    if arguments:  # and what packs that were killed have left
        for folder in cache_folder().glob("*.*/"):
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(packs)} packs in {cache_folder()}{', all removed' if arguments else ''}")


if __name__ == "__main__":
    _main(sys.argv[1:])
