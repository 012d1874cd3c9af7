"""In a sweep of DDP runs, makes the worker processes of a job run that job, not the whole sweep.

Lightning starts them with this process's command line, which is the sweep's, and in the folder of a single run (Lightning
#11300). It leaves its variables in the environment, so that a second job would wait for processes that nobody starts.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.strategies.launchers import subprocess_script

from faceattr.config.quote_for_hydra import argument

VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What Lightning sets for its processes."""


@contextmanager
def processes_run_this_job() -> Iterator[None]:
    """In this block, the processes that Lightning starts run the current job of Hydra. At the end its variables are removed."""
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        yield
        return
    before = {name: os.environ.get(name) for name in VARIABLES}
    original_command = subprocess_script._hydra_subprocess_cmd
    subprocess_script._hydra_subprocess_cmd = job_command
    try:
        yield
    finally:
        subprocess_script._hydra_subprocess_cmd = original_command
        if dist.is_available() and dist.is_initialized():  # of a job that failed
            dist.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def job_command(local_rank: int) -> tuple[list[str], str]:
    """The command line of the process of this rank, and the folder to start it in."""
    hydra = HydraConfig.get()
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    job_overrides = [
        argument("hydra.run.dir", Path(hydra.runtime.output_dir)),
        f"hydra.job.name=train_ddp_process_{local_rank}",
        "hydra.output_subdir=null",  # .hydra/ is the first process's
        "hydra.mode=RUN",
    ]
    options = [word for folder in folders for word in ("--config-dir", folder)]
    return [
        sys.executable,
        "-m",
        "faceattr",
        "train",
        *options,
        *hydra.overrides.task,
        *job_overrides,
    ], hydra.runtime.cwd
