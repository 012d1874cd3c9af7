"""Arrays kept on disk: made once, found again by later runs, never used half-written.

They lie in $FACEATTR_CACHE (default ~/.cache/faceattr), `kept/`; the least recently used ones go when it passes
$FACEATTR_CACHE_GB (default 50). `faceattr cache` lists them, `faceattr cache clear` removes them.
"""

import json
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)


_in_use: "weakref.WeakSet[RowArray]" = weakref.WeakSet()


class RowArray:
    """An array [N, …] in a .npy file, read and written by row.

    Not memory-mapped: what was read of a mapped file counts as memory of the process, and a full disk would kill it.
    The file stays readable here when another process removes it. Raises ValueError or OSError: not a whole array.
    """

    def __init__(self, file: Path, *, writable: bool = False) -> None:
        header = np.load(file, mmap_mode="r")
        self.file, self.shape, self.dtype = Path(file), header.shape, header.dtype
        self.nbytes, self._offset, self._size = header.nbytes, header.offset, header.nbytes // max(1, len(header))
        del header  # Windows renames and removes no file that is mapped
        flags = os.O_RDWR if writable else os.O_RDONLY
        self._descriptor: int | None = os.open(file, flags | getattr(os, "O_BINARY", 0))
        self._position = threading.Lock()
        _in_use.add(self)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        self.read(rows, found)
        return found

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out`, contiguous, with these rows."""
        for place, row in zip(out, rows.tolist(), strict=True):
            if self._read_into(place, self._offset + row * self._size) != self._size:
                raise FaceattrError(f"{self.file} has been cut short. Remove it, or: faceattr cache clear")

    def __setitem__(self, row: int, values: np.ndarray) -> None:
        data, offset = np.ascontiguousarray(values, self.dtype).data, self._offset + row * self._size
        if hasattr(os, "pwrite"):
            os.pwrite(self._file_descriptor, data, offset)
            return
        with self._position:  # Windows: one position in the file for all threads
            os.lseek(self._file_descriptor, offset, os.SEEK_SET)
            os.write(self._file_descriptor, data)

    def _read_into(self, place: np.ndarray, offset: int) -> int:
        """Bytes read into `place`."""
        if hasattr(os, "preadv"):
            return os.preadv(self._file_descriptor, [place.data], offset)
        with self._position:
            os.lseek(self._file_descriptor, offset, os.SEEK_SET)
            data = os.read(self._file_descriptor, self._size)
        if len(data) == self._size:
            place[...] = np.frombuffer(data, self.dtype).reshape(place.shape)
        return len(data)

    @property
    def _file_descriptor(self) -> int:
        assert self._descriptor is not None, f"{self.file} is closed"
        return self._descriptor

    def flush(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._file_descriptor)

    def close(self) -> None:
        """Nothing can be read or written any more."""
        if (descriptor := getattr(self, "_descriptor", None)) is not None:
            self._descriptor = None
            os.close(descriptor)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return RowArray, (self.file,)

    def __del__(self) -> None:
        self.close()


def folder() -> Path:
    """Where arrays are kept."""
    return Path(os.environ.get("FACEATTR_CACHE") or Path.home() / ".cache" / "faceattr") / "kept"


class NoRoom(FaceattrError):
    """An array is larger than what may be kept."""


def get_or_create(
    name: str, shape: Sequence[int], dtype: Any, compute: Callable[[RowArray], dict[str, Any]], *, what: str
) -> tuple[RowArray, dict[str, Any]]:
    """The array `name`, found or else made by `compute`, which sets the rows and returns what to remember beside them.

    The file gets its name only when complete; of two processes that want the same array one makes it and one waits.
    `what` says in the log what it is. Raises NoRoom before anything is made, and a FaceattrError when the disk is full.
    """
    file = folder() / f"{name}.npy"
    found = _open(file)
    if found is not None:
        log.info("%s: found in %s", what, file)
        return found
    size, room = int(np.prod(shape)) * np.dtype(dtype).itemsize, _room()
    if size > room:
        raise NoRoom(
            f"{what}: {size / 1e9:.2f} GB, and {folder()} has room for {max(0, room) / 1e9:.2f} (free disk space less "
            "1 GiB, at most FACEATTR_CACHE_GB, less what is in use). FACEATTR_CACHE names another folder."
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("Waiting for another process that makes %s", file)
            lock.acquire()
        try:
            found = _open(file)
            if found is None:
                _make(file, shape, dtype, compute)
                found = _open(file)
                log.info("%s: kept in %s", what, file)
        finally:
            lock.release()
    except OSError as error:
        raise FaceattrError(f"Cannot write {file}: {error}. FACEATTR_CACHE names another folder.") from error
    assert found is not None, f"{file} was changed while it was made"
    return found


def _make(file: Path, shape: Sequence[int], dtype: Any, compute: Callable[[RowArray], dict[str, Any]]) -> None:
    part = file.with_suffix(".part")  # the lock is ours: a part that is there was left by a process that died
    try:
        header = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=tuple(shape))
        _evict(header.nbytes)
        del header
        if hasattr(os, "posix_fallocate"):  # a full disk is told now, not in the middle
            with part.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, part.stat().st_size)
        rows = RowArray(part, writable=True)
        try:
            about = compute(rows)
            rows.flush()
        finally:
            rows.close()  # Windows renames and removes no open file
        about = {**about, "written": part.stat().st_mtime_ns}
        file.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _open(file: Path) -> tuple[RowArray, dict[str, Any]] | None:
    """None where it is not there, not whole, or has changed since it was written."""
    try:
        about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        written = file.stat().st_mtime_ns
        if about["written"] != written:
            return None
        rows = RowArray(file)
        os.utime(file, ns=(time.time_ns(), written))  # the access time is that of the last use, for eviction
    except (OSError, ValueError, EOFError, KeyError):
        return None
    return rows, about


def _room() -> int:
    """Bytes that may be kept beside what this process uses: of the disk less 1 GiB, and of $FACEATTR_CACHE_GB."""
    place = folder()
    while not place.exists():
        place = place.parent
    return min(shutil.disk_usage(place).free - 2**30, _limit() - sum(_used().values()))


def _used() -> dict[Path, int]:
    """Size of each array in the folder that this process has open."""
    return {rows.file: rows.nbytes for rows in _in_use if rows.file.parent == folder()}


def _limit() -> int:
    given = os.environ.get("FACEATTR_CACHE_GB", "50")
    try:
        return int(float(given) * 1e9)
    except ValueError:
        raise FaceattrError(f"FACEATTR_CACHE_GB={given}: a number of gigabytes, such as 50.") from None


def _evict(coming: int) -> None:
    """Remove the least recently used arrays until `coming` bytes fit under the limit; those in use here stay."""
    found = []
    for file in folder().glob("*.npy"):
        with suppress(FileNotFoundError):  # another process has just removed it
            found.append((file.stat().st_atime_ns, file.stat().st_size, file))
    total = coming + sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= _limit():
            return
        if file in _used():
            continue
        total -= size
        _remove(file)
        log.info("Removed %s, the least recently used array (limit %.0f GB)", file, _limit() / 1e9)


def _remove(file: Path) -> None:
    with suppress(PermissionError):  # Windows removes no file that another process has open
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)
