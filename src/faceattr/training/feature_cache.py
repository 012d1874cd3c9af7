"""The output of the frozen stages: computed once for every image, stored by `data.disk_cache`, and served in place of pixels.

Without augmentation, the layers below the first trained one always give the same output for an image. It is stored in the run's
precision; later epochs, seeds, jobs of a sweep and the run's own evaluation start from it. With augmentation, `finetune.views`
augmented versions of each training image are stored.
"""

import hashlib
import json
import logging
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from faceattr.config.schema import Data, Finetune, Trainer
from faceattr.data import disk_cache, pixel_cache
from faceattr.data.array_file import RowArray
from faceattr.data.batches import RowSource, as_numpy
from faceattr.data.datamodule import FaceData
from faceattr.message_text import counted
from faceattr.models.freezing import Policy
from faceattr.models.staged_network import Network
from faceattr.progress import Progress
from faceattr.training.lightning_module import Classifier

log = logging.getLogger(__name__)

FORMAT = 1
NOTHING_CONSTANT = "no stage is frozen, or this network cannot run its frozen stages separately"


def reason_disabled(
    finetune: Finetune, data: Data, trainer: Trainer, network: Network, policy: Policy, *, augmented: bool
) -> str | None:
    """Why the output of the frozen stages is not stored in this run; None if it is."""
    if finetune.cache == "off":
        return "finetune.cache=off"
    if not any(network.num_constant_layers(start) for _, start in policy.steps):
        return NOTHING_CONSTANT
    if augmented and not finetune.views:
        return (
            "images are augmented; augment=none stores it, finetune.views=K stores K augmented versions of each image"
        )
    if data.pack == "off":
        return "data.pack=off stores nothing"
    if trainer.limit_batches:
        return "trainer.limit_batches leaves out most images"
    return None


class FeatureCache(pl.Callback):
    """Lets training and prediction start after the frozen stages: `data` gives their output, the module runs the rest.

    In training it follows the finetune policy from epoch to epoch. `views` augmented versions of each training image are
    stored, drawn by `seed`; 0: images are not augmented. `stored_arrays` lists what was stored, for run.json.
    """

    def __init__(self, data: FaceData, *, views: int = 0, seed: int = 0) -> None:
        self.data, self.views, self.seed = data, views, seed
        self.stored_arrays: list[dict[str, Any]] = []
        self._first_trainable_stage: int | None = None
        self._num_layers = 0
        self._views: RowSource | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        epoch, views = trainer.current_epoch, self.views
        self._serve(pl_module.policy.first_trainable_stage(epoch), trainer, pl_module, training=True)
        if self._views is not None:  # another view of each image in every epoch
            rows = self.data.rows("train")
            view = np.random.default_rng([self.seed, epoch]).integers(views, size=len(rows))
            self.data.images("train").serve(self._views, rows, np.arange(len(rows)) * views + view, self._num_layers)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self._serve(pl_module.first_trainable_stage, trainer, pl_module, training=False)

    def _serve(self, first_trainable_stage: int, trainer: pl.Trainer, module: Classifier, *, training: bool) -> None:
        """Lets every split of `data` give the output of the stages below `first_trainable_stage`. Training images with views still
        give pixels: their views are drawn in each epoch."""
        if first_trainable_stage == self._first_trainable_stage:
            return
        self._first_trainable_stage, self._views, started = first_trainable_stage, None, time.perf_counter()
        num_layers, views = module.network.num_constant_layers(first_trainable_stage), self.views
        self._num_layers = num_layers
        splits = ["val", "test"] if views else ["train", "val", "test"]
        rows = np.sort(np.concatenate([self.data.rows(split) for split in splits]))
        outputs: RowSource | None = None
        files: list[RowArray] = []
        try:
            if num_layers and views and training:
                files.append(self._outputs(self.data.rows("train"), trainer, module, num_layers, views))
                self._views = self.data.placed(files[0], "frozen stages' output of augmented views")
            if num_layers:
                files.append(self._outputs(rows, trainer, module, num_layers, 0))
                outputs = self.data.placed(files[-1], "frozen stages' output")
        except disk_cache.NoRoom as error:
            self._views = None
            log.warning("finetune.cache: %s The frozen stages run in every epoch", error)
        for split in ("train", "val", "test"):
            if outputs is None or split not in splits:
                self.data.images(split).serve_pixels()
            else:
                self.data.images(split).serve(outputs, rows, np.arange(len(rows)), num_layers)
        if outputs is not None:
            self.stored_arrays.append(
                {
                    "trained_from": module.network.stage_names[first_trainable_stage],
                    "files": [array.file.name for array in reversed(files)],
                    "seconds": round(time.perf_counter() - started, 2),
                }
            )

    def _outputs(
        self, rows: np.ndarray, trainer: pl.Trainer, module: Classifier, num_layers: int, views: int
    ) -> RowArray:
        """The output of the first `num_layers` layers for these rows of the table; with `views`, of that many augmented versions of
        each."""
        network, device = module.network, module.device
        for name in network.layer_names[:num_layers]:
            network.get_submodule(name).eval()
        loader = self.data.pixel_batches(rows)

        def run_layers(images: Tensor) -> Tensor:
            output = network(module.scaled(images.to(device)), end=num_layers)
            return (output.permute(0, 2, 3, 1) if output.ndim == 4 else output).contiguous().cpu()

        def compute(stored: RowArray) -> dict[str, Any]:
            rng = torch.Generator().manual_seed(self.seed)
            count = len(rows) * max(1, views)
            with Progress("Frozen stages", count) as progress:
                for view in range(max(1, views)):
                    position = view
                    for batch in loader:
                        images = module.augmentation(batch.inputs.to(device), rng) if views else batch.inputs
                        for output in as_numpy(run_layers(images)):
                            stored[position] = output
                            position += max(1, views)
                        progress.update(len(images))
            return {}

        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            probe = as_numpy(run_layers(next(iter(loader)).inputs[:1]))
            images_text = counted(len(rows), "image")
            inputs = f"{counted(views, 'augmented view')} of {images_text}" if views else images_text
            name = f"prefix-{self._key(rows, trainer, module, num_layers, views)}"
            shape = (len(rows) * max(1, views), *probe.shape[1:])
            return disk_cache.get_or_create(
                name, shape, probe.dtype, compute, title=f"Output of the frozen stages for {inputs}"
            )[0]

    def _key(self, rows: np.ndarray, trainer: pl.Trainer, module: Classifier, num_layers: int, views: int) -> str:
        """Changes with whatever the outputs depend on: images, input, weights, precision, views, device, version."""
        network = module.network
        modules = {name: network.get_submodule(name) for name in network.layer_names[:num_layers]}
        identity = [
            FORMAT,
            torch.__version__,
            module.device.type,
            str(trainer.precision),
            module.spec.scaling,
            [f"{name}: {part}" for name, part in modules.items()],
            [views, self.seed, module.augmentation.ranges] if views else None,
            pixel_cache.key([self.data.paths[row] for row in rows], self.data.spec),
        ]
        digest = hashlib.sha256(json.dumps(identity).encode())
        for part in modules.values():
            for name, tensor in part.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:24]
