"""Where and in which precision to compute: the only place that looks at the hardware. Everything else is Lightning's."""

import ctypes
import logging
import os
import warnings
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from faceattr.config.schema import Trainer
from faceattr.data.parallel import cores
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)


def build_trainer(settings: Trainer, *, single: bool = False, **more: Any) -> pl.Trainer:
    """A Lightning trainer on the device and in the precision that the group `trainer` asks for.

    `single`: one of its devices, no files and no output: a checkpoint is evaluated once, by one process.
    Raises FaceattrError if the device is not there; it never takes another one.
    """
    for noisy in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")  # advice on choices made on purpose
    if settings.accelerator in ("cuda", "gpu") and not torch.cuda.is_available():
        raise FaceattrError(
            f"trainer.accelerator={settings.accelerator}: no CUDA device is visible here.\n"
            "Use trainer=cpu, or trainer=auto for what there is."
        )
    on_cuda = torch.cuda.is_available() and settings.accelerator != "cpu"
    if not on_cuda:
        _check_processes(settings.devices)
        if settings.compile == "graph" and not single:
            raise FaceattrError("trainer.compile=graph needs a CUDA device (trainer=gpu).")
    deterministic = resolve_deterministic(settings)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not torch.cuda.is_available():
        # Lightning makes torch ask NVIDIA's library for devices: every step of Adam would look for that file again
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    if not on_cuda:
        torch.set_num_threads(min(torch.get_num_threads(), cores()))  # it does not know the limits of a container
        keep_freed_memory()
    flush_denormals()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False} if single else {}
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=_one(settings.devices) if single else settings.devices,
            strategy="auto" if single else settings.strategy,
            precision=PRECISIONS[resolve_precision(settings)],
            deterministic=deterministic,
            benchmark=True if on_cuda and not deterministic else None,  # cuDNN's search for the fastest algorithms
            enable_model_summary=False,
            use_distributed_sampler=False,  # our sampler does it, and validation keeps every image once
            **quiet,
            **more,
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise FaceattrError(f"trainer: {error}") from error
    # At SIGTERM Lightning waits for the other processes of a DDP run, which may wait for this one, for ever.
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None
    return trainer


def _check_processes(devices: Any) -> None:
    """Without a GPU each device is a process of its own: refuse many more than there are cores."""
    most = max(8, cores())
    if str(devices).isdecimal() and int(devices) > most:
        raise FaceattrError(f"trainer.devices={devices}: each is a process on this CPU; at most {most} here.")


def _one(devices: Any) -> Any:
    """One of `trainer.devices`, a number or a list of indices."""
    return devices[:1] if isinstance(devices, list) else 1


def keep_freed_memory() -> None:
    """Tell glibc's malloc not to hand freed blocks back to the system.

    By default every activation of a step is mapped, faulted in page by page and unmapped again, which on a CPU can take
    more than half of the time of training a small network. Elsewhere than on glibc nothing is done.
    """
    try:
        malloc_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):  # mmap and trim threshold, top pad
        malloc_option(option, value)


def flush_denormals() -> None:
    """Numbers below 1e-38 become 0: the optimizer's state of a weight without gradient fades into them, and a CPU's square
    root of them is many times slower. To reach every thread of OpenMP it has to come before the first parallel operation."""
    torch.set_flush_denormal(True)


def resolve_deterministic(settings: Trainer) -> bool | Literal["warn"] | None:
    """`trainer.deterministic` as Lightning takes it. `auto`: false on CUDA, where a run repeats itself but for the last digits;
    nothing on a CPU, whose kernels repeat themselves as they are."""
    asked = str(settings.deterministic).lower()
    if asked == "auto":
        return False if torch.cuda.is_available() and settings.accelerator != "cpu" else None
    return "warn" if asked == "warn" else asked == "true"


PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def resolve_precision(settings: Trainer) -> str:
    """`32`, `bf16` or `16`. `auto`: bf16 where the device computes in it, fp16 on other CUDA devices, else float32."""
    if settings.precision != "auto":
        return str(settings.precision)
    if settings.accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"
    if settings.accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        able = cpu_capabilities()
        return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "32"
    return "32"


def cpu_capabilities() -> dict[str, Any]:
    """Instruction sets and name of the CPU; empty with a torch that cannot tell yet (before 2.12 or so)."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def describe_device(trainer: pl.Trainer) -> str:
    """The device by name: what a run stores."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_capabilities().get("cpu_name")
    return f"{device.type} × {trainer.num_devices} ({name or 'unknown'})"
