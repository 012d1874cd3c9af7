"""Batches for a device: the images, order and targets of the ordinary loader, wherever the pixels lie. CUDA itself: marker gpu."""

import threading
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from data.test_datamodule import prepared
from PIL import Image

from faceattr.config import schema
from faceattr.data import device_batches
from faceattr.data.array_file import RowArray
from faceattr.data.batches import Batch, EpochSampler, ImageSet
from faceattr.data.datamodule import FaceData
from faceattr.data.decode import InputSpec
from faceattr.data.device_batches import DeviceBatches, gather, place
from faceattr.errors import FaceattrError

CPU = torch.device("cpu")
needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def image_set(inputs, rows=None) -> ImageSet:
    """23 images whose pixels, targets and rows can be told apart."""
    rows = np.arange(0, 23) if rows is None else rows
    images = ImageSet([""] * 30, np.arange(30) % 3, InputSpec(4, 5, "bilinear", "unit"), inputs, np.arange(30), rows)
    return images


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), np.uint8)


def features(tmp_path: Path) -> RowArray:
    """As the feature cache stores bf16: int16 in a file."""
    np.save(tmp_path / "features.npy", np.random.default_rng(0).integers(0, 30000, (30, 7), np.int16))
    return RowArray(tmp_path / "features.npy")


def same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one[:3], other[:3], strict=True):
            assert a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a.cpu(), b)
        assert one.layers_applied == other.layers_applied


def ordinary(images: ImageSet, sampler, batch_size: int, drop_last: bool) -> list[Batch]:
    loader = torch.utils.data.DataLoader(
        images, batch_size=batch_size, sampler=sampler, drop_last=drop_last, collate_fn=lambda batch: batch
    )
    return list(loader)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("stored", ["pixels", "features"])
def test_device_batches_are_those_of_the_ordinary_loader(stored, where, drop_last, tmp_path):
    array = pixels() if stored == "pixels" else features(tmp_path)
    sampler = EpochSampler(23, 0, None, lambda: 3)
    expected = ordinary(image_set(array), sampler, 8, drop_last)
    device_ = torch.device(where)
    for inputs in (array, place(array, device_, mode="auto", title="")[0]):
        made = DeviceBatches(device_, image_set(inputs), sampler, 8, drop_last)
        assert len(made) == len(expected)
        found = list(made)
        assert {batch.inputs.device.type for batch in found} == {where}
        same(found, expected)


def test_device_batches_ask_the_sampler_anew_for_each_epoch():
    epochs = iter([0, 1])
    made = DeviceBatches(
        CPU, image_set(torch.from_numpy(pixels())), EpochSampler(23, 0, None, lambda: next(epochs)), 23
    )
    first, second = ([batch.rows.tolist() for batch in made] for _ in range(2))
    assert first != second and sorted(first[0]) == sorted(second[0])


def test_read_ahead_stops_with_the_loop_that_reads_it(tmp_path):
    batches = iter(DeviceBatches(CPU, image_set(pixels()), range(23), 2))
    assert next(batches).rows.tolist() == [0, 1]
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_device_batches_follow_what_the_images_serve(tmp_path):
    """The frozen stages' output takes the pixels' place after the loader was made."""
    images = image_set(torch.from_numpy(pixels()))
    made = DeviceBatches(CPU, images, range(23), 8)
    images.serve(features(tmp_path), np.arange(30), np.arange(30)[::-1], 5)
    batch = next(iter(made))
    assert batch.layers_applied == 5
    assert torch.equal(batch.inputs[0], device_batches.from_numpy(features(tmp_path)[np.array([29])])[0])


def test_read_ahead_raises_what_the_reading_thread_met(tmp_path):
    array = features(tmp_path)
    with array.file.open("r+b") as stream:
        stream.truncate(200)
    with pytest.raises(FaceattrError, match="has been cut short"):
        list(DeviceBatches(CPU, image_set(array), range(23), 8))


def test_place_leaves_room_for_the_network(monkeypatch):
    array = pixels()
    monkeypatch.setattr(device_batches, "free_memory", lambda _: 3 * array.nbytes // 2)
    left, sentence = place(array, CPU, mode="auto", title="pixels")
    assert left is array and "at most 50%" in sentence
    assert isinstance(place(array, CPU, mode="device", title="pixels")[0], torch.Tensor)
    assert place(array, CPU, mode="disk", title="pixels")[0] is array
    monkeypatch.setattr(device_batches, "free_memory", lambda _: array.nbytes - 1)
    with pytest.raises(FaceattrError, match=r"data.pack=device: pixels need 0.00 GB .* Use data.pack=auto"):
        place(array, CPU, mode="device", title="pixels")


def test_place_uploads_in_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(device_batches, "BLOCK", 100)
    for array in (pixels(), features(tmp_path)):
        placed = place(array, CPU, mode="device", title="")[0]
        assert torch.equal(placed, device_batches.from_numpy(array[np.arange(30)]))


@pytest.mark.parametrize("stored", ["pixels", "features"])
@pytest.mark.parametrize("pinned", [False, pytest.param(True, marks=needs_cuda)])
def test_gather_is_indexing(stored, pinned, tmp_path):
    array = pixels() if stored == "pixels" else features(tmp_path)
    at = np.array([5, 0, 29, 5])
    found = gather(array, at, pinned=pinned)
    assert found.is_pinned() == pinned and torch.equal(found, device_batches.from_numpy(array[at]))


def faces(root: Path, pack: str) -> FaceData:
    """20 images on disk, five of them to validate."""
    for number in range(20):
        split = "val" if number % 4 == 3 else "train"
        file = root / split / ("man" if number % 3 else "woman") / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 7, 3), np.uint8)).save(file)
    settings = schema.Data(root=str(root), batch_size=4, pack=pack)
    return FaceData(prepared(root), settings, InputSpec(5, 4, "bilinear", "unit"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pack", ["auto", "device", "disk"])
def test_the_data_modules_batches_on_cuda_are_those_of_the_host(pack, tmp_path):
    host, moved = faces(tmp_path, pack), faces(tmp_path, pack)
    moved.move_to(torch.device("cuda", 0))
    assert ("host" in moved.placement["pixels"]) == (pack == "disk")
    assert isinstance(moved.images("train").inputs, torch.Tensor) == (pack != "disk")
    for loaders in ([d.train_dataloader() for d in (host, moved)], [d.val_dataloader() for d in (host, moved)]):
        expected, found = (list(loader) for loader in loaders)
        assert {batch.inputs.device.type for batch in found} == {"cuda"}
        same(found, expected)
    rows = moved.rows("val")
    same(list(moved.pixel_batches(rows)), list(host.pixel_batches(rows)))


def test_pack_device_without_a_gpu_is_refused(tmp_path):
    data = faces(tmp_path, "device")
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(FaceattrError, match=r"data\.pack=device needs a CUDA device"):
        data.setup("fit")
