"""The same networks trained by others on the GPU: Lightning with ImageFolder, and timm's loader and loop; AMP, channels_last."""

import logging
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from gpu_build import composed, create_classifier, trainer_settings
from gpu_cases import AUTOCAST, CASES, QUIET, Rate, Record, Setting, synchronize
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from faceattr.models.task import Task
from faceattr.training.trainer import resolve_precision


def network_of(setting: Setting, name: str, batch: int) -> tuple[nn.Module, str, tuple[int, int]]:
    """Our network with its frozen stages, the precision, and the input's size."""
    cfg = composed(setting.overrides(CASES[name], batch))
    torch.manual_seed(0)
    task = Task.from_config(["female", "male"], ordinal=False, loss="bce")
    network = create_classifier(cfg, task).network
    height, width = cfg.model.image_size
    return network, resolve_precision(trainer_settings(cfg)), (height, width)


class LitModule(pl.LightningModule):
    """As in the Lightning-Hydra template: torchmetrics, logged each epoch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        from torchmetrics import MeanMetric
        from torchmetrics.classification import BinaryAccuracy

        self.network = network.to(memory_format=torch.channels_last)
        self.train_loss, self.train_acc = MeanMetric(), BinaryAccuracy()

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        images, targets = batch
        logits = self.network(images.contiguous(memory_format=torch.channels_last))[:, 0]
        loss = binary_cross_entropy_with_logits(logits.float(), targets.float())
        self.train_loss(loss)
        self.train_acc(logits, targets)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-4)


def lightning(setting: Setting, name: str, batch: int) -> Record:
    """ImageFolder with v2 transforms in `setting.workers` processes, pinned memory, Lightning's own precision."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    network, precision, size = network_of(setting, name, batch)
    chain = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(size),
            v2.RandomAffine(degrees=10, translate=(0.05, 0.05), scale=(0.9, 1.1)),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    loader = DataLoader(
        ImageFolder(f"{setting.folder}/train", chain),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=setting.workers,
        persistent_workers=True,
        pin_memory=setting.device == "cuda",
    )
    rate = Rate()
    steps = 3 if setting.tiny else min(len(loader), max(20, 6000 // batch))
    trainer = pl.Trainer(
        accelerator=setting.device,
        devices=1,
        precision={"bf16": "bf16-mixed", "16": "16-mixed", "32": "32-true"}[precision],
        max_epochs=2,
        limit_train_batches=steps,
        callbacks=[rate],
        enable_model_summary=False,
        benchmark=True,
        **QUIET,
    )
    trainer.fit(LitModule(network), loader)
    return rate.record() | {"workers": setting.workers}


def timm(setting: Setting, name: str, batch: int) -> Record:
    """timm's create_loader (its prefetcher on CUDA), its optimizer and the loop of its train.py with AMP and channels_last."""
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.utils import AverageMeter

    network, precision, size = network_of(setting, name, batch)
    device, dtype = torch.device(setting.device), AUTOCAST[precision]
    network = network.to(device=device, memory_format=torch.channels_last).train()
    dataset = create_dataset("", root=str(setting.folder), split="train", is_training=True, batch_size=batch)
    loader = create_loader(
        dataset,
        input_size=(3, *size),
        batch_size=batch,
        is_training=True,
        scale=(0.8, 1.0),
        ratio=(0.8, 1.25),
        color_jitter=None,
        num_workers=setting.workers,
        use_prefetcher=setting.device == "cuda",
        pin_memory=setting.device == "cuda",
        device=device,
    )
    optimizer = create_optimizer_v2([p for p in network.parameters() if p.requires_grad], opt="adamw", lr=1e-4)
    steps = 6 if setting.tiny else 2 * min(len(loader), max(20, 6000 // batch))
    losses, timed_from, images = AverageMeter(), steps // 2, 0
    began = time.perf_counter()
    done = 0
    while done < steps:
        for inputs, targets in loader:
            if done == timed_from:  # the first half warms up the workers too
                synchronize()
                began, images = time.perf_counter(), 0
            if setting.device != "cuda":
                inputs, targets = inputs.to(device), targets.to(device)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast(setting.device, dtype=dtype, enabled=dtype != torch.float32):
                loss = binary_cross_entropy_with_logits(network(inputs)[:, 0].float(), targets.float())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            images, done = images + len(inputs), done + 1
            if done % 50 == 0:
                losses.update(loss.item(), len(inputs))
            if done == steps:
                break
    synchronize()
    seconds = time.perf_counter() - began
    return {
        "images_per_second": images / seconds,
        "ms_per_step": 1000 * seconds / (steps - timed_from),
        "steps": steps - timed_from,
        "workers": setting.workers,
    }
