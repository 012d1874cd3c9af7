"""The same on a CUDA device: for each model a real `train.py trainer=gpu`, the bare loop there, and what one host core can load.

    python benchmarks/gpu.py [--models vgg16,cnn7] [--batches 32,256] [--images 8192] [--rounds 3]

Prints a line per measurement and writes benchmarks/results-gpu.json. Where no CUDA device is visible it says so and does nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import result_tables
import torch
from benchmark import HERE, Benchmark, cache_folder
from image_files import class_folders, draw_faces

from faceattr.report.markdown import table

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
    benchmark.start([*cases, "data_loading"], resume=False)
    device = torch.cuda.get_device_properties(0)
    benchmark.results["machine"] |= {"gpu": device.name, "gpu_memory_gb": round(device.total_memory / 1e9, 1)}
    pictures = draw_faces(cache, "celeba", min(given.images, 4000))
    folder = class_folders(cache / f"gpu_{given.images}", pictures, train=given.images, val=512)
    for number in range(1, given.rounds + 1):
        benchmark.record(
            "data_loading", "faceattr", number, lambda: benchmark.run_module("data_loading", "faceattr", folder, 5)
        )
        for case, (name, batch) in cases.items():
            ours = (*MODELS[name], f"data.batch_size={batch}", "loss=bce", "trainer=gpu")
            files, size = ("data=folders", f"data.root={folder}"), {"epochs": given.epochs, "images": given.images}
            loop = ("bare_loop", 2, given.images, given.epochs, *ours)
            benchmark.record(case, "faceattr", number, lambda: benchmark.run_training(*ours, *files, **size))  # noqa: B023
            benchmark.record(case, "bare_loop", number, lambda: benchmark.run_module(*loop))  # noqa: B023
    runs, rows = result_tables.Runs(benchmark.results["runs"]), []
    for case in cases:
        rates = [runs.median(case, who, result_tables.steady_rate) for who in ("faceattr", "bare_loop")]
        ratios = runs.ratios(case, "faceattr", "bare_loop", result_tables.steady_rate)
        rows.append([case, *map(result_tables.format_number, rates), result_tables.format_values(ratios)])
    loading = result_tables.format_number(runs.median("data_loading", "faceattr", result_tables.steady_rate))
    print(f"\n{device.name}, images/s; one host core loads {loading} (128x128, not pinned)\n")
    print(table(["model", "train.py", "bare loop", "ratio"], rows))
    return 1 if benchmark.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
