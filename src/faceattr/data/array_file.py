"""An array in a file, read and written by row. Each row has a checksum: bytes that changed since are noticed."""

import os
import threading
import weakref
import zlib
from pathlib import Path

import numpy as np

from faceattr.config.command_to_paste import command_to_paste
from faceattr.errors import FaceattrError

CHECKSUM = np.dtype("<u4")
"""CRC-32 of a row. The checksums of all rows lie behind the data of the .npy file, which other readers ignore."""

open_arrays: "weakref.WeakSet[RowArray]" = weakref.WeakSet()


class RowArray:
    """An array [N, …] in a .npy file, read and written by row.

    Not memory-mapped: pages read from a mapped file count as memory of the process, and writing to a full disk would kill it.
    The file stays readable when another process removes it. Each row is compared with its checksum when it is read for the
    first time; a plain .npy file has no checksums. Raises ValueError or OSError: not a whole array.
    """

    def __init__(self, file: Path, *, writable: bool = False) -> None:
        header = np.load(file, mmap_mode="r")
        self.file, self.shape, self.dtype = Path(file), header.shape, header.dtype
        self.nbytes, self._offset, self._size = header.nbytes, header.offset, header.nbytes // max(1, len(header))
        del header  # Windows renames and removes no file that is mapped
        flags = os.O_RDWR if writable else os.O_RDONLY
        self._descriptor: int | None = os.open(file, flags | getattr(os, "O_BINARY", 0))
        self._position = threading.Lock()
        self._checksums = self._zero_checksums() if writable else self._stored_checksums()
        self._checked = np.full(len(self), self._checksums is None)
        open_arrays.add(self)

    def _zero_checksums(self) -> np.ndarray:
        """The checksums of rows that nothing was written to."""
        return np.full(len(self), zlib.crc32(bytes(self._size)), CHECKSUM)

    def _stored_checksums(self) -> np.ndarray | None:
        stored = os.fstat(self._file_descriptor).st_size - self._offset - self.nbytes
        if stored == 0:
            return None
        if stored != self.checksum_bytes:
            raise ValueError(f"{self.file}: its checksums are not whole")
        checksums = np.empty(len(self), CHECKSUM)
        self._read_into(checksums, self._offset + self.nbytes)
        return checksums

    @property
    def has_checksums(self) -> bool:
        return self._checksums is not None

    @property
    def checksum_bytes(self) -> int:
        """Size of the checksums behind the data."""
        return len(self) * CHECKSUM.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        self.read(rows, values)
        return values

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out`, contiguous, with these rows. Raises FaceattrError where the file is no longer as it was written."""
        for buffer, row in zip(out, rows.tolist(), strict=True):
            if self._read_into(buffer, self._offset + row * self._size) != self._size:
                raise FaceattrError(f"{self.file} has been cut short. {_advice()}")
            if not self._checked[row]:
                assert self._checksums is not None
                if zlib.crc32(buffer.data) != self._checksums[row]:
                    raise FaceattrError(f"{self.file} is damaged: row {row} is not as it was written. {_advice()}")
                self._checked[row] = True

    def __setitem__(self, row: int, values: np.ndarray) -> None:
        data = np.ascontiguousarray(values, self.dtype)
        assert self._checksums is not None, f"{self.file} is open for reading"
        self._checksums[row] = zlib.crc32(data.data)
        self._write(data, self._offset + row * self._size)

    def seal(self) -> None:
        """Write the checksums, and wait until everything is on the disk."""
        assert self._checksums is not None
        self._write(self._checksums, self._offset + self.nbytes)
        os.fsync(self._file_descriptor)

    def _write(self, values: np.ndarray, offset: int) -> None:
        try:
            if hasattr(os, "pwrite"):
                os.pwrite(self._file_descriptor, values.data, offset)
                return
            with self._position:  # Windows: one position in the file for all threads
                os.lseek(self._file_descriptor, offset, os.SEEK_SET)
                os.write(self._file_descriptor, values.data)
        except OSError as error:
            raise FaceattrError(f"Cannot write {self.file}: {error.strerror}.") from error

    def _read_into(self, buffer: np.ndarray, offset: int) -> int:
        """Bytes read into `buffer`."""
        if hasattr(os, "preadv"):
            return os.preadv(self._file_descriptor, [buffer.data], offset)
        with self._position:
            os.lseek(self._file_descriptor, offset, os.SEEK_SET)
            data = os.read(self._file_descriptor, buffer.nbytes)
        if len(data) == buffer.nbytes:
            buffer[...] = np.frombuffer(data, buffer.dtype).reshape(buffer.shape)
        return len(data)

    @property
    def _file_descriptor(self) -> int:
        assert self._descriptor is not None, f"{self.file} is closed"
        return self._descriptor

    def close(self) -> None:
        if (descriptor := getattr(self, "_descriptor", None)) is not None:
            self._descriptor = None
            os.close(descriptor)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return RowArray, (self.file,)

    def __del__(self) -> None:
        self.close()


def _advice() -> str:
    return f"{command_to_paste('cache', 'verify')} removes damaged files."
