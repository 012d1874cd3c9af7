"""The Lightning peer, as the Lightning-Hydra templates have it: a LightningModule with torchmetrics, torchvision's ImageFolder and
v2 transforms, a DataLoader with two workers, fp32.

    python -m peers.lightning CASE FOLDER EPOCHS        (in benchmarks/)
"""

import logging
import sys
import warnings

import pytorch_lightning as pl
import torch
from cases import CASES, Case
from epoch_timer import EpochTimer
from torch.utils.data import DataLoader
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from peers import networks


class LitModule(pl.LightningModule):
    def __init__(self, net: torch.nn.Module, criterion: torch.nn.Module, case: Case) -> None:
        super().__init__()
        self.net, self.criterion, self.case = net, criterion, case
        self.binary = isinstance(criterion, torch.nn.BCEWithLogitsLoss)
        classes = 3 if case.faces == "imfdb" else 2
        self.train_acc, self.val_acc = (
            BinaryAccuracy() if self.binary else MulticlassAccuracy(num_classes=classes) for _ in range(2)
        )
        self.train_loss, self.val_loss, self.val_acc_best = MeanMetric(), MeanMetric(), MaxMetric()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def model_step(self, batch):
        x, y = batch
        logits = self.forward(x)
        if self.binary:
            logits = logits.squeeze(1)
            return self.criterion(logits, y.float()), (logits > 0).long(), y
        return self.criterion(logits, y), logits.argmax(1), y

    def training_step(self, batch, batch_idx):
        loss, preds, targets = self.model_step(batch)
        self.train_loss(loss)
        self.train_acc(preds, targets)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, preds, targets = self.model_step(batch)
        self.val_loss(loss)
        self.val_acc(preds, targets)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self):
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self):
        trained = [p for p in self.parameters() if p.requires_grad]
        if self.case.optimizer == "adam":
            return torch.optim.Adam(trained, lr=self.case.lr)
        return torch.optim.RMSprop(trained, lr=self.case.lr, alpha=0.9)


class TimeEpochs(pl.Callback):
    def __init__(self, timer: EpochTimer) -> None:
        self.timer = timer

    def on_train_epoch_start(self, trainer, pl_module):
        self.timer.start_epoch()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.timer.step(len(batch[1]))

    def on_train_epoch_end(self, trainer, pl_module):  # after the validation
        self.timer.end_epoch()


def transforms(case: Case, train: bool) -> v2.Compose:
    """Resize, the augmentation that is nearest to the case's, float, and normalisation if the case has one."""
    chain: list[torch.nn.Module] = [v2.ToImage(), v2.Resize(case.size)]
    if train and case.augment:
        zoom, shift = case.augment["zoom_range"], case.augment.get("width_shift_range", 0)
        chain.append(
            v2.RandomAffine(
                degrees=case.augment.get("rotation_range", 0),
                translate=(shift, shift) if shift else None,
                scale=(1 - zoom, 1 + zoom),
                shear=case.augment["shear_range"],
            )
        )
        chain += [v2.RandomHorizontalFlip()] if case.augment.get("horizontal_flip") else []
    chain.append(v2.ToDtype(torch.float32, scale=True))
    if case.scaling == "caffe":
        chain.append(v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    return v2.Compose(chain)


def main(name: str, folder: str, epochs: str) -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    timer, case = EpochTimer(), CASES[name]
    workers = {"batch_size": case.batch, "num_workers": 2, "persistent_workers": True}
    train, val = (ImageFolder(f"{folder}/{split}", transforms(case, split == "train")) for split in ("train", "val"))
    net, criterion = networks.build(name)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=int(epochs), logger=False, callbacks=[TimeEpochs(timer)], **quiet
    )
    trainer.fit(LitModule(net, criterion, case), DataLoader(train, shuffle=True, **workers), DataLoader(val, **workers))
    timer.print_json(parameters=sum(p.numel() for p in net.parameters()))


if __name__ == "__main__":
    main(*sys.argv[1:])
