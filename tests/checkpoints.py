"""A checkpoint that was never trained: for tests of what is done with one."""

from pathlib import Path
from typing import Any

import torch
from composing import compose_config
from omegaconf import OmegaConf

from faceattr.commands.build_from_config import create_classifier, input_spec
from faceattr.models.task import Task
from faceattr.training import checkpoint_format

ON_CPU = ("trainer=cpu", "trainer.precision=32")
TINY = ("model=cnn", "model.blocks=[[4]]", "model.image_size=[32,32]", *ON_CPU)


def untrained(
    file: Path,
    *overrides: str,
    classes: tuple[str, ...] = ("female", "male"),
    multilabel: bool = False,
    ordinal: bool = False,
    base: tuple[str, ...] = TINY,
    **about: Any,
) -> Path:
    """Writes the checkpoint of a network with random weights (a tiny one) into `file`; `about` is for its description."""
    cfg = compose_config(*base, *overrides)
    task = Task.from_config(list(classes), ordinal=ordinal, loss=cfg.loss, multilabel=multilabel)
    torch.manual_seed(0)
    model = create_classifier(cfg, task)
    description = checkpoint_format.describe(
        OmegaConf.to_container(cfg, resolve=True),
        task,
        fingerprint="0" * 16,
        weights="random",
        detector=input_spec(cfg).faces.detector,
        **about,
    )
    content = {"state_dict": model.state_dict(), "epoch": 1}
    checkpoint_format.AtomicCheckpointIO(description).save_checkpoint(content, file)
    return file
