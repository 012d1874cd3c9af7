"""What `ckpt=…` on a command line adds to it: the config that the checkpoint stores."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from faceattr.config.checkpoint_path import checkpoint_file, existing_path
from faceattr.config.command_to_paste import command_to_paste
from faceattr.config.quote_for_hydra import argument, argument_value, quoted
from faceattr.config.stored_config import GROUPS, with_own_paths
from faceattr.errors import FaceattrError


def add_config_from_checkpoint(command: str, arguments: Sequence[str]) -> list[str]:
    """`arguments`, with the config of the checkpoint in `ckpt=…` below them.

    The groups that the checkpoint stores become the options `from_checkpoint` of Hydra's groups. For `train` this is what resuming
    means: the run's own config, in its own folder, with the command line on top. For `evaluate` and `predict` the
    checkpoint's data and device are the defaults of conf/evaluate.yaml and conf/predict.yaml.
    """
    overrides = dict(
        argument.split("=", 1) for argument in arguments if "=" in argument and not argument.startswith("-")
    )
    ckpt = argument_value("ckpt", arguments)
    trains = command not in ("evaluate", "predict", "serve", "export")
    if not ckpt:
        if not trains and not {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i"} & set(arguments):
            meant = [
                text.removeprefix("--ckpt=") for text in arguments if text[:1] != "-" or text.startswith("--ckpt=")
            ]
            path = next(
                (argument("ckpt", text) for text in meant if text and "=" not in text), "ckpt=…/checkpoints/best.ckpt"
            )
            raise FaceattrError(
                f"ckpt is not given. Arguments have the form key=value: {command_to_paste(command)} {path}"
            )
        stored: dict[str, Any] = {}
    elif command == "train" and {"-m", "--multirun"} & set(arguments):
        raise FaceattrError("ckpt=… goes on with one run and cannot be swept over. Leave out -m or ckpt.")
    else:
        check_exported(command, ckpt)
        stored = with_own_paths(stored_config(ckpt))
    if stored or not trains:
        for group in GROUPS:
            node = OmegaConf.create(stored.get(group) or {})
            ConfigStore.instance().store(group=group, name="from_checkpoint", node=node)
    if not trains or not stored:
        return list(arguments)
    place = next(place for place, argument in enumerate(arguments) if argument.startswith("ckpt="))
    resumed = [
        f"{key}={value}"
        for key, value in resumed_overrides(command, str(ckpt), stored, overrides).items()
        if key not in overrides
    ]
    return [*arguments[:place], *resumed, *arguments[place:]]


def check_exported(command: str, ckpt: str) -> None:
    """Raises FaceattrError where `ckpt` is an exported folder, and the command needs a checkpoint."""
    from faceattr.training.exported_folder import is_exported

    if command not in ("predict", "serve") and is_exported(Path(ckpt).expanduser()):
        raise FaceattrError(
            f"ckpt={ckpt}: this is an exported model, for predict and serve. {command} needs a run's checkpoint."
        )


def stored_config(ckpt: str) -> dict[str, Any]:
    """The config in a checkpoint; of an exported folder, its group `faces`."""
    from faceattr.training.exported_folder import error_without_torch, faces_keys, is_exported

    path = existing_path(ckpt)
    if is_exported(path):
        return {"faces": faces_keys(path)}
    if find_spec("torch"):
        checkpoint_file(path)  # a folder is refused before torch is imported, which takes seconds
    try:
        from faceattr.training.checkpoint_format import read_description
    except ModuleNotFoundError as error:
        raise error_without_torch(path, error.name) from error
    config: dict[str, Any] = read_description(ckpt)["config"]
    return config


def resumed_overrides(command: str, ckpt: str, stored: dict[str, Any], overrides: dict[str, str]) -> dict[str, str]:
    """The overrides that make a run's own config of conf/train.yaml; for `train`, in the run's own folder."""
    resumed = dict.fromkeys(GROUPS, "from_checkpoint") | {key: quoted(stored[key]) for key in ("seed", "loss", "name")}
    resumed |= {f"evaluate.{key}": quoted(value) for key, value in (stored.get("evaluate") or {}).items()}
    checkpoints = Path(ckpt).expanduser().absolute().parent
    if (
        command == "train" and checkpoints.name == "checkpoints" and "hydra.run.dir" not in overrides
    ):  # its .hydra stays as it is
        resumed |= {"hydra.run.dir": quoted(checkpoints.parent), "hydra.output_subdir": "null"}
    return resumed
