"""Where and in which precision to compute: the only place that looks at the hardware. Everything else is Lightning's."""

import logging
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)


def trainer(cfg: DictConfig, **more: Any) -> pl.Trainer:
    """A Lightning trainer on the device and in the precision that the group `trainer` asks for.

    Raises a FaceattrError where the device is not there; never goes on on another one.
    """
    for noisy in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")  # advice on choices made on purpose
    if cfg.accelerator in ("cuda", "gpu") and not torch.cuda.is_available():
        raise FaceattrError(
            f"trainer.accelerator={cfg.accelerator}: no CUDA device is visible here.\n"
            "Use trainer=cpu, or trainer=auto for what there is."
        )
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    try:
        return pl.Trainer(
            accelerator=cfg.accelerator,
            devices=cfg.devices,
            strategy=cfg.strategy,
            precision=PRECISIONS[precision(cfg)],
            enable_model_summary=False,
            use_distributed_sampler=False,  # our sampler does it, and validation keeps every image once
            **more,
        )
    except (
        ValueError,
        RuntimeError,
    ) as error:  # Lightning's MisconfigurationException is neither: it is shown as it is
        raise FaceattrError(f"trainer: {error}") from error


PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def precision(cfg: DictConfig) -> str:
    """`32`, `bf16` or `16`. `auto`: bf16 where the device computes in it, fp16 on other CUDA devices, else float32."""
    if cfg.precision != "auto":
        return str(cfg.precision)
    if cfg.accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"
    if cfg.accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        able = torch.cpu.get_capabilities()
        return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "32"
    return "32"


def describe(used: pl.Trainer) -> str:
    """The device by name: what a run stores."""
    device = used.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.cpu.get_capabilities().get("cpu_name")
    return f"{device.type} × {used.num_devices} ({name or 'unknown'})"
