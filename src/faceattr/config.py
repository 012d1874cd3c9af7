"""Config: the types of every key, their checks, and the one place that builds objects from `_target_`.

Closed groups (`finetune`, `augment`, `trainer`) are dataclasses. Open groups (`data`, `model`, `optim`, `logger`) name a
function by `_target_`; their keys are checked against its signature, so that a new data set or model needs no schema.
Nothing here imports torch: composing a config stays quick.
"""

import difflib
import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from faceattr.errors import FaceattrError

ALLOWED_TARGETS = (
    "faceattr.sources.",
    "faceattr.networks.",
    "faceattr.timm_networks.",
    "torch.optim.",
    "pytorch_lightning.loggers.",
)


@dataclass
class Data:
    """Keys that every source shares: conf/data/shared.yaml says what each is."""

    root: str
    classes: list[str] | None = None
    batch_size: int = 32
    workers: int | None = None
    split: str = "auto"
    fractions: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    per_class: dict[str, int] | None = None
    max_images: int | None = None
    on_bad_image: str = "error"
    balance: str = "none"
    pack: str = "auto"


@dataclass
class Model:
    """Keys that every model shares: its input, where its weights come from, its batch norm's constants."""

    image_size: list[int]
    interpolation: str = "bilinear"
    scaling: str = "unit"
    pretrained: str = "auto"
    weights: str | None = None
    bn_momentum: float | None = None
    bn_eps: float | None = None


@dataclass
class Finetune:
    """`train_from`: a stage's name, its index, or a list of [epoch, stage]. conf/finetune/shared.yaml says what each is."""

    train_from: Any = 0
    lr_decay: float = 1.0
    cache: str = "auto"
    views: int | None = None


@dataclass
class Augment:
    """Ranges of the random changes to a training image; 0 and false leave it as it is."""

    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    shear_unit: str = "degrees"
    zoom: float = 0.0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    randaugment_ops: int = 0
    randaugment_magnitude: int = 9


@dataclass
class Optim:
    """Keys that every optimizer shares; the rest are the optimizer's own."""

    lr: float
    schedule: str = "constant"
    warmup_epochs: int = 0


@dataclass
class Trainer:
    """Device, precision and the length of training; conf/trainer/*.yaml."""

    accelerator: str = "auto"
    devices: Any = 1
    strategy: str = "auto"
    precision: str = "auto"
    max_epochs: int = 10
    patience: int | None = 5
    monitor: str = "val_loss"
    checkpoint: str = "best"
    gradient_clip: float | None = None
    limit_batches: int | None = None
    compile: bool = False


@dataclass
class Judgement:
    """What is done with a model's predictions; conf/evaluate.yaml says what each is."""

    slices: list[str] | None = None
    calibrate: bool = False
    precision: float | None = None
    recall: float | None = None


@dataclass
class Train:
    """Top level of conf/train.yaml."""

    name: str = "run"
    seed: int = 0
    loss: str = "auto"
    ckpt: str | None = None
    quirks: list[str] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)
    evaluate: Judgement = field(default_factory=Judgement)
    data: Any = None
    model: Any = None
    finetune: Finetune = field(default_factory=Finetune)
    augment: Augment = field(default_factory=Augment)
    optim: Any = None
    trainer: Trainer = field(default_factory=Trainer)
    logger: Any = None


@dataclass
class Evaluate:
    """Top level of conf/evaluate.yaml."""

    ckpt: str | None = None
    compare: str | None = None
    seed: int = 0
    split: str = "auto"
    evaluate: Judgement = field(default_factory=Judgement)
    data: Any = None
    trainer: Trainer = field(default_factory=Trainer)


@dataclass
class Predict:
    """Top level of conf/predict.yaml."""

    ckpt: str | None = None
    input: str | None = None
    batch_size: int = 64
    trainer: Trainer = field(default_factory=Trainer)


SCHEMAS: dict[str, Any] = {"train": Train, "evaluate": Evaluate, "predict": Predict}
SHARED: dict[str, Any] = {"data": Data, "model": Model, "optim": Optim}
CHOICES = {
    "data.split": ("auto", "identity", "random"),
    "augment.shear_unit": ("degrees", "radians"),
    "data.on_bad_image": ("error", "skip"),
    "data.balance": ("none", "loss", "sampler"),
    "data.pack": ("auto", "disk", "ram", "off"),
    "finetune.cache": ("auto", "off"),
    "model.interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "model.scaling": ("unit", "imagenet", "caffe"),
    "model.pretrained": ("auto", "true", "false"),
    "optim.schedule": ("constant", "cosine"),
    "loss": ("auto", "bce", "ce", "one_vs_rest"),
    "split": ("auto", "train", "val", "test", "all"),
    "trainer.precision": ("auto", "32", "bf16", "16"),
    "trainer.checkpoint": ("best", "last"),
    "trainer.monitor": (
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
        "val_average_precision",
        "val_auroc",
        "val_f1",
        "val_quadratic_kappa",
    ),
}
CLOSED: dict[str, set[str]] = {
    "": {name for schema in SCHEMAS.values() for name in schema.__dataclass_fields__},
    "finetune": set(Finetune.__dataclass_fields__),
    "augment": set(Augment.__dataclass_fields__),
    "trainer": set(Trainer.__dataclass_fields__),
    "evaluate": set(Judgement.__dataclass_fields__),
}
"""Keys of the groups that are dataclasses: Hydra's `+key=value` adds others without a word."""
NOT_NEGATIVE = ("seed", "data.seed", "data.workers")
POSITIVE = (
    "finetune.views",
    "data.batch_size",
    "data.max_images",
    "data.first_per_class",
    "data.last_per_class",
    "trainer.max_epochs",
    "trainer.patience",
    "optim.lr",
    "batch_size",
)

for _name, _schema in SCHEMAS.items():
    ConfigStore.instance().store(name=f"{_name}_schema", node=_schema)


def target_function(node: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """What `node._target_` names.

    Only what lies in `ALLOWED_TARGETS`, by its path and by where it is defined, is given: a checkpoint carries a config,
    and a stranger's must not run code. The environment variable FACEATTR_ALLOW (packages, comma-separated) adds to it.
    """
    if node.get("_target_") is None:
        raise FaceattrError(f"{key}: has no _target_; conf/{key}/shared.yaml is a base for the others, not an option.")
    target = str(node["_target_"])
    own = [f"{name.strip()}." for name in os.environ.get("FACEATTR_ALLOW", "").split(",") if name.strip()]
    allowed = (*ALLOWED_TARGETS, *own)
    try:
        found: Any = pkgutil.resolve_name(target) if target.startswith(allowed) else None
    except Exception as error:
        raise FaceattrError(f"{key}._target_={target} cannot be imported: {error}") from error
    if not f"{getattr(found, '__module__', None)}.".startswith(allowed):
        raise FaceattrError(
            f"{key}._target_={target} is not allowed. Targets lie in {', '.join(allowed)}\n"
            "To use a package of your own, name it in the environment variable FACEATTR_ALLOW."
        )
    return found


def instantiate(node: DictConfig, key: str, *, drop: tuple[str, ...] = (), **arguments: Any) -> Any:
    """Build what `node` describes, less the keys in `drop`, plus `arguments`: the only call site of Hydra's instantiate."""
    _refuse_nested_targets(node, key)
    target_function(node, key)
    kept = OmegaConf.create({name: value for name, value in node.items() if name not in drop})
    build = hydra_instantiate(kept, _partial_=True, _convert_="all")  # partial: OmegaConf would copy `arguments`
    try:
        return build(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise FaceattrError(f"{key} ({node['_target_']}): {error}") from error


def _refuse_nested_targets(node: Any, key: str) -> None:
    for name, value in node.items() if OmegaConf.is_dict(node) else enumerate(node):
        if OmegaConf.is_config(value):
            if OmegaConf.is_dict(value) and "_target_" in value:
                raise FaceattrError(f"{key}.{name}._target_: only a group itself may have a _target_.")
            _refuse_nested_targets(value, f"{key}.{name}")


def shared_keys(group: str) -> tuple[str, ...]:
    """Names of the keys that every option of an open group shares."""
    return tuple(SHARED[group].__dataclass_fields__)


def validated(cfg: DictConfig) -> DictConfig:
    """`cfg` with every interpolation resolved and every key, type and choice checked; paths made absolute.

    Raises a FaceattrError that names the key and what would be right.
    """
    if corrects_nothing(cfg):
        raise FaceattrError("quirks=corrected: nothing here was published. Give a study's preset too: experiment=…")
    for entry in cfg.get("published") or ():
        if not OmegaConf.is_dict(entry) or set(entry) != {"metric", "split", "value", "n", "source"}:
            raise FaceattrError(f"published: {entry} must have metric, split, value, n and source")
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise FaceattrError(f"Required and not given: {', '.join(missing)}. Give it as {missing[0]}=…")
    cfg = DictConfig(OmegaConf.to_container(cfg, resolve=True))
    for group, shared in SHARED.items():
        if group in cfg:
            cfg[group] = _checked_against_signature(cfg[group], group, shared)
    for group, closed in CLOSED.items():
        node = OmegaConf.select(cfg, group) if group else cfg
        if unknown := [str(name) for name in node or () if name not in closed]:
            raise FaceattrError(unknown_key(f"{group}.{unknown[0]}".lstrip("."), sorted(closed)))
    for key, choices in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        if value is None:
            continue
        spelled = "off" if value is False and "off" in choices else str(value).lower()  # YAML reads off as false
        if spelled not in choices:
            raise FaceattrError(f"{key}={value}: choose one of {', '.join(choices)}.")
        OmegaConf.update(cfg, key, spelled)
    for key in POSITIVE:
        value = OmegaConf.select(cfg, key)
        if value is not None and value <= 0:
            raise FaceattrError(f"{key}={value}: must be greater than 0.")
    for key in NOT_NEGATIVE:
        value = OmegaConf.select(cfg, key)
        if value is not None and value < 0:
            raise FaceattrError(f"{key}={value}: must be 0 or more.")
    for key in ("evaluate.precision", "evaluate.recall"):
        value = OmegaConf.select(cfg, key)
        if value is not None and not 0 < value <= 1:
            raise FaceattrError(f"{key}={value}: a share, above 0 and at most 1.")
    if "model" in cfg and (len(cfg.model.image_size) != 2 or min(cfg.model.image_size) < 1):
        raise FaceattrError(f"model.image_size={cfg.model.image_size}: give [height, width], e.g. [128,128].")
    for key in ("data.root", "model.weights", "ckpt", "compare"):
        if OmegaConf.select(cfg, key):
            OmegaConf.update(cfg, key, str(Path(OmegaConf.select(cfg, key)).expanduser().absolute()))
    return cfg


def corrects_nothing(cfg: DictConfig) -> bool:
    """Whether the command line asks for a study without its quirks, and there is no study."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return choices.get("quirks") == "corrected" and not cfg.get("published")


def _checked_against_signature(node: DictConfig, group: str, shared: Any) -> DictConfig:
    """`node` with the types that the shared keys and the target's own parameters declare."""
    function = target_function(node, group)
    parameters = inspect.signature(function).parameters
    given_by_code = {"params", "outputs"}
    types: dict[str, Any] = {name: _simple(f.type) for name, f in shared.__dataclass_fields__.items()}
    for name, parameter in parameters.items():
        if name not in given_by_code and parameter.kind is not parameter.VAR_KEYWORD:
            types.setdefault(name, _simple(parameter.annotation))
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [str(name) for name in node if name not in types and name != "_target_"]
    if unknown and not open_ended:
        raise FaceattrError(unknown_key(f"{group}.{unknown[0]}", list(types)))
    schema = OmegaConf.structured(make_dataclass(group.title(), [(k, types[str(k)]) for k in node if k in types]))
    try:
        typed = OmegaConf.merge(schema, {name: value for name, value in node.items() if name in types})
    except OmegaConfBaseException as error:
        key = f"{group}.{error.full_key or error.key}"
        raise FaceattrError(f"{key}: {str(error.msg or error).splitlines()[0]}") from error
    return OmegaConf.create({**node, **OmegaConf.to_container(typed)})  # type: ignore[dict-item]


def _simple(annotation: Any) -> Any:
    """The annotation where OmegaConf can check it, else Any."""
    probe = annotation if annotation is not inspect.Parameter.empty else Any
    try:
        OmegaConf.structured(make_dataclass("Probe", [("x", probe)]))
    except Exception:
        return Any
    return probe


def unknown_key(key: str, known: list[str]) -> str:
    """The message for a key that is not there: the nearest one, and all there are."""
    group, _, name = key.rpartition(".")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {group + '.' if group else ''}{near[0]}?" if near else ""
    where = f"Keys of {group}" if group else "Keys"
    return f"{key}: no such key.{hint}\n{where}: {', '.join(sorted(known))}"
