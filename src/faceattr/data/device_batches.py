"""Batches for a CUDA device: gathered there if all images fit into its memory, else read ahead and copied while it works.

Images, order and targets are those of the ordinary loader on a CPU.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faceattr.data.array_file import RowArray
from faceattr.data.batches import Batch, ImageSet, RowSource, as_numpy, from_numpy
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)

SHARE = 0.5
"""The most of the device's free memory that one array may take; the rest is for the network and its activations."""
BLOCK = 256 * 2**20


def place(array: RowArray | np.ndarray, device: torch.device, *, mode: str, title: str) -> tuple[RowSource, str]:
    """`array` on the device, or as it is, and a phrase that says where it is and why.

    mode: `data.pack`. `device`: on the device; `auto`: on the device where `SHARE` allows it; others: as it is.

    Raises FaceattrError: `device`, and no room.
    """
    size, free = array.nbytes, free_memory(device)
    sizes = f"{size / 1e9:.2f} GB of {free / 1e9:.1f} free"
    if mode not in ("auto", "device"):
        return array, f"host memory (data.pack={mode})"
    if size > (free if mode == "device" else SHARE * free):
        if mode == "device":
            raise FaceattrError(f"data.pack=device: {title} need {sizes} on {device}. Use data.pack=auto.")
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
    """Batches on `device`.

    Images on the device: a batch is one gather; the order is copied there once an epoch. Images in host memory: a thread reads
    them into pinned memory and copies them on a stream of its own, `AHEAD` batches ahead of the step.

    order: gives positions in `images`, anew for each iteration. drop_last: leave out a smaller last batch.
    There is no attribute `sampler`: Lightning would take this for a DataLoader.
    """

    AHEAD = 2

    def __init__(
        self, device: torch.device, images: ImageSet, order: Iterable[int], batch_size: int, drop_last: bool = False
    ) -> None:
        self.device, self.images, self.order = device, images, order
        self.batch_size, self.drop_last = batch_size, drop_last

    def __len__(self) -> int:
        size = len(self.order)  # type: ignore[arg-type]
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Looks at `images.inputs` only now: the frozen stages' output may have replaced the pixels."""
        positions = np.fromiter(self.order, int)
        on_device = isinstance(self.images.inputs, Tensor)
        yield from self._gathered(positions) if on_device else self._read_ahead(positions)

    def _slices(self) -> Iterator[slice]:
        for number in range(len(self)):
            yield slice(number * self.batch_size, (number + 1) * self.batch_size)

    def _gathered(self, positions: np.ndarray) -> Iterator[Batch]:
        images, table_rows = self.images, self.images.rows[positions]
        assert isinstance(images.inputs, Tensor)
        parts = (images.positions(table_rows), images.targets[table_rows], table_rows)
        input_rows, targets, rows = (torch.from_numpy(part).to(self.device) for part in parts)
        for batch in self._slices():
            yield images.batch(images.inputs.index_select(0, input_rows[batch]), targets[batch], rows[batch])

    def _read_ahead(self, positions: np.ndarray) -> Iterator[Batch]:
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        slices, pending = self._slices(), deque[Future[tuple[Batch, Any]]]()
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
            pending.extend(reader.submit(self._read, positions[part], stream) for part in islice(slices, self.AHEAD))
            while pending:
                pending.extend(reader.submit(self._read, positions[part], stream) for part in islice(slices, 1))
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
        inputs = gather(images.inputs, images.positions(rows), pinned=stream is not None)
        host = (inputs, torch.from_numpy(images.targets[rows]), torch.from_numpy(rows))
        if stream is None:
            return images.batch(*host), None
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            moved = [tensor.to(self.device, non_blocking=True) for tensor in host]
            return images.batch(*moved), stream.record_event()


def gather(array: RowArray | np.ndarray, rows: np.ndarray, *, pinned: bool) -> Tensor:
    """`array[rows]`; pinned: in page-locked memory, which a device copies without the CPU."""
    if not pinned:
        return from_numpy(array[rows])
    shape: Sequence[int] = (len(rows), *array.shape[1:])
    tensor = torch.empty(shape, dtype=from_numpy(np.empty(0, array.dtype)).dtype, pin_memory=True)
    if isinstance(array, RowArray):
        array.read(rows, as_numpy(tensor))
    else:
        np.take(array, rows, 0, as_numpy(tensor), mode="clip")  # any other mode would go through a buffer
    return tensor
