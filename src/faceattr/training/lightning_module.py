"""The one LightningModule: a network with its task, input and finetune policy, trained and evaluated.

Everything random in an epoch is drawn from (seed, epoch), and the policy is a function of the epoch. So a run that is resumed
after an epoch is bit-equal to one that was never interrupted.
"""

import gc
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from faceattr.config.schema import Augment
from faceattr.data.augment import Augmentation
from faceattr.data.batches import Batch
from faceattr.data.decode import InputSpec
from faceattr.data.out_of_distribution import UsualInputs
from faceattr.data.pixel_scaling import mean_and_std
from faceattr.errors import FaceattrError
from faceattr.metrics import compute_metrics, registry
from faceattr.models import freezing, gradcam
from faceattr.models.staged_network import Network
from faceattr.models.task import Task


@dataclass(frozen=True)
class OptimizerSettings:
    """How a classifier's parameters are trained.

    `create(params=groups)` gives the optimizer; `lr` is the head's learning rate. Over `max_epochs` it rises for
    `warmup_epochs`, then is `constant`, or falls to 0 (`cosine`).
    """

    create: Callable[..., torch.optim.Optimizer]
    lr: float
    schedule: str
    warmup_epochs: int
    max_epochs: int

    def lr_factor(self, epoch: int) -> float:
        """What the learning rates are multiplied by in `epoch`."""
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        if self.schedule == "constant":
            return 1.0
        share = (epoch - self.warmup_epochs) / max(1, self.max_epochs - self.warmup_epochs)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


StepFunction = Callable[[Tensor, Tensor, Tensor | None, int], tuple[Tensor, Tensor]]
"""As `Classifier.step`: inputs, targets, the augmentation's parameters, layers applied → loss, sums."""


class Classifier(pl.LightningModule):
    """A network for a task, with the input it takes and the policy by which its stages are trained.

    `augment` changes training images at random. `class_weights` are factors of the training loss, as `Task.losses` takes
    them (None: equally). Without `optimizer` it can predict, and not be trained. `first_trainable_stage` is that of the
    current epoch; `temperature` divides the logits of predictions. `usual_inputs` says what training
    images look like; None: not known.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
        spec: InputSpec,
        policy: freezing.Policy,
        *,
        optimizer: OptimizerSettings | None = None,
        augment: Augment | None = None,
        class_weights: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.task, self.spec, self.policy = task, spec, policy
        self.optimizer, self.seed = optimizer, seed
        self.augmentation = Augmentation(asdict(augment) if augment else {})
        for name, value in zip(("mean", "std"), mean_and_std(spec.scaling).tolist(), strict=True):
            # expanded to the shape and memory layout of an image: broadcasting takes six times as long on a CPU
            channels = torch.tensor(value).view(1, 3, 1, 1).expand(1, 3, spec.height, spec.width)
            self.register_buffer(name, channels.contiguous(memory_format=torch.channels_last), persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.temperature = 1.0
        self.usual_inputs: UsualInputs | None = None
        self._val_values: Tensor | None = None
        self._val_count = 0
        self._sums: Tensor | None = None
        self.run_step: StepFunction = self.step
        self.run_logits: Callable[[Tensor, int], Tensor] = self.logits
        self.compiled = "false"
        self.first_trainable_stage = policy.first_trainable_stage(0)
        freezing.freeze(self.network, self.first_trainable_stage)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, outputs] of uint8 images [B, 3, H, W]."""
        return self.network(self.scaled(images))

    def scaled(self, images: Tensor) -> Tensor:
        """Uint8 images as the network takes them: float32, scaled as `model.scaling` says."""
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
        before, self.first_trainable_stage = (
            self.first_trainable_stage,
            self.policy.first_trainable_stage(self.current_epoch),
        )
        freezing.freeze(self.network, self.first_trainable_stage)
        if self.first_trainable_stage != before:
            wrap_again(self.trainer)
        self.train()
        seed = (self.seed * 1_000_003 + self.current_epoch) % 2**62
        seed += self.global_rank << 40  # far from the seeds of other epochs
        torch.manual_seed(seed)  # dropout
        self._augment_rng = torch.Generator().manual_seed(seed)

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
        logits, targets, rows = self.run_logits(batch.inputs, batch.layers_applied), batch.targets, batch.rows
        parts = (self.task.probabilities(logits), targets, self.task.losses(logits, targets), rows)
        values = torch.cat([part.float().view(len(rows), -1) for part in parts], 1)  # rows: exact up to 2**24
        count = self._val_count + len(values)
        # one tensor, not one per batch: see training/inference_torch.py
        if self._val_values is None or count > len(self._val_values):
            free = values.new_empty(max(1024, 2 * count), values.shape[1])
            self._val_values = (
                free if self._val_values is None else torch.cat((self._val_values[: self._val_count], free))
            )
        self._val_values[self._val_count : count] = values
        self._val_count = count

    def on_validation_epoch_end(self) -> None:
        assert self._val_values is not None
        values = self._val_values[: self._val_count]
        self._val_values, self._val_count = None, 0
        if self.trainer.world_size > 1:
            values = self._from_all(values)
        k = len(self.task.classes)
        probabilities, targets, losses = values[:, :k], values[:, k:-2], values[:, -2]
        targets = targets if self.task.multilabel else targets[:, 0].long()
        if not bool(losses.isfinite().all()):
            raise FaceattrError(
                f"The validation loss is no longer finite in epoch {self.current_epoch}: training diverged.\n"
                "Lower optim.lr, or set trainer.gradient_clip or trainer.precision=32. last.ckpt is from the epoch before."
            )
        metrics = compute_metrics.all_metrics(self.task, probabilities.cpu(), targets.cpu())
        self.log_dict({**self._training_metrics(), "val_loss": losses.mean(), **registry.logged(metrics)})

    def _training_metrics(self) -> dict[str, Tensor]:
        """Means over the epoch's training images, each measured in its step, with dropout and augmentation."""
        if self._sums is None:
            return {}
        loss, right, count = self.all_gather(self._sums).view(-1, 3).sum(0)
        self._sums = None
        return {"train_loss": loss / count, "train_accuracy": right / count}

    def _from_all(self, values: Tensor) -> Tensor:
        """The images of every process in the table's order, each once: see `rank_share`."""
        gathered = self.all_gather(values).flatten(0, 1).cpu()
        _, first = np.unique(gathered[:, -1].numpy(), return_index=True)
        return gathered[torch.from_numpy(first)]

    def predict_step(self, batch: Batch, _: int) -> tuple[Tensor, Tensor]:
        """Probabilities [B, classes] and the table rows [B] they belong to, on the device."""
        logits = self.logits(batch.inputs, batch.layers_applied)
        return self.task.probabilities(logits, self.temperature), batch.rows

    def explain(self, images: Tensor, classes: Tensor) -> np.ndarray:
        """Grad-CAM, float32 [B, H, W] from 0 to 1, of uint8 images [B, 3, H, W]: what speaks for `classes` [B]."""
        with torch.no_grad():
            inputs = self.scaled(images.to(self.device))
        return gradcam.heatmaps(self.network, self.task, inputs, classes.to(self.device))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.optimizer is not None, "a classifier without optimizer settings cannot be trained"
        return self.optimizer.create(params=freezing.parameter_groups(self.network, self.policy, self.optimizer.lr))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the learning rates. They are a function of the config, the epoch and the step, and no state of a scheduler is
        restored: a resumed run with another `trainer.max_epochs` follows its own schedule."""
        settings, policy, epoch = self.optimizer, self.policy, self.current_epoch
        assert settings is not None
        share = (batch_idx + 1) / self.trainer.num_training_batches
        for group in self.trainer.optimizers[0].param_groups:
            stage = policy.stage_names.index(group["name"])
            rate = settings.lr * policy.lr_factor(stage) * settings.lr_factor(epoch)
            group["lr"] = rate * policy.warmup_factor(stage, epoch, share)

    def on_train_epoch_end(self) -> None:
        rates = {f"lr-{group['name']}": group["lr"] for group in self.trainer.optimizers[0].param_groups}
        for logger in self.trainer.loggers:
            logger.log_metrics(rates, self.global_step)


def wrap_again(trainer: pl.Trainer) -> None:
    """In a DDP run, average the gradients of the parameters that are trained now. `DistributedDataParallel` averages those that
    were trained when it wrapped the module; a stage that is trained later would differ from process to process, without an
    error (Lightning #20340). Its weights are sent from the first process to the others once more."""
    strategy = trainer.strategy
    if isinstance(strategy.model, DistributedDataParallel):
        strategy.model = strategy.lightning_module
        gc.collect()  # the old wrapper refers to itself, and holds buffers as large as the gradients
        strategy.configure_ddp()
