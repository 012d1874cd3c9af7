"""Data loading: images per second that one CPU core delivers as 128x128 batches, without augmentation.

    python benchmarks/data_loading.py faceattr|lightning FOLDER EPOCHS        (FOLDER: train/<class>/…)

faceattr reads uint8 pixels from its pixel cache; they are scaled later, on the device. The Lightning peer decodes, resizes,
converts to float and collates in its DataLoader with `num_workers=0`; usually its workers do that.
"""

import os
import sys
from collections.abc import Iterable

import torch
from epoch_timer import EpochTimer
from torch.utils.data import DataLoader

SIZE, BATCH = (128, 128), 32


def faceattr_loader(folder: str) -> Iterable:
    from bare_loop import compose_config

    from faceattr.commands.build_from_config import create_data, read_table

    cfg = compose_config(
        ["data=folders", f"data.root={folder}", f"data.batch_size={BATCH}", f"model.image_size={[*SIZE]}"]
    )
    return create_data(cfg, read_table(cfg)).train_dataloader()


def lightning_loader(folder: str) -> Iterable:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([v2.ToImage(), v2.Resize(SIZE), v2.ToDtype(torch.float32, scale=True)])
    return DataLoader(ImageFolder(f"{folder}/train", transform), batch_size=BATCH, shuffle=True, num_workers=0)


def main(who: str, folder: str, epochs: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    loader = {"faceattr": faceattr_loader, "lightning": lightning_loader}[who](folder)
    timer = EpochTimer()
    for _ in range(int(epochs)):
        timer.start_epoch()
        for batch in loader:
            timer.step(len(batch[1]))
        timer.end_epoch()
    timer.print_json()


if __name__ == "__main__":
    main(*sys.argv[1:])
