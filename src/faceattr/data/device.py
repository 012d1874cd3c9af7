"""Batches for a CUDA device: gathered there where all images fit (`data.pack=device`), else read ahead and copied while it works.

The images, their order and their targets are those of the ordinary loader on a CPU.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faceattr.data.array_cache import RowArray
from faceattr.data.batches import Batch, ImageSet, Rows, as_numpy, from_numpy
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)

SHARE = 0.5
"""Of the device's free memory, what one array may take at most; the rest is for the network and its activations."""
BLOCK = 256 * 2**20


def place(array: RowArray | np.ndarray, device: torch.device, *, mode: str, what: str) -> tuple[Rows, str]:
    """`array` on the device where it may go there, else as it is; and a sentence that says which, and why.

    `mode` is `data.pack`: `device` insists (FaceattrError where there is no room), `auto` takes it where `SHARE` allows.
    """
    size, free = array.nbytes, free_memory(device)
    sizes = f"{size / 1e9:.2f} GB of {free / 1e9:.1f} free"
    if mode not in ("auto", "device"):
        return array, f"host memory (data.pack={mode})"
    if size > (free if mode == "device" else SHARE * free):
        if mode == "device":
            raise FaceattrError(f"data.pack=device: {what} need {sizes} on {device}. Use data.pack=auto.")
        return array, f"host memory ({sizes} on {device}; at most {SHARE:.0%} are taken)"
    return _upload(array, device), f"{device} ({sizes})"


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated; PyTorch's own unused blocks count as free."""
    if device.type != "cuda":
        return 2**63 - 1
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _upload(array: RowArray | np.ndarray, device: torch.device) -> Tensor:
    first = from_numpy(np.empty(0, array.dtype))
    uploaded = torch.empty(array.shape, dtype=first.dtype, device=device)
    step = max(1, BLOCK // max(1, array.nbytes // max(1, len(array))))
    for start in range(0, len(array), step):
        rows = np.arange(start, min(start + step, len(array)))
        uploaded[start : start + len(rows)] = from_numpy(array[rows])
    return uploaded


class DeviceBatches:
    """Batches of images that lie on the device: the order goes there once an epoch, and a batch is one gather.

    `sampler` gives positions in `images`, anew for each iteration; `drop_last` leaves out a smaller last batch.
    """

    def __init__(self, images: ImageSet, sampler: Iterable[int], batch_size: int, drop_last: bool = False) -> None:
        self.images, self.sampler, self.batch_size, self.drop_last = images, sampler, batch_size, drop_last

    def __len__(self) -> int:
        size = len(self.sampler)  # type: ignore[arg-type]
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        images = self.images
        assert isinstance(images.inputs, Tensor)
        table_rows = images.rows[np.fromiter(self.sampler, int)]
        parts = (images.at(table_rows), images.targets[table_rows], table_rows)
        at, targets, rows = (torch.from_numpy(part).to(images.inputs.device) for part in parts)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield images.batch(images.inputs.index_select(0, at[batch]), targets[batch], rows[batch])


class ReadAhead(DeviceBatches):
    """Batches of images in host memory: a thread gathers them into pinned memory and copies them on a stream of its own, two
    batches ahead of the step."""

    DEPTH = 2

    def __init__(self, device: torch.device, *arguments: Any, **keys: Any) -> None:
        super().__init__(*arguments, **keys)
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        positions = np.fromiter(self.sampler, int)
        starts = deque(range(0, len(self) * self.batch_size, self.batch_size))
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        pending: deque[Future[tuple[Batch, Any]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
            while starts or pending:
                while starts and len(pending) <= self.DEPTH:
                    start = starts.popleft()
                    pending.append(reader.submit(self._read, positions[start : start + self.batch_size], stream))
                batch, copied = pending.popleft().result()
                if copied is not None:
                    current = torch.cuda.current_stream(self.device)
                    current.wait_event(copied)
                    for tensor in batch[:3]:
                        tensor.record_stream(current)
                yield batch

    def _read(self, positions: np.ndarray, stream: Any) -> tuple[Batch, Any]:
        """One batch on the device, and the event after which it is whole."""
        images, rows = self.images, self.images.rows[positions]
        assert images.inputs is not None and not isinstance(images.inputs, Tensor)
        inputs = gather(images.inputs, images.at(rows), pinned=stream is not None)
        host = (inputs, torch.from_numpy(images.targets[rows]), torch.from_numpy(rows))
        if stream is None:
            return images.batch(*host), None
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            moved = [tensor.to(self.device, non_blocking=True) for tensor in host]
            return images.batch(*moved), stream.record_event()


def gather(array: RowArray | np.ndarray, at: np.ndarray, *, pinned: bool) -> Tensor:
    """`array[at]`; `pinned`: read straight into memory from which a device copies by itself."""
    if not pinned:
        return from_numpy(array[at])
    shape: Sequence[int] = (len(at), *array.shape[1:])
    tensor = torch.empty(shape, dtype=from_numpy(np.empty(0, array.dtype)).dtype, pin_memory=True)
    if isinstance(array, RowArray):
        array.read(at, as_numpy(tensor))
    else:
        np.take(array, at, 0, as_numpy(tensor), mode="clip")  # any other mode would go through a buffer
    return tensor
