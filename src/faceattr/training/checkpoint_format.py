"""The format of a checkpoint: how it is written, read, and upgraded from an older faceattr.

A checkpoint is Lightning's, with a description under `KEY`: plain containers only, so that loading it runs no code
(`weights_only=True`). The description has `format` (see `FORMAT`), `version` (of faceattr), `config` (the run's, its
interpolations resolved), `classes`, `ordinal`, `multilabel`, `fingerprint` (of the data), `weights` (where training started
from), `pretrained_stages` (those that started from pretrained weights), `detector` (the SHA-256 of the face detector, empty
without one), `inputs` (statistics of the training images, see `out_of_distribution`) and, once fitted, `temperature`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor

from faceattr import __version__
from faceattr.config.checkpoint_path import checkpoint_file
from faceattr.config.command_to_paste import command_to_paste
from faceattr.config.instantiate import group_settings
from faceattr.config.quote_for_hydra import argument
from faceattr.config.schema import Faces, Finetune, Model
from faceattr.config.stored_config import check_stored_config
from faceattr.config.validate_keys import validate_settings
from faceattr.data.decode import InputSpec
from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.file_kinds import kind_of_file
from faceattr.data.out_of_distribution import UsualInputs
from faceattr.errors import FaceattrError
from faceattr.files import damaged_part, write_atomically
from faceattr.message_text import is_class_name
from faceattr.models.freezing import Policy
from faceattr.models.staged_network import build_network
from faceattr.models.task import Task
from faceattr.training.lightning_module import Classifier

FORMAT = 4
"""Rises when the description changes so that older code would read it wrong. `upgrade` reads the formats before it."""

KEY = "faceattr"
MOVED = {
    "faceattr.networks.": "faceattr.models.conv_stacks.",
    "faceattr.timm_networks.": "faceattr.models.timm_backbone.",
    "faceattr.sources.": "faceattr.data.sources.",
}
"""Format 1: the modules that a `_target_` in its config names, and where they are now."""


def read(path: str | Path, *, mmap: bool = True) -> dict[str, Any]:
    """The whole checkpoint, its description upgraded, tensors memory-mapped by default. Raises FaceattrError: not one of ours."""
    path = checkpoint_file(path)
    if (part := damaged_part(path)) is not None:
        raise FaceattrError(f"ckpt={path}: damaged: {part} is not as it was written.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:
            raise FaceattrError(f"ckpt={path}: {_what_it_is(path)}") from error
    described = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(described, dict) or "format" not in described:
        raise FaceattrError(
            f"ckpt={path}: not a faceattr checkpoint. "
            f"To start from its weights instead: {command_to_paste('train', argument('model.weights', path))}"
        )
    if described["format"] not in range(1, FORMAT + 1):
        raise FaceattrError(
            f"ckpt={path}: format {described['format']}, written by faceattr {described.get('version', '?')}; "
            f"this version reads formats 1 to {FORMAT}. Use that version, or train again."
        )
    described = _check_fields(upgrade(described), content, f"ckpt={path}")
    check_stored_config(described["config"], f"ckpt={path}")
    return content | {KEY: described}


def _what_it_is(path: Path) -> str:
    """For a file that is no PyTorch checkpoint: what it is, and a checkpoint beside it to give instead."""
    kind = kind_of_file(path)
    problem = f"this file is {kind}" if kind and "ZIP" not in kind else "truncated, or not a PyTorch checkpoint"
    beside = sorted(path.parent.glob("*.ckpt"), key=lambda file: file.name != "best.ckpt")
    right = next((str(file) for file in beside if file != path), "such as RUN/checkpoints/best.ckpt")
    return f"{problem}. Give a checkpoint of a run: {right}"


FIELDS: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "classes": (list,),
    "fingerprint": (str,),
    "weights": (str,),
    "pretrained_stages": (list,),
}
"""Fields that every description has, and their types."""
CONFIG_FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "loss"), (str,)),
    "seed": (int,),
    **dict.fromkeys(("data", "model", "finetune", "augment", "optim", "trainer"), (dict,)),
}
"""What every stored config has, and its types."""


def _check_fields(description: dict[str, Any], content: dict[str, Any], source: str) -> dict[str, Any]:
    """Every field that is read later is there and of its type. Raises FaceattrError: the field."""
    for name, types in FIELDS.items():
        if not isinstance(description.get(name), types):
            raise FaceattrError(f"{source}: its field {name} is missing or damaged.")
    for name, types in CONFIG_FIELDS.items():
        if not isinstance(description["config"].get(name), types):
            raise FaceattrError(f"{source}: the {name} of its config is missing or damaged.")
    classes = description["classes"]
    named = classes and all(isinstance(name, str) and is_class_name(name) for name in classes)
    if not named or len(set(classes)) < len(classes):
        raise FaceattrError(f"{source}: its classes are damaged: {ascii(classes)[:80]}")
    temperature = description.get("temperature", 1.0)
    if not isinstance(temperature, int | float) or not 1e-3 <= temperature <= 1e3:
        raise FaceattrError(
            f"{source}: its temperature is {str(temperature)[:40]}; it must be a number from 0.001 to 1000."
        )
    if (
        not isinstance(content.get("state_dict"), dict)
        or not isinstance(content.get("epoch"), int)
        or not 0 <= content["epoch"] < 10**9
    ):
        raise FaceattrError(f"{source}: its weights or its epoch are missing.")
    return description


def upgrade(description: dict[str, Any]) -> dict[str, Any]:
    """A description of any format that `read` takes, in the present one."""
    config = description.get("config")
    if not isinstance(config, dict):
        return description
    if description["format"] == 1:
        config = {key: _moved_target(group) for key, group in config.items()}
        description = {**description, "format": 2}
    if description["format"] <= 3:  # data=csv took any column Gender for study S0's
        config = _with_map_of_gender(config)
    if description["format"] == 2:  # it knew whole images only
        description = {**description, "format": 3, "detector": ""}
    if description["format"] == 3:  # every stage had the head's learning rate
        finetune = config.get("finetune")
        config = config | ({"finetune": {**finetune, "pretrained_lr": 1.0}} if isinstance(finetune, dict) else {})
        description = {**description, "format": 4, "pretrained_stages": []}
    return {**description, "config": config}


def _with_map_of_gender(config: dict[str, Any]) -> dict[str, Any]:
    """The config, with the meaning that `data=csv` gave 0 and 1 in a column `Gender` without `data.label_map`."""
    data = config.get("data")
    if not isinstance(data, dict) or data.get("_target_") != "faceattr.data.sources.csv.load":
        return config
    mapped = data.get("label_map") or data.get("bins") or data.get("attributes") or data.get("label_column") != "Gender"
    classes = data.get("classes") or []
    if mapped or not isinstance(classes, list) or any(name not in ("male", "female") for name in classes):
        return config
    return config | {"data": data | {"label_map": {0: "male", 1: "female"}}}


def _moved_target(group: Any) -> Any:
    """A group of the config, its `_target_` by the present name of its module."""
    if not isinstance(group, dict) or "_target_" not in group:
        return group
    target = str(group["_target_"])
    old = next((prefix for prefix in MOVED if target.startswith(prefix)), "")
    return group | {"_target_": MOVED.get(old, "") + target.removeprefix(old)}


def epochs_done(path: str | Path) -> int:
    """How many epochs the run of a checkpoint had trained when it was written."""
    try:
        return int(read(path)["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError) as error:
        raise FaceattrError(f"ckpt={path}: it does not say how far its run was; the file is damaged.") from error


def read_description(path: str | Path) -> dict[str, Any]:
    """The checkpoint's description, upgraded."""
    return read(path)[KEY]


def has_best_epoch(path: str | Path) -> bool:
    """Whether the run had written a best.ckpt when it wrote this checkpoint."""
    states = read(path).get("callbacks") or {}
    return any(str(name).startswith("Checkpoints") and state.get("best_k_models") for name, state in states.items())


def load(path: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """The trained classifier in a checkpoint, from that file alone, and the checkpoint's description with its `epoch`."""
    content = read(path)
    description = {**content[KEY], "epoch": content["epoch"]}
    config = description["config"]
    kind = {key: description.get(key, False) for key in ("ordinal", "multilabel")}
    task = Task.from_config(description["classes"], loss=config["loss"], **kind)
    misfit = f"ckpt={path}: its weights do not fit its own config; the file is damaged."
    stored = sum(tensor.numel() for tensor in content["state_dict"].values() if isinstance(tensor, Tensor))
    try:  # a network much larger than its weights is refused before memory is taken for it; timm replaces some parameters
        network = build_network(config["model"] | {"max_parameters": 2 * max(1, stored)}, task.num_logits)
    except FaceattrError as error:
        raise FaceattrError(f"{misfit} {error}") from error
    finetune = group_settings(config["finetune"], Finetune)
    policy = Policy.parse(finetune.train_from, finetune.lr_decay, network.stage_names)
    spec = InputSpec.from_config(group_settings(config["model"], Model), input_faces(description, f"ckpt={path}"))
    classifier = Classifier(network, task, spec, policy, seed=config["seed"])
    own = classifier.state_dict()
    if any(not _fits(tensor, own[name]) for name, tensor in content["state_dict"].items() if name in own):
        raise FaceattrError(misfit)
    try:
        classifier.load_state_dict(content["state_dict"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise FaceattrError(misfit) from error
    broken = [name for name, tensor in content["state_dict"].items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise FaceattrError(
            f"ckpt={path}: {broken[0]} holds values that are not finite; training diverged, or the file is damaged."
        )
    classifier.temperature = description.get("temperature", 1.0)
    classifier.usual_inputs = UsualInputs.from_stored(description.get("inputs"), f"ckpt={path}")
    classifier.first_trainable_stage = policy.first_trainable_stage(description["epoch"])
    return classifier.eval(), description


def _fits(tensor: Any, expected: Tensor) -> bool:
    """Whether a stored tensor has values of the kind that the network has: PyTorch turns complex and whole numbers into others."""
    plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type != "meta"
    return plain and not tensor.is_complex() and tensor.is_floating_point() == expected.is_floating_point()


def input_faces(description: dict[str, Any], source: str) -> Faces:
    """The group `faces` of the stored config. Raises FaceattrError: no valid one, or faces found by a detector that is not ours."""
    try:
        faces = Faces(**validate_settings(description["config"].get("faces") or {}, "faces", Faces))
    except FaceattrError as error:
        raise FaceattrError(f"{source}: {error}") from error
    ours, stored = FaceRecipe.from_config(faces).detector, description.get("detector", "")
    if stored != ours:
        raise FaceattrError(
            f"{source}: its faces were found by a detector with SHA-256 {str(stored)[:64] or 'unknown'}; this version has {ours}."
        )
    return faces


def add_to_description(path: str | Path, **more: Any) -> None:
    """Writes the checkpoint anew, with `more` in its description."""
    content = read(path, mmap=False)  # Windows replaces no file that is mapped
    content[KEY] |= more
    AtomicCheckpointIO().save_checkpoint(content, path)


def describe(
    config: dict[str, Any],
    task: Task,
    *,
    fingerprint: str,
    weights: str,
    pretrained_stages: Sequence[str] = (),
    detector: str = "",
    inputs: UsualInputs | None = None,
) -> dict[str, Any]:
    """The description of a run's checkpoints. `config` is in plain containers; the fields are explained above."""
    return {
        "format": FORMAT,
        "version": __version__,
        "config": config,
        "classes": list(task.classes),
        "ordinal": task.kind == "ordinal",
        "multilabel": task.multilabel,
        "fingerprint": fingerprint,
        "weights": weights,
        "pretrained_stages": list(pretrained_stages),
        "detector": detector,
        **({"inputs": inputs.stored()} if inputs else {}),
    }


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints with a description, atomically: where the disk fills up, the previous one survives."""

    def __init__(self, description: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.description = description

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        content = checkpoint if self.description is None else checkpoint | {KEY: self.description}
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(target) as stream:
                torch.save(content, stream)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
            previous = f"The previous {target.name} is whole." if target.exists() else "There was none before."
            raise FaceattrError(f"Cannot write {target}: {_reason(error)}. {previous}") from error


def _reason(error: Exception) -> str:
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError):
            return chain.strerror or str(chain)
        chain = chain.__cause__ or chain.__context__
    return str(error).splitlines()[0]
