"""Estimates the speed of training on a GPU: FLOPs and bytes of a step of every model, counted on the meta device (nothing is
computed), and the rates that follow from published peaks and the assumptions below. `python benchmarks/gpu_estimate.py` writes
the tables of docs/scaling.md. It measures only how fast rows of a cached file are read, for some seconds.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from faceattr.commands.build_from_config import create_network, create_policy
from faceattr.config.conf_folder import compose_conf
from faceattr.data import augment
from faceattr.data.array_file import RowArray
from faceattr.models import freezing
from faceattr.models.task import Task
from faceattr.report import markdown

ROOT = Path(__file__).resolve().parent.parent
# Published: dense bf16 FLOP/s, bytes/s of device memory, bytes/s over PCIe in one direction
GPUS = {"H100": (989e12, 3.35e12, 64e9), "A100": (312e12, 2.0e12, 32e9)}
# Assumed
COMPUTE, MEMORY = 0.4, 0.7  # share of those peaks that convolutions and matrix products, and all operations, reach
STEP, LAUNCH = 1e-3, 10e-6  # host seconds: of a step (Lightning, loader, draws, optimizer); of each eager operation
KERNEL = 3e-6  # device seconds that the smallest operation takes
COPY, ROW = 10e9, 1.5e-6  # bytes/s of one core copying in memory; host seconds of each row that `RowArray` reads
DISK, LATENCY = 5e9, 100e-6  # one NVMe disk: bytes/s with many reads in flight, seconds of a single read
STATE = 40  # bytes moved per trained parameter and step: AdamW (28), bf16 copy of the weight (6), its gradient (6)
CELEBA, BATCHES = 202_599, (32, 256, 1024)
BATCH = 256  # of the tables, where they do not say otherwise

MODELS = ("cnn", "cnn7", "cnn_age", "cnn_age_bn", "alexnet", "alexnet_imagenet", "vgg16_half", "timm")
POLICIES = (("full", False), ("last_block", False), ("last_block", True), ("frozen", False), ("frozen", True))
LARGE = [178, 218]
CASES = [(model, None, "full", False) for model in MODELS]
CASES += [("vgg16", size, *policy) for size in (None, LARGE) for policy in POLICIES]


class Count(TorchDispatchMode):
    """FLOPs, bytes and seconds of each operation: what it reads and writes moves through memory once, nothing is fused."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.flops, self.bytes, self.seconds = 0, 0, 0, dict.fromkeys(GPUS, 0.0)

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = operation(*arguments, **keywords)
        if operation.is_view or operation._schema.name.startswith("aten::empty"):
            return result
        formula = flop_registry.get(operation._overloadpacket)
        flops = formula(*arguments, **keywords, out_val=result) if formula else 0
        tensors = [leaf for leaf in tree_leaves((arguments, result)) if isinstance(leaf, torch.Tensor)]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.operations, self.flops, self.bytes = self.operations + 1, self.flops + flops, self.bytes + moved
        for name, (peak, memory, _) in GPUS.items():
            self.seconds[name] += max(flops / peak / COMPUTE, moved / memory / MEMORY, KERNEL)
        return result


@dataclass
class Case:
    """A model, its input size and policy, at a batch size; all but `state` per image. `cached`: trained on the cached output of
    its frozen stages.

    `first`: what comes before the network (augmentation and scaling), or with `cached` before training (the frozen stages).
    Seconds: `alone` of network and optimizer, `device` with `first` and the copy to the device.
    """

    name: str
    forward: float
    flops: float
    bytes: float
    first: Count
    saved: float
    fed: int
    state: int
    alone: dict[str, float]
    device: dict[str, float]
    fixed: float
    copied: float

    def host_rate(self, batch: int) -> float:
        return batch / (self.fixed + batch * self.copied)


def case(model: str, size: list[int] | None, policy: str, cached: bool, batch: int = BATCH) -> Case:
    """Counts a training step in bf16 with augment=light; with `cached` that of the trained rest alone."""
    cfg = compose_conf(
        "train", [f"model={model}", f"finetune={policy}", *([f"model.image_size={size}"] if size else [])]
    )
    with torch.device("meta"):
        network = create_network(cfg, Task.from_config(["female", "male"], ordinal=False, loss="auto"))
    start, size = create_policy(cfg, network).first_trainable_stage(0), list(cfg.model.image_size)
    freezing.freeze(network, start)
    freezing.eval_frozen(network.train(), start)
    parameters = freezing.count_parameters(network)
    network, begin = network.bfloat16(), network.num_constant_layers(start) if cached else 0
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = 0 if storage._cdata in weights else storage.nbytes()
        return tensor

    images = torch.empty(batch, *size, 3, dtype=torch.uint8, device="meta").permute(0, 3, 1, 2)
    matrices, factors = augment.Augmentation(cfg.augment).draw(batch, *size, torch.Generator())
    with torch.no_grad(), Count() as first:
        if cached:
            inputs = network(images.bfloat16(), 0, begin)
        else:
            images = augment.relight_by_torch(augment.warp_by_torch(images, matrices), factors)  # on CUDA too: torch
            inputs = ((images.float() - 1.0) / 1.0).bfloat16()  # as the classifier scales, and autocast's copy
    with Count() as step, saved_tensors_hooks(note, lambda tensor: tensor):
        loss = network(inputs, begin).float().mean()
        forward = step.flops
        loss.backward()
    fed = inputs[0].numel() * 2 if cached else size[0] * size[1] * 3
    before = 0 if cached else 1
    alone, device = {}, {}
    for gpu, (_, memory, pcie) in GPUS.items():
        alone[gpu] = (step.seconds[gpu] + parameters["trainable"] * STATE / memory / MEMORY) / batch
        device[gpu] = alone[gpu] + before * first.seconds[gpu] / batch + fed / pcie
    return Case(
        name=f"`{cfg.model.get('name', model)}` {size[0]}×{size[1]} {policy}{', cached' if cached else ''}",
        forward=forward / batch,
        flops=step.flops / batch,
        bytes=(before * first.bytes + step.bytes) / batch,
        first=first,
        saved=sum(saved.values()) / batch,
        fed=fed,
        state=4 * parameters["total"] + 12 * parameters["trainable"],
        alone=alone,
        device=device,
        fixed=STEP + LAUNCH * (before * first.operations + step.operations),
        copied=ROW + 2 * fed / COPY,
    )


def gather_rate(height: int, width: int, batch: int = BATCH) -> float:
    """Bytes/s of `RowArray`, which serves packed pixels: batches of random rows of a file in the page cache, one core."""
    count = 2**28 // (height * width * 3)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npy"
        np.save(file, np.ones((count, height, width, 3), np.uint8))
        rows, rng, seconds = RowArray(file), np.random.default_rng(0), []
        while len(seconds) < 15:
            picked = rng.integers(count, size=batch)
            began = time.perf_counter()
            rows[picked]
            seconds.append(time.perf_counter() - began)
    return batch * height * width * 3 / float(np.median(seconds))


def digits(value: float, places: int = 3) -> str:
    """To so many significant digits, with commas for thousands."""
    if value < 0.0095:
        return "<0.01" if value else "0"
    rounded = float(f"{value:.{places}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (places - 1) else f"{rounded:.{places}g}"


def table(header: str, lines: list[list[str]]) -> str:
    return markdown.table(header.split(" | "), lines, numbers=True)


def work(c: Case, cached: bool) -> list[str]:
    augmented = 0 if cached else c.first.bytes / BATCH
    numbers = (
        c.forward / 1e9,
        c.flops / 1e9,
        c.bytes / 1e6,
        augmented / 1e6,
        c.saved / 1e6,
        c.fed / 1e3,
        c.state / 1e6,
    )
    return [c.name, *(digits(number) for number in numbers)]


def rates(c: Case, sizes: dict[int, Case]) -> list[str]:
    rate = 1 / c.device["H100"]
    need = rate * c.fed
    left = c.device["H100"] - c.copied
    enough = digits(c.fixed / left, 2) if left > 0 else "never"
    shares = [f"{digits(100 * need / limit, 2)}%" for limit in (COPY, GPUS["H100"][2], DISK)]
    hosts = [digits(one.host_rate(batch)) for batch, one in sizes.items()]
    return [
        c.name,
        digits(1 / c.device["A100"]),
        digits(rate),
        digits(1 / c.alone["H100"]),
        digits(need / 1e9, 2),
        *shares,
        *hosts,
        enough,
    ]


def celeba(at: dict[tuple, Case]) -> str:
    lines = []
    for what, key in (
        ("pixels 64×64", ("cnn", None, "full", False)),
        ("pixels 128×128", ("vgg16", None, "full", False)),
        ("pixels 178×218", ("vgg16", LARGE, "full", False)),
        ("VGG16 block 4 at 128×128", ("vgg16", None, "last_block", True)),
        ("VGG16 block 4 at 178×218", ("vgg16", LARGE, "last_block", True)),
        ("VGG16 pooled, 512 values, at 178×218", ("vgg16", LARGE, "frozen", True)),
    ):
        c, total = at[repr(key)], at[repr(key)].fed * CELEBA
        anew = [c.first.seconds[gpu] / BATCH if key[3] else 0 for gpu in ("A100", "H100")]
        again = [digits(value) if value else "–" for second in anew for value in (second and 1 / second,)]
        even = [digits(c.fed / second / 1e9, 2) if second else "–" for second in anew]
        lines.append(
            [what, digits(c.fed / 1e3), digits(total / 1e9), digits(1 / (LATENCY + c.fed / DISK)), *again, *even]
        )
    computed = "computed by A100, images/s | by H100 | break-even GB/s, A100 | H100"
    return table(
        f"CelebA, {CELEBA:,} images | kB per image | GB | NVMe, one read at a time, images/s | {computed}", lines
    )


def tables() -> str:
    counted = {repr(key): {batch: case(*key, batch) for batch in BATCHES} for key in CASES}
    at = {key: sizes[BATCH] for key, sizes in counted.items()}
    full = at[repr(("vgg16", LARGE, "full", False))]
    beside = (full.state + BATCH * full.saved) / 1e9
    packed = full.fed * CELEBA / 1e9
    block = at[repr(("vgg16", LARGE, "last_block", True))].fed * CELEBA / 1e9
    sizes = {"1 kB": (18, 19), "64×64": (64, 64), "178×218": (178, 218)}
    gathers = [f"{digits(gather_rate(*size) / 1e9, 2)} GB/s with rows of {name}" for name, size in sizes.items()]
    counts = (
        "forward GFLOP | training GFLOP | memory traffic MB | of it augmentation and scaling | stored for backward MB"
    )
    limits = "of one core's copying | of PCIe | of NVMe | host at batch 32 | at 256 | at 1024 | device-bound from batch"
    return "\n\n".join(
        (
            f"Per image at batch {BATCH}; the last column is the whole model's:",
            table(
                f"training | {counts} | fed kB | weights, gradients, AdamW MB", [work(at[repr(k)], k[3]) for k in CASES]
            ),
            "Images/s of the device alone, what an H100 at that rate is to be fed, and images/s of the host alone:",
            table(
                f"training | A100 | H100 | H100, network alone | fed GB/s | {limits}",
                [rates(at[repr(k)], counted[repr(k)]) for k in CASES],
            ),
            celeba(at),
            f"VGG16 at 178×218, `full`, batch {BATCH}: {digits(beside)} GB of weights, gradients, AdamW's state and stored "
            f"activations; with CelebA's pixels beside them {digits(beside + packed)} GB. Pixels and block 4 at 178×218 "
            f"together: {digits(block + packed)} GB.",
            f"Measured where this was written (one CPU core, page cache): `RowArray` gathers {', '.join(gathers)}.",
        )
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    file = ROOT / "docs" / "scaling.md"
    text = tables()
    print(text)
    markdown.write_between_marks(file, text, "table")


if __name__ == "__main__":
    main()
