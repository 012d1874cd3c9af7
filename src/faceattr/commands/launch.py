"""Around Hydra: what `ckpt=…` on a command line means, and how an error is shown (as one message, exit code 1)."""

import logging
import os
import pkgutil
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from faceattr.config import schema
from faceattr.config.schema import SCHEMAS
from faceattr.config.validate import unknown_key
from faceattr.errors import FaceattrError

TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""The user wants to see where an error came from."""


def register_checkpoint_options(program: str) -> None:
    """Where the command line has `ckpt=…`, offer the groups that the checkpoint stores as Hydra options `checkpoint`.

    For `train` this is what resuming means: the run's own config, in its own folder, with the command line on top.
    For `evaluate` and `predict` the checkpoint's data and device are the defaults of conf/evaluate.yaml.
    """
    given = dict(arg.split("=", 1) for arg in sys.argv[1:] if "=" in arg and not arg.startswith("-"))
    ckpt = given.get("ckpt", "").strip("'\"")
    if not ckpt or ckpt in ("null", "None"):
        if program != "train" and not {"--help", "-h", "--cfg", "-c", "--info"} & set(sys.argv):
            raise FaceattrError(f"ckpt is not given: python {program}.py ckpt=…/checkpoints/best.ckpt")
        stored: dict[str, Any] = {}
    elif program == "train" and ("-m" in sys.argv or "--multirun" in sys.argv):
        raise FaceattrError("ckpt=… goes on with one run and cannot be swept over. Leave out -m or ckpt.")
    else:
        from faceattr.training.checkpoint import read_description

        stored = read_description(ckpt)["config"]
    store = ConfigStore.instance()
    groups = ("data", "model", "finetune", "augment", "optim", "trainer", "logger")
    for group in groups if stored or program != "train" else ():
        store.store(group=group, name="checkpoint", node=OmegaConf.create(stored.get(group) or {}))
    if program == "train" and stored:
        resumed = dict.fromkeys(groups, "checkpoint") | {key: _quoted(stored[key]) for key in ("seed", "loss", "name")}
        resumed |= {f"evaluate.{key}": _quoted(value) for key, value in (stored.get("evaluate") or {}).items()}
        checkpoints = Path(ckpt).expanduser().absolute().parent
        if checkpoints.name == "checkpoints" and "hydra.run.dir" not in given:  # the run's own folder, its .hydra kept
            resumed |= {"hydra.run.dir": _quoted(checkpoints.parent), "hydra.output_subdir": "null"}
        beside = next(i for i, arg in enumerate(sys.argv) if arg.startswith("ckpt="))
        sys.argv[beside:beside] = [f"{key}={value}" for key, value in resumed.items() if key not in given]


def _quoted(value: Any) -> str:
    """A value as Hydra's command line takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(_quoted, value))}]"
    if value is None or isinstance(value, int | float):
        return "null" if value is None else str(value)
    return "'" + str(value).replace("'", r"\'") + "'"


@contextmanager
def one_clear_error(program: str) -> Iterator[None]:
    """Turn every error that the user can mend into its message and exit code 1; HYDRA_FULL_ERROR=1 shows the traceback."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        _remove_empty_run()
        message = _message(error, program)
        if TRACEBACK or message is None:
            raise
        sys.stderr.write(f"Error: {message}\n")
        raise SystemExit(1) from None


def _message(error: BaseException, program: str) -> str | None:
    """One to three lines for the user, or None where the error is ours and its traceback is wanted."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, FaceattrError):
        return str(error)
    text = f"{error}\n{error.__cause__ or ''}"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(unknown[1], _keys_beside(unknown[1], program))
    if option := re.search(r"Could not find '([^']+)'", text):
        listed = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        available = [name for name in listed if name not in ("_base", "checkpoint")]
        return f"{'='.join(option[1].rsplit('/', 1))}: no such option.\nAvailable: {', '.join(available) or 'none'}"
    if field := re.search(r"Key '([^']+)' not in '(\w+)'\s+full_key: (\S+)", text):
        closed = getattr(schema, field[2], None)  # a group that is a dataclass there
        return unknown_key(field[3], [f.name for f in fields(closed)] if is_dataclass(closed) else [])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'writing'}: {error.strerror}"
    if isinstance(error, YAMLError):
        return f"{getattr(error, 'problem', error)} {str(getattr(error, 'problem_mark', '')).strip()}"
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf") or isinstance(error, OmegaConfBaseException):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(("object_type", "reference_type", "See http"))]
        return "\n".join(dict.fromkeys(lines[:3]))
    return None


def _keys_beside(key: str, program: str) -> list[str]:
    """The keys that stand where `key` was looked for: composed again, without the values of the command line."""
    groups = [arg for arg in sys.argv[1:] if re.fullmatch(r"[\w/]+=[\w\-]+", arg) and arg.split("=")[0] != key]
    try:
        hydra.core.global_hydra.GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            known = [group for group in groups if group.split("=")[0] in SCHEMAS["train"].__dataclass_fields__]
            node = OmegaConf.select(hydra.compose(program, known), key.rpartition(".")[0])
    except Exception:
        node = None
    fields = SCHEMAS[program].__dataclass_fields__ if "." not in key else {}
    return [str(name) for name in (node if OmegaConf.is_dict(node) else fields) if name != "_target_"]


def _remove_empty_run() -> None:
    """A run that failed before it wrote anything leaves no folder behind."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.RUN:
        return
    if OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):  # Hydra has made none yet
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    log_file = folder / f"{HydraConfig.get().job.name}.log"
    left = [path for path in folder.rglob("*") if path.is_file()]
    if left and all(path.parent == folder / ".hydra" or path == log_file for path in left):
        logging.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError, ValueError):  # until one is not empty, or none below the current folder
            for parent in folder.relative_to(Path.cwd()).parents[:-1]:
                parent.rmdir()


class RunFolder(Callback):
    """Hydra's hook before it writes anything: a folder holds one run, and no second one is begun in it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # the default folder is named by its choices
        folder = Path(config.hydra.run.dir)
        first_process = os.environ.get("LOCAL_RANK", "0") == "0"  # the others of a DDP run come to their own folder
        if first_process and not config.ckpt and (folder / "checkpoints").exists():
            last = folder / "checkpoints" / "last.ckpt"
            message = f"{folder} already holds a run. Give another hydra.run.dir, or go on with it: ckpt={last}"
            sys.exit(f"Error: {message}")  # Hydra swallows a callback's other exceptions


COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train", "faceattr.commands.train:train"),
    "evaluate": ("evaluate", "faceattr.commands.evaluate:evaluate"),
    "predict": ("predict", "faceattr.commands.predict:predict"),
    "preview": ("train", "faceattr.commands.preview:preview"),
    "leaks": ("train", "faceattr.commands.leaks:leaks"),
}
"""Command: the config of conf/ that it is composed from, and the function that it runs."""
OWN_FOLDER = {
    "preview": "${hydra:runtime.choices.data}_${hydra:runtime.choices.augment}",
    "leaks": "${hydra:runtime.choices.data}",
}
"""Commands with the keys of train.py that look at one configuration; their folder is outputs/<command>/<this>/<date_time>."""


def config_folder() -> Path:
    """conf/: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent.parent / "conf"


def main(command: str | None = None) -> None:
    """Run a command with the arguments of the command line: `faceattr train …`, or train.py for `main("train")`."""
    if command is None:
        if len(sys.argv) < 2 or sys.argv[1] not in (*COMMANDS, "cache"):
            sys.exit(f"usage: faceattr {{{','.join((*COMMANDS, 'cache'))}}} …")
        command = sys.argv.pop(1)
    if command == "cache":
        from faceattr.commands.cache import cache

        return cache(sys.argv[1:])
    config, function = COMMANDS[command]
    if command in OWN_FOLDER:
        _one_configuration(command)

    @hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config)
    def run(cfg: DictConfig) -> Any:
        with one_clear_error(config):
            return pkgutil.resolve_name(function)(cfg)  # torch is imported only once the config is composed

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that this is the one place
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # OpenMP's idle threads give their core back sooner
    with one_clear_error(config):
        register_checkpoint_options(config)
        run()


def _one_configuration(command: str) -> None:
    if {"-m", "--multirun"} & set(sys.argv):
        sys.exit(f"Error: {command} looks at one configuration. Leave out -m.")
    own = ["hydra.mode=RUN", f"hydra.run.dir=outputs/{command}/{OWN_FOLDER[command]}/${{now:%Y-%m-%d_%H-%M-%S-%f}}"]
    beside = [place for place, argument in enumerate(sys.argv) if place and "=" in argument] or [len(sys.argv)]
    sys.argv[beside[0] : beside[0]] = own  # before the user's, which win, and in one place, as argparse wants it
