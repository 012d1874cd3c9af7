"""The data module: batches as documented, an order from (seed, epoch) alone, every image once, in every process."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from PIL import Image
from pytorch_lightning.utilities import move_data_to_device
from torch.distributed.utils import _recursive_to
from torch.testing._internal.distributed.fake_pg import FakeStore

from faceattr.config import schema
from faceattr.data import table
from faceattr.data.batches import Batch, EpochSampler
from faceattr.data.datamodule import FaceData
from faceattr.data.decode import InputSpec, read
from faceattr.errors import FaceattrError

CONF = Path(__file__).resolve().parents[2] / "conf"
SPEC = InputSpec(5, 4, "bilinear", "unit")
SPLITS = {"train": 23, "val": 6, "test": 4}


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    """Class folders in splits; `man` is one image in four."""
    for number, split in enumerate(split for split, n in SPLITS.items() for _ in range(n)):
        paint(tmp_path / split / ("man" if number % 4 == 0 else "woman") / f"{number:02}.png", number)
    return tmp_path


def prepared(root: Path) -> pd.DataFrame:
    files = sorted(root.rglob("*.png"))
    found = pd.DataFrame(
        {
            "path": [file.relative_to(root).as_posix() for file in files],
            "label": [file.parent.name for file in files],
            "split": [file.parent.parent.name for file in files],
            "extra": [int(file.stem) for file in files],
        }
    )
    found.attrs.update(classes=["woman", "man"], ordinal=False)
    return table.prepare(found, root)


def faces(root: Path, seed: int = 0, **keys: object) -> FaceData:
    keys = {"batch_size": 8, "workers": 0, "pack": "ram"} | keys
    return FaceData(prepared(root), schema.Data(root=str(root), **keys), SPEC, seed)


def rows_of(loader: object) -> list[list[int]]:
    return [batch.rows.tolist() for batch in loader]


def flat(lists: list[list[int]]) -> list[int]:
    return [value for part in lists for value in part]


@pytest.mark.parametrize("keys", [{"pack": "disk"}, {"pack": "ram"}, {"pack": "off"}, {"pack": "off", "workers": 2}])
def test_batch_has_the_documented_shapes_and_types(root, keys):
    data = faces(root, **keys)
    batches = list(data.train_dataloader())
    assert [len(rows) for _, _, rows, _ in batches] == [8, 8, 7]
    for images, targets, rows, layers_applied in batches:
        assert layers_applied == 0
        assert images.shape == (len(rows), 3, SPEC.height, SPEC.width)
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert targets.shape == rows.shape == (len(rows),)
        assert targets.dtype == rows.dtype == torch.int64
        for image, task, row in zip(images, targets, rows.tolist(), strict=True):
            line = data.table.iloc[row]
            assert (image.permute(1, 2, 0).numpy() == read(root / line.path, SPEC)).all()
            assert data.table.attrs["classes"][task] == line.label == Path(line.path).parent.name


def test_batch_is_the_same_from_stored_and_from_decoded_pixels(root):
    loaders = [faces(root, **keys).train_dataloader() for keys in ({"pack": "disk"}, {"pack": "off", "workers": 1})]
    for packed, decoded in zip(*loaders, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(packed[:3], decoded[:3], strict=True))


def test_batch_can_be_written_to(root):
    """Not a view of the read-only pack."""
    data = faces(root, pack="disk")
    images = next(iter(data.val_dataloader())).inputs
    images.zero_()
    assert next(iter(data.val_dataloader())).inputs.any()


@pytest.mark.parametrize("workers", [0, 1])
def test_batch_stays_a_batch_through_collation_workers_and_transfer(workers):
    sent = Batch(torch.zeros(2, 5, dtype=torch.bfloat16), torch.tensor([0, 1]), torch.tensor([7, 3]), 4)
    (batch,) = torch.utils.data.DataLoader([sent], batch_size=None, num_workers=workers)
    moved = move_data_to_device(batch, torch.device("meta"))
    (in_ddp,) = _recursive_to(batch, torch.device("meta"), False)
    for found in (batch, moved, in_ddp):
        assert isinstance(found, Batch)
        assert found.layers_applied == 4
        assert found.inputs.shape == (2, 5)
        assert found.inputs.dtype == torch.bfloat16
    assert moved.rows.is_meta and in_ddp.rows.is_meta


def test_image_set_serve_gives_stored_outputs_and_layers_applied(root):
    data = faces(root)
    rows, images = data.rows("val"), data.images("val")
    images.serve(np.arange(12, dtype=np.float32).reshape(6, 2), rows, np.arange(6)[::-1], 3)  # type: ignore[arg-type]
    (batch,) = data.val_dataloader()
    assert batch.layers_applied == 3
    assert batch.inputs.tolist() == [[10, 11], [8, 9], [6, 7], [4, 5], [2, 3], [0, 1]]
    images.serve_pixels()
    (batch,) = data.val_dataloader()
    assert batch.layers_applied == 0
    assert batch.inputs.dtype == torch.uint8


def order(size: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> list[int]:
    return list(EpochSampler(size, seed, weights, lambda: epoch))


@pytest.mark.parametrize("weights", [None, np.linspace(1, 3, 40)])
def test_epoch_sampler_depends_on_seed_and_epoch_only(weights):
    first = order(40, 0, 0, weights)
    torch.manual_seed(5)
    np.random.seed(5)
    assert order(40, 0, 0, weights) == first
    others = [order(40, *pair, weights) for pair in ((0, 1), (1, 0), (1, 1))]
    assert len({tuple(found) for found in (first, *others)}) == 4


def test_epoch_sampler_takes_every_image_once():
    for epoch in range(3):
        assert sorted(order(40, 7, epoch)) == list(range(40))


def test_train_dataloader_leaves_the_global_generators_alone(root):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    list(faces(root).train_dataloader())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state


class Seen(pl.LightningModule):
    """Keeps the rows of each training epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epochs: dict[int, list[int]] = {}

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.epochs.setdefault(self.current_epoch, []).extend(batch.rows.tolist())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_train_dataloader_orders_images_by_lightnings_epoch(root):
    data, seen = faces(root, seed=3), Seen()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=2, enable_model_summary=False, **quiet).fit(seen, datamodule=data)
    rows = data.rows("train")
    assert seen.epochs == {epoch: rows[order(23, 3, epoch)].tolist() for epoch in (0, 1)}


def test_train_dataloader_with_balance_sampler_draws_classes_equally_often(root):
    data = faces(root, balance="sampler")
    targets = [task for _ in range(3) for _, targets, *_ in data.train_dataloader() for task in targets.tolist()]
    assert len(targets) == 3 * SPLITS["train"]
    loader = data.train_dataloader()
    epochs = [order(23, 0, epoch, loader.sampler.weights) for epoch in range(60)]
    labels = data.table["label"].cat.codes.to_numpy()[data.rows("train")]
    assert labels.mean() < 0.3
    assert labels[epochs].mean() == pytest.approx(0.5, abs=0.05)
    shares = np.bincount(np.ravel(epochs), minlength=23) / np.size(epochs)
    for code in (0, 1):  # within a class equally often too
        assert shares[labels == code] == pytest.approx(0.5 / (labels == code).sum(), rel=0.35)


def test_train_dataloader_without_balance_has_no_weights(root):
    assert faces(root).train_dataloader().sampler.weights is None
    assert faces(root, balance="loss").train_dataloader().sampler.weights is None


def test_train_dataloader_drops_a_last_batch_of_one_image_and_logs_it(root, caplog):
    caplog.set_level("INFO")
    assert [len(rows) for rows in rows_of(faces(root, batch_size=11).train_dataloader())] == [11, 11]
    assert "The last training batch would hold one image: each epoch leaves a random one out" in caplog.text
    caplog.clear()
    assert [len(rows) for rows in rows_of(faces(root, batch_size=7).train_dataloader())] == [7, 7, 7, 2]
    assert "leaves a random one out" not in caplog.text


def test_val_dataloader_keeps_a_last_batch_of_one_image(root):
    assert [len(rows) for rows in rows_of(faces(root, batch_size=5).val_dataloader())] == [5, 1]


def test_val_dataloader_is_in_the_tables_order(root):
    data = faces(root, batch_size=4)
    for split, size in SPLITS.items():
        found = flat(rows_of(data.split_dataloader(split)))
        assert found == np.flatnonzero(data.table["split"] == split).tolist()
        assert len(found) == size
    assert flat(rows_of(data.val_dataloader())) == data.rows("val").tolist()
    assert flat(rows_of(data.split_dataloader("all"))) == list(range(len(data.table)))


@pytest.mark.parametrize("pack", ["ram", "off"])
def test_face_data_rows_are_the_tables_after_bad_images_were_skipped(root, pack, caplog):
    before = prepared(root)
    broken = [0, 5, len(before) - 1]
    for row in broken:
        (root / before.path[row]).write_text("no image")
    data = faces(root, pack=pack, on_bad_image="skip")
    assert data.bad_images["path"].tolist() == before.path[broken].tolist()
    assert data.bad_images["reason"].tolist() == ["not an image file: it is text"] * 3
    assert data.table["path"].tolist() == before.path.drop(broken).tolist()
    assert data.table.attrs == before.attrs
    assert "Left out 3 unreadable images (data.on_bad_image=skip)" in caplog.text
    seen = set()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.split_dataloader("test")):
        for images, targets, rows, _ in loader:
            for image, task, row in zip(images, targets.tolist(), rows.tolist(), strict=True):
                line = data.table.iloc[row]
                assert (image.permute(1, 2, 0).numpy() == read(root / line.path, SPEC)).all()
                assert data.table.attrs["classes"][task] == line.label
                seen.add(row)
    assert seen == set(range(len(before) - 3))


def test_face_data_with_bad_images_is_an_error_that_lists_them(root):
    files = sorted(root.rglob("*.png"))
    for file in files[:7]:
        file.write_text("no image")
    named = f"7 of 33 images cannot be read: {files[0].relative_to(root)} .not an image file: .* text.; .*; …\n.*on_bad_image=skip"
    with pytest.raises(FaceattrError, match=named):
        faces(root)


def test_check_splits_refuses_a_split_that_only_held_bad_images(root):
    for file in root.glob("val/*/*.png"):
        file.write_text("no image")
    data = faces(root, on_bad_image="skip")  # which evaluation may use, and training refuses
    with pytest.raises(FaceattrError, match=r"Without the unreadable images(.|\n)*val"):
        table.check_splits(data.table)


@pytest.fixture
def process_of() -> Iterator[object]:
    """`process_of(rank, world)` makes this process that one of a group: torch's own fake backend."""

    def join(rank: int, world: int) -> None:
        leave()
        dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())

    def leave() -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    yield join
    leave()


@pytest.mark.parametrize("world", [2, 3, 7])
def test_train_dataloader_of_all_ddp_processes_covers_every_image(root, process_of, world):
    data = faces(root, batch_size=4)
    train, val = [], []
    for rank in range(world):
        process_of(rank, world)
        train.append(flat(rows_of(data.train_dataloader())))
        val.append(flat(rows_of(data.val_dataloader())))
    for rows in (train, val):
        assert len({len(own) for own in rows}) == 1, "processes of unequal length wait for each other forever"
    assert set(flat(train)) == set(data.rows("train").tolist())
    assert len(flat(train)) - SPLITS["train"] < world
    assert set(flat(val)) == set(data.rows("val").tolist())


def test_train_dataloader_drops_the_last_batch_by_what_a_ddp_process_has(root, process_of):
    """23 images, 12 a process: 11 leave one over; of the 23 together, 22 would."""
    process_of(0, 2)
    assert [len(rows) for rows in rows_of(faces(root, batch_size=11).train_dataloader())] == [11]
    assert [len(rows) for rows in rows_of(faces(root, batch_size=22).train_dataloader())] == [12]
