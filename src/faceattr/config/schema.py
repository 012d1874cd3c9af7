"""The schema: every key of the config with its type, its choices and its bounds; conf/*.yaml say what each is for.

Closed groups (`finetune`, `augment`, `trainer`, `evaluate`) are dataclasses. Open groups (`data`, `model`, `optim`, `logger`)
name a function by `_target_`: here stand only the keys that all their options share.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class Data:
    """Keys that every source shares: conf/data/_base.yaml says what each is."""

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
    on_leak: str = "warn"
    balance: str = "none"
    attribute_weights: dict[str, float] | None = None
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
    """`train_from`: a stage's name, its index, or a list of [epoch, stage]. conf/finetune/_base.yaml says what each is."""

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
    compile: Any = "false"
    deterministic: Any = "auto"


@dataclass
class Judgement:
    """What is done with a model's predictions; conf/evaluate.yaml says what each is."""

    slices: list[str] | None = None
    leakage: bool = False
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
    "data.on_leak": ("warn", "error", "drop"),
    "data.balance": ("none", "loss", "sampler"),
    "data.pack": ("auto", "device", "disk", "ram", "off"),
    "finetune.cache": ("auto", "off"),
    "model.interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "model.scaling": ("unit", "imagenet", "caffe"),
    "model.pretrained": ("auto", "true", "false"),
    "optim.schedule": ("constant", "cosine"),
    "loss": ("auto", "bce", "ce", "one_vs_rest", "corn"),
    "split": ("auto", "train", "val", "test", "all"),
    "trainer.precision": ("auto", "32", "bf16", "16"),
    "trainer.checkpoint": ("best", "last"),
    "trainer.compile": ("false", "true", "graph", "reduce-overhead", "max-autotune"),
    "trainer.deterministic": ("auto", "true", "warn", "false"),
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
