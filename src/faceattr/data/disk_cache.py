"""Arrays stored on disk: made once, read by later runs, never used half-written or damaged.

They lie in $FACEATTR_CACHE/kept (default ~/.cache/faceattr/kept); the least recently used ones are removed when all together pass
$FACEATTR_CACHE_GB (default 50). `faceattr cache` lists them, `faceattr cache clear` removes them.
"""

import json
import logging
import math
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from faceattr.data.array_file import RowArray, open_arrays
from faceattr.errors import FaceattrError
from faceattr.files import cache_folder, write_json

log = logging.getLogger(__name__)

CHUNK = 256
"""Rows that `is_damaged` reads at once."""


def folder() -> Path:
    """Where arrays are stored."""
    return cache_folder() / "kept"


class NoRoom(FaceattrError):
    """An array cannot be stored: it is larger than the room for it, or its folder cannot be written to."""


def get_or_create(
    name: str, shape: Sequence[int], dtype: Any, compute: Callable[[RowArray], dict[str, Any]], *, title: str
) -> tuple[RowArray, dict[str, Any]]:
    """The stored array `name` and its metadata. If it is not there, `compute` sets its rows and returns the metadata.

    The file gets its name only when complete. Of two processes that need the same array, one makes it and the other waits.
    `title` names the array in the log. Raises NoRoom.
    """
    file, limit = folder() / f"{name}.npy", _limit()
    entry = _open(file)
    if entry is not None:
        log.info("%s: found in %s", title, file)
        return entry
    lock = FileLock(file.with_suffix(".lock"))
    with _writing(file):
        _check_room(int(np.prod(shape)) * np.dtype(dtype).itemsize, title, limit)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("Waiting for another process that makes %s", file)
            lock.acquire()
    try:
        entry = _open(file)
        if entry is None:
            _make(file, shape, dtype, compute, limit)
            entry = _open(file)
            log.info("%s: stored in %s", title, file)
    finally:
        lock.release()
    assert entry is not None, f"{file} was changed while it was made"
    return entry


def is_damaged(file: Path) -> bool:
    """Whether any byte of a stored array is not as it was written. Reads the whole file."""
    entry = _open(file)
    if entry is None:
        return True
    try:
        for start in range(0, len(entry[0]), CHUNK):
            entry[0][np.arange(start, min(start + CHUNK, len(entry[0])))]
    except (OSError, FaceattrError):
        return True
    return False


def remove(file: Path) -> None:
    """Removes an array and its metadata."""
    with suppress(PermissionError):  # Windows removes no file that another process has open
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoRoom(f"Cannot write {file}: {error.strerror or error}. FACEATTR_CACHE names another folder.") from error


def _make(
    file: Path, shape: Sequence[int], dtype: Any, compute: Callable[[RowArray], dict[str, Any]], limit: int
) -> None:
    part = file.with_name(f"{file.stem}.{uuid.uuid4().hex[:8]}.part")
    try:
        with _writing(file):
            _remove_dead_parts(file)
            header = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=tuple(shape))
            _evict(header.nbytes, limit)
            del header
            rows = RowArray(part, writable=True)
        try:
            with _writing(file):
                if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not in the middle
                    with part.open("r+b") as stream:
                        os.posix_fallocate(stream.fileno(), 0, part.stat().st_size + rows.checksum_bytes)
            metadata = compute(rows)
            rows.seal()
        finally:
            rows.close()  # Windows renames and removes no open file
        with _writing(file):
            checked = zlib.crc32(json.dumps(metadata).encode())
            write_json(
                file.with_suffix(".json"), {"written": part.stat().st_mtime_ns, "crc": checked, "metadata": metadata}
            )
            part.replace(file)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _remove_dead_parts(file: Path) -> None:
    """Removes what processes left that were killed while they made an array: its lock is free. The lock of `file` is ours."""
    for part in file.parent.glob("*.part"):
        name = part.name.partition(".")[0]
        lock = FileLock(file.with_name(f"{name}.lock"))
        with suppress(Timeout):
            if name != file.stem:
                lock.acquire(timeout=0)
            part.unlink(missing_ok=True)
            lock.release()


def _open(file: Path) -> tuple[RowArray, dict[str, Any]] | None:
    """The array and its metadata; None where it is not there, not whole, or has changed since it was written."""
    try:
        stored = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        written, metadata = file.stat().st_mtime_ns, stored["metadata"]
        if stored["written"] != written or stored["crc"] != zlib.crc32(json.dumps(metadata).encode()):
            return None
        rows = RowArray(file)
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    with suppress(OSError):  # of another user, or read-only
        os.utime(file, ns=(time.time_ns(), written))  # the access time is that of the last use, for eviction
    return (rows, metadata) if rows.has_checksums else None


def _check_room(size: int, title: str, limit: int) -> None:
    """Raises NoRoom where `size` bytes exceed the free disk space less 1 GiB, or `limit` less the arrays in use here."""
    existing = folder()
    while not existing.exists():
        existing = existing.parent
    room = min(shutil.disk_usage(existing).free - 2**30, limit - sum(_used().values()))
    if size > room:
        raise NoRoom(
            f"{title}: {size / 1e9:.2f} GB, and {folder()} has room for {max(0, room) / 1e9:.2f} (free disk space less "
            "1 GiB, at most FACEATTR_CACHE_GB, less what is in use). FACEATTR_CACHE names another folder."
        )


def _used() -> dict[Path, int]:
    """Size of each array in the folder that this process has open."""
    return {rows.file: rows.nbytes for rows in open_arrays if rows.file.parent == folder()}


def _limit() -> int:
    """Bytes that all arrays may take."""
    text = os.environ.get("FACEATTR_CACHE_GB", "50")
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise FaceattrError(f"FACEATTR_CACHE_GB={text}: must be a number of gigabytes from 0 on, such as 50.")
    return int(gigabytes * 1e9)


def _evict(coming: int, limit: int) -> None:
    """Remove the least recently used arrays until `coming` bytes fit under the limit; those in use here stay."""
    files = []
    for file in folder().glob("*.npy"):
        with suppress(FileNotFoundError):  # another process has just removed it
            files.append((file.stat().st_atime_ns, file.stat().st_size, file))
    total = coming + sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total <= limit:
            return
        if file in _used():
            continue
        total -= size
        remove(file)
        log.info("Removed %s, the least recently used array (limit %.0f GB)", file, limit / 1e9)
