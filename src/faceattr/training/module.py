"""The one LightningModule: a network with its task, input and finetune policy, trained and judged.

Everything random in an epoch is drawn from (seed, epoch), and the policy is a function of the epoch, so that a run
resumed at an epoch's boundary is bit-equal to one that was never interrupted.
"""

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from faceattr import __version__
from faceattr.config.instantiate import instantiate
from faceattr.config.schema import Model
from faceattr.data.augment import Augmentation
from faceattr.data.batches import Batch
from faceattr.data.decode import SCALINGS, InputSpec
from faceattr.errors import FaceattrError
from faceattr.metrics import evaluation, registry
from faceattr.models import freezing, gradcam
from faceattr.models.network import Network, limited_parameters
from faceattr.models.task import Task
from faceattr.training import checkpoint
from faceattr.training.fast_step import StepFunction
from faceattr.training.trainer import resolve_precision


class Classifier(pl.LightningModule):
    """`cfg` is the whole run's config; `about` is added to the checkpoint's description (fingerprint, weights).

    `class_weights` are factors of the training loss, as `Task.losses` takes them (None: equally).
    `first_trainable_stage` is that of the current epoch.
    """

    def __init__(
        self,
        cfg: DictConfig,
        network: Network,
        task: Task,
        class_weights: Tensor | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.cfg, self.task, self.about = cfg, task, about or {}
        self.network = network.to(memory_format=torch.channels_last)
        self.policy = build_policy(cfg, network)
        self.augmentation = Augmentation(cfg.augment)
        for name, value in zip(("mean", "std"), SCALINGS[cfg.model.scaling], strict=True):
            # of an image's shape and layout: numbers to be repeated over pixels would take six times as long on a CPU
            channels = torch.tensor(value).view(1, 3, 1, 1).expand(1, 3, *cfg.model.image_size)
            self.register_buffer(name, channels.contiguous(memory_format=torch.channels_last), persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.temperature = 1.0
        self._seen: Tensor | None = None
        self._seen_rows = 0
        self._sums: Tensor | None = None
        self.run_step: StepFunction = self.step
        self.first_trainable_stage = self.policy.first_trainable_stage(0)
        freezing.freeze(self.network, self.first_trainable_stage)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, outputs] of uint8 images [B, 3, H, W]."""
        return self.network(self.scaled(images))

    def scaled(self, images: Tensor) -> Tensor:
        """What the network takes: float32, as `model.scaling` says."""
        return images.float().sub_(self.mean).div_(self.std)

    def logits(self, inputs: Tensor, layers_applied: int) -> Tensor:
        """Logits [B, outputs] of a batch's inputs: the network runs the layers that were not yet applied."""
        return self.network(inputs, begin=layers_applied) if layers_applied else self(inputs)

    def train(self, mode: bool = True) -> "Classifier":
        """Frozen stages stay in evaluation mode, whoever asks: Lightning calls this after each validation too."""
        super().train(mode)
        if mode:
            freezing.eval_frozen(self.network, self.first_trainable_stage)
        return self

    def on_train_epoch_start(self) -> None:
        self.first_trainable_stage = self.policy.first_trainable_stage(self.current_epoch)
        freezing.freeze(self.network, self.first_trainable_stage)
        self.train()
        seed = (self.cfg.seed * 1_000_003 + self.current_epoch) % 2**62
        torch.manual_seed(seed)  # dropout
        self._augment_rng = torch.Generator().manual_seed(seed + self.global_rank)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        inputs, parameters = batch.inputs, None
        if self.augmentation.active and not batch.layers_applied:
            if self.augmentation.capturable and inputs.device.type != "cpu":
                drawn = self.augmentation.parameters(inputs, self._augment_rng)
                parameters = drawn.to(inputs.device, non_blocking=True)
            else:
                inputs = self.augmentation(inputs, self._augment_rng)
        loss, sums = self.run_step(inputs, batch.targets, parameters, batch.layers_applied)
        self._sums = sums if self._sums is None else self._sums + sums  # logged once an epoch: no sync in a step
        return loss

    def step(
        self, inputs: Tensor, targets: Tensor, parameters: Tensor | None, layers_applied: int
    ) -> tuple[Tensor, Tensor]:
        """The device's part of a training step, from pixels and the augmentation's parameters to the loss that is minimised.

        Also returns float32 [3]: the sum of the images' unweighted losses, how many are right, and how many there are. Nothing
        here waits for the device or decides on a value, so that it can be compiled, or captured in a CUDA graph.
        """
        if parameters is not None:
            inputs = self.augmentation.change(inputs, parameters)
        logits = self.logits(inputs, layers_applied)
        losses = self.task.losses(logits, targets)
        with torch.no_grad():
            right = self.task.correct(self.task.probabilities(logits), targets)
            sums = torch.stack((losses.sum(), right.sum().float(), losses.new_full((), len(targets))))
        weighted = losses if self.class_weights is None else self.task.losses(logits, targets, self.class_weights)
        return weighted.mean(), sums

    def validation_step(self, batch: Batch, _: int) -> None:
        logits, targets, rows = self.logits(batch.inputs, batch.layers_applied), batch.targets, batch.rows
        parts = (self.task.probabilities(logits), targets, self.task.losses(logits, targets), rows)
        found = torch.cat([part.float().view(len(rows), -1) for part in parts], 1)  # rows: exact up to 2**24
        used = self._seen_rows + len(found)
        if self._seen is None or used > len(self._seen):  # one tensor, not one per batch: see predictor.Collected
            room = found.new_empty(max(1024, 2 * used), found.shape[1])
            self._seen = room if self._seen is None else torch.cat((self._seen[: self._seen_rows], room))
        self._seen[self._seen_rows : used] = found
        self._seen_rows = used

    def on_validation_epoch_end(self) -> None:
        assert self._seen is not None
        seen = self._seen[: self._seen_rows]
        self._seen, self._seen_rows = None, 0
        if self.trainer.world_size > 1:
            seen = self._from_all(seen)
        k = len(self.task.classes)
        probabilities, targets, losses = seen[:, :k], seen[:, k:-2], seen[:, -2]
        targets = targets if self.task.multilabel else targets[:, 0].long()
        if not bool(losses.isfinite().all()):
            raise FaceattrError(
                f"The validation loss is no longer finite in epoch {self.current_epoch}: training diverged.\n"
                "Lower optim.lr, or set trainer.gradient_clip or trainer.precision=32. last.ckpt is from the epoch before."
            )
        metrics = evaluation.evaluate(self.task, probabilities.cpu(), targets.cpu())
        self.log_dict({**self._training_metrics(), "val_loss": losses.mean(), **registry.logged(metrics)})

    def _training_metrics(self) -> dict[str, Tensor]:
        """Of the epoch that ends: while it was trained, dropout and augmentation on."""
        if self._sums is None:
            return {}
        loss, right, count = self.all_gather(self._sums).view(-1, 3).sum(0)
        self._sums = None
        return {"train_loss": loss / count, "train_accuracy": right / count}

    def _from_all(self, seen: Tensor) -> Tensor:
        """The images of every process, each once: ranks hold unequal numbers, so they are padded with row -1."""
        most = int(self.all_gather(torch.tensor(len(seen), device=self.device)).max())
        padded = torch.cat((seen, seen.new_full((most - len(seen), seen.shape[1]), -1)))
        gathered = self.all_gather(padded).flatten(0, 1)
        return gathered[gathered[:, -1] >= 0]

    def predict_step(self, batch: Batch, _: int) -> tuple[Tensor, Tensor]:
        """Probabilities [B, classes] and the table rows [B] they belong to, on the device."""
        logits = self.logits(batch.inputs, batch.layers_applied)
        return self.task.probabilities(logits, self.temperature), batch.rows

    def explain(self, images: Tensor, classes: Tensor) -> np.ndarray:
        """Grad-CAM, float32 [B, H, W] from 0 to 1, of uint8 images [B, 3, H, W]: what speaks for `classes` [B]."""
        with torch.no_grad():
            inputs = self.scaled(images.to(self.device))
        return gradcam.heatmaps(self.network, self.task, inputs, classes.to(self.device))

    def configure_optimizers(self) -> dict[str, Any]:
        optim = self.cfg.optim
        drop: tuple[str, ...] = ()
        groups = freezing.parameter_groups(self.network, self.policy, optim.lr)
        if self.cfg.trainer.gradient_clip and "fused" in optim and resolve_precision(self.cfg.trainer) != "32":
            drop = ("fused",)  # it unscales gradients itself, after they would have to be clipped
        optimizer = instantiate(optim, "optim", drop=drop, params=groups)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}

    def _lr_factor(self, epoch: int) -> float:
        optim, epochs = self.cfg.optim, self.cfg.trainer.max_epochs
        if epoch < optim.warmup_epochs:
            return (epoch + 1) / (optim.warmup_epochs + 1)
        if optim.schedule == "constant":
            return 1.0
        share = (epoch - optim.warmup_epochs) / max(1, epochs - optim.warmup_epochs)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    def on_save_checkpoint(self, saved: dict[str, Any]) -> None:
        saved[checkpoint.KEY] = {
            "format": checkpoint.FORMAT,
            "version": __version__,
            "config": OmegaConf.to_container(self.cfg, resolve=True),
            "classes": list(self.task.classes),
            "ordinal": self.task.kind == "ordinal",
            "multilabel": self.task.multilabel,
            **self.about,
        }


def build_policy(cfg: DictConfig, network: Network) -> freezing.Policy:
    """The finetune policy for this network; refused where a process group could not follow it."""
    train_from = cfg.finetune.train_from
    plain = OmegaConf.to_container(train_from) if OmegaConf.is_config(train_from) else train_from
    policy = freezing.Policy.parse(plain, cfg.finetune.lr_decay, network.stage_names)
    if policy.changes and "ddp" in cfg.trainer.strategy:
        raise FaceattrError(
            "finetune.train_from changes during training, which desynchronises a DDP run.\n"
            "Use one stage (freezing.train_from=…), or one device (trainer=gpu)."
        )
    return policy


def build_network(cfg: DictConfig, task: Task) -> Network:
    """The network that `model` describes, with as many logits as the task needs; random weights."""
    with limited_parameters(cfg.model.get("max_parameters", Model.max_parameters)):  # absent in older checkpoints
        network = instantiate(cfg.model, "model", num_logits=task.num_logits)
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            momentum, eps = cfg.model.get("bn_momentum"), cfg.model.get("bn_eps")  # absent in older checkpoints
            layer.momentum = layer.momentum if momentum is None else momentum
            layer.eps = layer.eps if eps is None else eps
    return network


def input_spec(cfg: DictConfig) -> InputSpec:
    """What the config's model takes."""
    height, width = cfg.model.image_size
    return InputSpec(height, width, cfg.model.interpolation, cfg.model.scaling)


def load(path: str) -> tuple[Classifier, dict[str, Any]]:
    """The trained classifier in a checkpoint, from that file alone, and the checkpoint's description with its `epoch`."""
    content = checkpoint.read(path)
    described = {**content[checkpoint.KEY], "epoch": content["epoch"]}
    cfg = OmegaConf.create(described["config"])
    kind = {key: described.get(key, False) for key in ("ordinal", "multilabel")}
    task = Task.from_config(described["classes"], loss=cfg.loss, **kind)
    classifier = Classifier(cfg, build_network(cfg, task), task)
    try:
        classifier.load_state_dict(content["state_dict"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise FaceattrError(f"ckpt={path}: its weights do not fit its own config; the file is damaged.") from error
    broken = [name for name, tensor in content["state_dict"].items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise FaceattrError(
            f"ckpt={path}: {broken[0]} holds values that are not finite; training diverged, or the file is damaged."
        )
    classifier.temperature = described.get("temperature", 1.0)
    classifier.first_trainable_stage = classifier.policy.first_trainable_stage(described["epoch"])
    return classifier.eval(), described
