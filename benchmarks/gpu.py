"""The same on a CUDA device: for each model a real `train.py trainer=gpu`, the ceiling there, and what one host core can feed.

    python benchmarks/gpu.py [--models vgg16,cnn7] [--batches 32,256] [--images 8192] [--rounds 3]

Prints a line per measurement and writes benchmarks/results-gpu.json. Where no CUDA device is visible it says so and does nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import render
import torch
from files import class_folders, drawn
from run import HERE, Benchmark, cache_folder

VGG16 = ("model=vgg16", "model.image_size=[178,218]", "model.pretrained=false")
MODELS = {
    "cnn": ("model=cnn",),
    "cnn7": ("model=cnn7",),
    "cnn_age": ("model=cnn_age", "augment=keras_40"),
    "alexnet": ("model=alexnet",),
    "vgg16_half": ("model=vgg16_half",),
    "vgg16": VGG16,
    "vgg16_compiled": (*VGG16, "trainer.compile=true"),
    "vgg16_last_block": (*VGG16, "finetune=last_block"),
    "vgg16_last_block_kept": (*VGG16, "finetune=last_block", "augment=none"),
    "vgg16_last_block_unkept": (*VGG16, "finetune=last_block", "augment=none", "finetune.cache=off"),
    "vgg16_frozen_kept": (*VGG16, "finetune=frozen", "augment=none"),
    "resnet18": ("model=timm", "model.pretrained=false"),
    "vit_small": ("model=timm", "model.name=vit_small_patch16_224", "model.pretrained=false"),
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated; default: %(default)s")
    parser.add_argument("--batches", default="32,256", help="images in a batch; default: %(default)s")
    parser.add_argument("--images", type=int, default=8192, help="training images, generated")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("No CUDA device is visible here: nothing was measured.")
        return 0
    names = given.models.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        parser.error(f"no model {', '.join(unknown)}; there are: {', '.join(MODELS)}")
    cache: Path = cache_folder()
    benchmark = Benchmark(HERE / "results-gpu.json", cache, quick=False)
    cases = {f"{name}, batch {batch}": (name, int(batch)) for name in names for batch in given.batches.split(",")}
    benchmark.start([*cases, "feeding"], go_on=False)
    device = torch.cuda.get_device_properties(0)
    benchmark.results["machine"] |= {"gpu": device.name, "gpu_memory_gb": round(device.total_memory / 1e9, 1)}
    pictures = drawn(cache, "celeba", min(given.images, 4000))
    folder = class_folders(cache / f"gpu_{given.images}", pictures, train=given.images, val=512)
    for number in range(1, given.rounds + 1):
        benchmark.turn("feeding", "faceattr", number, lambda: benchmark.script("feeding.py", "faceattr", folder, 5))
        for case, (name, batch) in cases.items():
            ours = (*MODELS[name], f"data.batch_size={batch}", "loss=bce", "trainer=gpu")
            files, size = ("data=folders", f"data.root={folder}"), {"epochs": given.epochs, "images": given.images}
            ceiling = ("ceiling.py", 2, given.images, given.epochs, *ours)
            benchmark.turn(case, "faceattr", number, lambda: benchmark.train(*ours, *files, **size))  # noqa: B023
            benchmark.turn(case, "ceiling", number, lambda: benchmark.script(*ceiling))  # noqa: B023
    runs, rows = render.Runs(benchmark.results["runs"]), []
    for case in cases:
        rates = [render.number(runs.median(case, who, render.steady)) for who in ("faceattr", "ceiling")]
        ratio = render.verdict(runs.compare(case, "faceattr", "ceiling", render.steady), None)
        rows.append([case, *rates, ratio])
    feeding = render.number(runs.median("feeding", "faceattr", render.steady))
    print(f"\n{device.name}, images/s; one host core feeds {feeding} (128x128, not pinned)\n")
    print(render.table(["model", "train.py", "ceiling", "ratio"], rows))
    return 1 if benchmark.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
