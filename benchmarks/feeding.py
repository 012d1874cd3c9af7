"""What feeding costs the host: images per second that one CPU core delivers as 128x128 batches, without augmentation.

    python feeding.py faceattr|lightning FOLDER EPOCHS        (a case's folder; one core of those allowed is used)

Ours are gathered from the packed pixels, as uint8: scaling happens on the device. The Lightning peer's are decoded, resized,
made float and collated by its DataLoader with `num_workers=0`, the work that its workers do otherwise.
"""

import os
import sys
from collections.abc import Iterable

import torch
from clock import Clock
from torch.utils.data import DataLoader

SIZE, BATCH = (128, 128), 32


def ours(folder: str) -> Iterable:
    from ceiling import composed

    from faceattr.data.datamodule import FaceData
    from faceattr.data.load import load_table
    from faceattr.training.module import input_spec

    cfg = composed(["data=folders", f"data.root={folder}", f"data.batch_size={BATCH}", f"model.image_size={[*SIZE]}"])
    return FaceData(load_table(cfg.data), cfg.data, input_spec(cfg)).train_dataloader()


def lightning(folder: str) -> Iterable:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    chain = v2.Compose([v2.ToImage(), v2.Resize(SIZE), v2.ToDtype(torch.float32, scale=True)])
    return DataLoader(ImageFolder(f"{folder}/train", chain), batch_size=BATCH, shuffle=True, num_workers=0)


def main(who: str, folder: str, epochs: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    clock, loader = Clock(), {"faceattr": ours, "lightning": lightning}[who](folder)
    for _ in range(int(epochs)):
        clock.begin()
        for batch in loader:
            clock.step(len(batch[1]))
        clock.end()
    clock.report()


if __name__ == "__main__":
    main(*sys.argv[1:])
