"""What `gpu.py` measures, each as a function that returns a record: our training, the ceiling, two peers, a whole study."""

import functools
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from gpu_build import (
    build,
    composed,
    create_classifier,
    create_feature_cache,
    reason_without_feature_cache,
    trainer_settings,
)
from PIL import Image

from faceattr.models.task import Task
from faceattr.training.compiled_step import compile_steps
from faceattr.training.trainer import build_trainer, resolve_precision

ROOT = Path(__file__).resolve().parents[1]
Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """`steps` of an epoch at batch 32 and 256: about 0.4 to 1.4 s each on an H200."""

    overrides: tuple[str, ...]
    size: tuple[int, int]
    steps: tuple[int, int]


VGG16 = ("model=vgg16", "model.pretrained=false")
TIMM = ("model=timm", "model.pretrained=false")
VIT = (*TIMM, "model.name=vit_small_patch16_224")
CASES = {
    "cnn7": Case(("model=cnn7",), (150, 150), (200, 78)),
    "vgg16 full 224": Case((*VGG16, "finetune=full"), (224, 224), (40, 14)),
    "vgg16 last_block cached": Case((*VGG16, "finetune=last_block", "augment=none"), (128, 128), (180, 78)),
    "vgg16 frozen cached": Case((*VGG16, "finetune=frozen", "augment=none"), (128, 128), (250, 78)),
    "resnet18 224": Case((*TIMM, "model.name=resnet18"), (224, 224), (70, 30)),
    "vgg16 last_block": Case((*VGG16, "finetune=last_block"), (128, 128), (100, 60)),
    "cnn_age": Case(("model=cnn_age", "augment=keras_40"), (128, 128), (200, 78)),
    "alexnet": Case(("model=alexnet",), (64, 64), (150, 78)),
    "vit_small 224": Case(VIT, (224, 224), (50, 15)),
    "resnet18 128": Case((*TIMM, "model.name=resnet18"), (128, 128), (70, 78)),
    "vit_small 128": Case(VIT, (128, 128), (50, 60)),
}


@dataclass(frozen=True)
class Setting:
    """The machine and the data: `folder` holds train/ and val/ with a folder for each class."""

    device: str
    folder: Path
    tiny: bool = False
    workers: int = 16

    def overrides(self, case: Case, batch: int) -> tuple[str, ...]:
        height, width = (
            tuple(min(size, 128 if "cnn" in case.overrides[0] else 32) for size in case.size)
            if self.tiny
            else case.size
        )
        return (
            *case.overrides,
            f"model.image_size=[{height},{width}]",
            f"data.batch_size={batch}",
            "loss=bce",
            "data=folders",
            f"data.root={self.folder}",
            "trainer=gpu" if self.device == "cuda" else "trainer=cpu",
        )

    def steps(self, case: Case, batch: int) -> int:
        return 3 if self.tiny else case.steps[batch > 32]


def draw_files(folder: Path, *, train: int, val: int, distinct: int = 400) -> None:
    """JPEG files of 178x218 pixels with the frequencies of photographs, not their content; hard-linked to so many names."""
    (folder / "drawn").mkdir(parents=True)
    rng, files = np.random.default_rng(0), []
    for number in range(min(distinct, train)):
        coarse = Image.fromarray(rng.integers(0, 256, (28, 23, 3), dtype=np.uint8))
        file = folder / "drawn" / f"{number}.jpg"
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(file, quality=90)
        files.append(file)
    for split, count in (("train", train), ("val", val)):
        for name in ("female", "male"):
            (folder / split / name).mkdir(parents=True)
        for number in range(count):
            link = folder / split / ("female", "male")[number % 2] / f"{number:06}.jpg"
            link.hardlink_to(files[number % len(files)])
    (folder / "complete").touch()


class Rate(pl.Callback):
    """Seconds and images of each epoch, and of its training alone."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize()
        self._began, self._images, self._steps = time.perf_counter(), 0, 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self._images += len(args[1][1])
        self._steps += 1
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            issued = time.perf_counter() - self._began
            synchronize()
            seconds = time.perf_counter() - self._began
            self.epochs.append({"images": self._images, "seconds": seconds, "issued": issued, "steps": self._steps})

    def record(self) -> Record:
        last = self.epochs[-1]
        return {
            "images_per_second": last["images"] / last["seconds"],
            "ms_per_step": 1000 * last["seconds"] / last["steps"],
            "host_ms_per_step": 1000 * last["issued"] / last["steps"],
            "steps": last["steps"],
            "first_epoch_seconds": self.epochs[0]["seconds"],
        }


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ours(setting: Setting, name: str, batch: int, *more: str, collect: bool = True) -> Record:
    """The second epoch of a real fit, without validation. `collect=False`: Python's garbage collector is off."""
    case = CASES[name]
    cfg, data, model = build((*setting.overrides(case, batch), *more))
    compile_steps(model, str(cfg.trainer.compile).lower(), cfg.data.batch_size)
    rate, callbacks = Rate(), []
    if reason_without_feature_cache(cfg, model) is None:
        callbacks = [create_feature_cache(cfg, model, data)]
    trainer = build_trainer(
        trainer_settings(cfg),
        callbacks=[*callbacks, rate],
        max_epochs=2,
        limit_train_batches=setting.steps(case, batch),
        limit_val_batches=0,
        num_sanity_val_steps=0,
        **QUIET,
    )
    if not collect:
        gc.disable()
    try:
        trainer.fit(model, datamodule=data)
    finally:
        gc.enable()
    return rate.record() | {"placement": data.placement, "compiled": model.compiled}


QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32}


def ceiling(setting: Setting, name: str, batch: int, how: str = "eager") -> Record:
    """Network, loss, backward and optimizer on tensors that lie on the device in the training precision; nothing else.

    `how`: `eager`, `compiled` (the network), or `graph` (the whole step captured).
    """
    cfg = composed((*setting.overrides(CASES[name], batch), "optim=adamw"))
    torch.manual_seed(0)
    task = Task.from_config(["female", "male"], ordinal=False, loss="bce")
    model = create_classifier(cfg, task).to(setting.device).train()
    optimizer = model.configure_optimizers()
    for group in optimizer.param_groups:
        group["capturable"] = how == "graph"
    dtype = AUTOCAST[resolve_precision(trainer_settings(cfg))]
    cached = reason_without_feature_cache(cfg, model) is None
    begin = model.network.num_constant_layers(model.first_trainable_stage) if cached else 0
    autocast = functools.partial(
        torch.autocast, setting.device, dtype=dtype, enabled=dtype != torch.float32, cache_enabled=how != "graph"
    )
    with torch.no_grad(), autocast():
        images = torch.randn(batch, 3, *cfg.model.image_size, device=setting.device)
        shape = model.network(images.contiguous(memory_format=torch.channels_last), 0, begin)
    layout = torch.channels_last if shape.dim() == 4 else torch.contiguous_format
    inputs = [torch.randn_like(shape, dtype=dtype).contiguous(memory_format=layout) for _ in range(4)]
    targets = torch.arange(batch, device=setting.device) % 2
    network: Callable[..., torch.Tensor] = model.network
    if how == "compiled":
        network = torch.compile(model.network, dynamic=False)

    def step(number: int) -> None:
        with autocast():
            loss = task.losses(network(inputs[number % 4], begin), targets).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    flops = count(step) if how == "eager" else None
    run = captured(step) if how == "graph" else step
    return timed(run, batch, seconds=0.05 if setting.tiny else 0.6) | {"flops_per_step": flops}


def count(step: Callable[[int], None]) -> float:
    """FLOPs of a step, forward and backward; a multiply-add is two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step(0)
    return float(counter.get_total_flops())


def captured(step: Callable[[int], None]) -> Callable[[int], None]:
    """The step replayed as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for number in range(4):
            step(number)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(0)
    return lambda _: graph.replay()


def timed(step: Callable[[int], None], batch: int, seconds: float) -> Record:
    """After some steps to warm up, about so many seconds of them."""
    for number in range(5):
        step(number)
    synchronize()
    began = time.perf_counter()
    for number in range(3):
        step(number)
    synchronize()
    each = (time.perf_counter() - began) / 3
    steps = max(3, int(seconds / each))
    began = time.perf_counter()
    for number in range(steps):
        step(number)
    issued = time.perf_counter() - began
    synchronize()
    total = time.perf_counter() - began
    return {
        "images_per_second": batch * steps / total,
        "ms_per_step": 1000 * total / steps,
        "host_ms_per_step": 1000 * issued / steps,
        "steps": steps,
    }


def study(setting: Setting, faces: Path, weights: Path, epochs: int = 6) -> Record:
    """S2 on real faces: VGG16 from ImageNet weights, the last block trained on the frozen stages' cached output."""
    overrides = (
        "data=csv",
        f"data.root={faces}",
        "data.file=faces.csv",
        "data.image_dir=null",
        "data.image_column=file",
        "data.label_column=gender",
        "data.split_column=split",
        "model=vgg16",
        f"model.weights={weights}",
        "finetune=last_block",
        "augment=none",
        f"trainer.max_epochs={epochs}",
        "trainer=gpu" if setting.device == "cuda" else "trainer=cpu",
    )
    began = time.perf_counter()
    cfg, data, model = build(overrides)
    compile_steps(model, str(cfg.trainer.compile).lower(), cfg.data.batch_size)
    rate, built = Rate(), time.perf_counter() - began
    limit = {"limit_train_batches": 2, "limit_val_batches": 2} if setting.tiny else {}
    trainer = build_trainer(
        trainer_settings(cfg),
        callbacks=[create_feature_cache(cfg, model, data), rate],
        max_epochs=1 if setting.tiny else epochs,
        num_sanity_val_steps=0,
        **QUIET,
        **limit,
    )
    trainer.fit(model, datamodule=data)
    synchronize()
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return rate.record() | {
        "seconds": time.perf_counter() - began,
        "seconds_before_training": built,
        "epoch_seconds": [epoch["seconds"] for epoch in rate.epochs],
        "val_accuracy": metrics.get("val_accuracy"),
        "val_accuracy_low": metrics.get("val_accuracy_low"),
        "val_accuracy_high": metrics.get("val_accuracy_high"),
        "placement": data.placement,
    }


def pieces(setting: Setting, name: str, batch: int) -> Record:
    """Milliseconds of the parts of a step, each alone."""
    cfg, data, model = build(setting.overrides(CASES[name], batch))
    model = model.to(setting.device).train()
    model.on_train_epoch_start()
    height, width = cfg.model.image_size
    pixels = torch.randint(0, 256, (64 if setting.tiny else 2000, height, width, 3), dtype=torch.uint8)
    pixels, at = pixels.to(setting.device), torch.arange(batch, device=setting.device)
    images = pixels.index_select(0, at % len(pixels)).permute(0, 3, 1, 2)
    rng = torch.Generator().manual_seed(0)
    drawn = model.augmentation.parameters(images, rng).to(setting.device)
    row_numbers = data.images("train").rows[:batch]
    parts: dict[str, Callable[[int], Any]] = {
        "gather on the device": lambda _: pixels.index_select(0, at % len(pixels)),
        "gather on the host": lambda _: data.images("train").__getitems__(list(range(len(row_numbers)))),
        "draw": lambda _: model.augmentation.parameters(images, rng),
        "augmentation": lambda _: model.augmentation(images, rng),
        "augmentation, drawn before": lambda _: model.augmentation.change(images, drawn),
        "scaling": lambda _: model.scaled(images),
    }
    found = {part: timed(run, batch, 0.02 if setting.tiny else 0.1) for part, run in parts.items()}
    return {"pieces_ms": {part: [one["ms_per_step"], one["host_ms_per_step"]] for part, one in found.items()}}
