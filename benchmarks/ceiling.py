"""The ceiling: our network, finetune policy, optimizer, precision and memory layout in a bare loop on random tensors
that lie in memory (on the device) already, in the training precision. Where a run keeps the output of its frozen stages, the loop
starts from tensors of that output's shape. Nothing is read, augmented, scaled, measured, judged or saved.

    python ceiling.py CLASSES IMAGES EPOCHS [override …]        (overrides as of train.py; trainer=gpu works too)
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from clock import Clock
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from faceattr.config.validate import validate
from faceattr.models.task import Task
from faceattr.training.feature_cache import reason_disabled
from faceattr.training.module import Classifier, build_network
from faceattr.training.trainer import keep_freed_memory, resolve_precision

ROOT = Path(__file__).resolve().parents[1]
AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config that `train.py` would see."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return validate(compose("train", ["name=benchmark", *overrides]))


def run(clock: Clock, cfg: DictConfig, classes: int, images: int, epochs: int) -> None:
    """`epochs` times the steps of `images` images, after three steps to warm up."""
    on_cuda = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    if not on_cuda:
        keep_freed_memory()
    torch.manual_seed(0)
    task = Task.from_config([f"class{i}" for i in range(classes)], ordinal=False, loss=cfg.loss)
    model = Classifier(cfg, build_network(cfg, task), task).to(device).train()
    optimizer = model.configure_optimizers()["optimizer"]
    precision = resolve_precision(cfg.trainer)
    dtype = AUTOCAST.get(precision, torch.float32)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16")
    autocast = torch.autocast(device.type, dtype=dtype, enabled=precision != "32")
    kept_in_runs = not reason_disabled(cfg, model.network, model.policy, model.augmentation.active)
    cut, batch = (
        model.network.num_constant_layers(model.policy.first_trainable_stage(0)) if kept_in_runs else 0,
        cfg.data.batch_size,
    )
    with torch.no_grad(), autocast:
        pictures = torch.randn(batch, 3, *cfg.model.image_size, device=device, dtype=dtype)
        kept = model.network(pictures.contiguous(memory_format=torch.channels_last), 0, cut)
    layout = torch.channels_last if kept.dim() == 4 else torch.contiguous_format
    inputs = [torch.randn_like(kept, dtype=dtype).contiguous(memory_format=layout) for _ in range(4)]
    targets = torch.randint(classes, (batch,), device=device)

    def step(number: int) -> None:
        with autocast:
            loss = task.losses(model.network(inputs[number % len(inputs)], cut), targets).mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    for number in range(3):
        step(number)
    for _ in range(epochs):
        if on_cuda:
            torch.cuda.synchronize()
        clock.begin()
        for number in range(images // batch):
            step(number)
        if on_cuda:
            torch.cuda.synchronize()
        clock.step(images // batch * batch)
        clock.end()
    clock.report(modules_kept=cut, precision=precision, parameters=sum(p.numel() for p in model.network.parameters()))


if __name__ == "__main__":
    run(Clock(), composed(sys.argv[4:]), *map(int, sys.argv[1:4]))
