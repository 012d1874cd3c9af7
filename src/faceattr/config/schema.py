"""The schema: every key of the config with its type, default, choices, bounds and meaning; `docs/config.md` is made from it.

Closed groups (`faces`, `finetune`, `augment`, `trainer`, `evaluate`) are dataclasses. The options of an open group (`data`,
`model`, `optim`, `logger`) name a function by `_target_`: here stand the keys that all options of the group share, and an
option's own keys are the parameters of its function.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from faceattr.config.key_annotation import Key

MISSING: Any = "???"
"""The default of a key that must be given, as OmegaConf has it. No Hydra here: an exported model reads images without it."""
SEED_OF_RUN: Any = "${seed}"
LARGEST_SEED = 2**32 - 1
LARGEST_BATCH = 65_536


@dataclass
class Data:
    """Keys that every source shares."""

    root: Annotated[str, Key("The folder that holds the data.", is_path=True)] = MISSING
    classes: Annotated[list[str] | None, Key("Names of the classes in label order; null: the source's own.")] = None
    ordinal: Annotated[
        bool | None,
        Key("Whether classes are ordered. true: data.classes lists them in order; null: as the source says."),
    ] = None
    batch_size: Annotated[int, Key("Images in a batch, on each device.", minimum=1, maximum=LARGEST_BATCH)] = 32
    workers: Annotated[
        int | None,
        Key("Processes or threads that decode images; null: one for each core, up to 32.", minimum=0, maximum=1024),
    ] = None
    split: Annotated[
        str,
        Key(
            "How images are split. auto: as the source does, else by fractions; identity: by fractions, no person in two "
            "splits; random: images without a split are split by fractions, persons ignored.",
            choices=("auto", "identity", "random"),
        ),
    ] = "auto"
    fractions: Annotated[
        dict[str, float],
        Key("Share of images in each split; stratified by label, a person's images together.", minimum=0, maximum=1),
    ] = field(default_factory=lambda: {"train": 0.7, "val": 0.15, "test": 0.15})
    seed: Annotated[
        int,
        Key(
            "Seed of splits and draws; fix it to keep the same images over several seeds.",
            minimum=0,
            maximum=LARGEST_SEED,
        ),
    ] = SEED_OF_RUN
    per_class: Annotated[
        dict[str, int] | None,
        Key("Images of each class to draw for a split, such as {train: 1600, val: 800}; null: all.", minimum=0),
    ] = None
    max_images: Annotated[int | None, Key("The most images to use, drawn by seed; null: all.", minimum=1)] = None
    on_bad_image: Annotated[
        str,
        Key(
            "An image that is missing or cannot be read. error: stop; skip: leave it out and list it in bad_images.csv.",
            choices=("error", "skip"),
        ),
    ] = "error"
    on_bad_label: Annotated[
        str,
        Key(
            "An image without a label, or with one that is no class. error: stop; skip: leave it out and list it in "
            "bad_labels.csv.",
            choices=("error", "skip"),
        ),
    ] = "error"
    on_leak: Annotated[
        str,
        Key(
            "Copies of an image in two splits. warn: go on; error: stop; drop: leave out the training images that have a "
            "copy in another split.",
            choices=("warn", "error", "drop"),
        ),
    ] = "warn"
    balance: Annotated[
        str,
        Key(
            "Classes of unequal size. none: as they are; loss: weighted in the loss; sampler: drawn equally often.",
            choices=("none", "loss", "sampler"),
        ),
    ] = "none"
    attribute_weights: Annotated[
        dict[str, float] | None,
        Key("With attributes: factors of their losses, such as {Young: 2}; null: 1 for each.", above=0, maximum=1e6),
    ] = None
    pack: Annotated[
        str,
        Key(
            "Where decoded pixels are stored. auto: disk, and a GPU's memory too where they take at most half of what is free; "
            "device: the GPU's memory; off: nowhere, decoded in every epoch.",
            choices=("auto", "device", "disk", "ram", "off"),
        ),
    ] = "auto"


@dataclass
class Head:
    """The classifier on top of a network's features."""

    pool: Annotated[
        str,
        Key("avg: average pooling to pool_size x pool_size; flatten: all features.", choices=("avg", "flatten")),
    ] = "avg"
    pool_size: Annotated[int, Key("Rows and columns after average pooling.", minimum=1, maximum=64)] = 1
    hidden: Annotated[list[int], Key("Units of each hidden layer.", minimum=1, maximum=65_536)] = field(
        default_factory=list
    )
    batch_norm: Annotated[bool, Key("Batch norm after the ReLU of each hidden layer.")] = False
    dropout: Annotated[
        Any, Key("Dropout rate after each hidden layer, or a list with one rate for each.", minimum=0, below=1)
    ] = 0.0
    input_dropout: Annotated[float, Key("Dropout rate before the first layer.", minimum=0, below=1)] = 0.0


@dataclass
class Model:
    """Keys that every model shares."""

    image_size: Annotated[list[int], Key("Height and width of the input in pixels.", minimum=1, maximum=4096)] = MISSING
    interpolation: Annotated[
        str,
        Key(
            "How pixels are interpolated when images are resized.",
            choices=("nearest", "bilinear", "bicubic", "lanczos"),
        ),
    ] = "bilinear"
    resize: Annotated[
        str,
        Key(
            "How whole images of another shape than image_size come to it. stretch: each axis by itself; letterbox: as a whole, "
            "with grey bars; crop: the largest part of that shape around the centre.",
            choices=("stretch", "letterbox", "crop"),
        ),
    ] = "stretch"
    scaling: Annotated[
        Any,
        Key(
            "Scale of the pixels. unit: 0 to 1; imagenet: unit minus ImageNet's mean, divided by its standard deviation; "
            "caffe: 0 to 255 minus ImageNet's mean; half: -1 to 1; auto: what the weights expect (unit if there are none); or "
            "[mean, std] of unit, each a number or three.",
            choices=("unit", "imagenet", "caffe", "half", "auto"),
        ),
    ] = "unit"
    pretrained: Annotated[
        str,
        Key(
            "Published weights. true: required; false: none; auto: where they can be had, else random weights and a warning.",
            choices=("auto", "true", "false"),
        ),
    ] = "false"
    weights: Annotated[
        str | None, Key("A local file of weights: .pth, .safetensors or a faceattr checkpoint.", is_path=True)
    ] = None
    bn_momentum: Annotated[
        float | None,
        Key(
            "Momentum of every batch norm; null: as the model has it (torch: 0.1; Keras's .99 is 0.01).",
            minimum=0,
            maximum=1,
        ),
    ] = None
    bn_eps: Annotated[
        float | None,
        Key("Epsilon of every batch norm; null: as the model has it (torch: 1e-5; Keras: 1e-3).", above=0, maximum=1),
    ] = None
    max_parameters: Annotated[
        int, Key("The most parameters a network may have; a larger one is refused before it takes memory.", minimum=1)
    ] = 500_000_000
    head: Annotated[Head, Key("The classifier on top of the features.")] = field(default_factory=Head)


@dataclass
class Faces:
    """How faces are found and cropped, in training and in use; a checkpoint stores it."""

    mode: Annotated[
        str,
        Key(
            "none: images are crops already; square: the detected box, grown by margin, not turned; align: the five points of the "
            "face are brought to fixed places.",
            choices=("none", "square", "align"),
        ),
    ] = "none"
    margin: Annotated[
        float,
        Key(
            "What is added on each side: a share of the box (square) or of the standard crop (align).",
            above=-0.4,
            maximum=3,
        ),
    ] = 0.0
    pick: Annotated[
        str,
        Key(
            "The face that stands for an image with several: the largest, the nearest to the centre, the one with the highest "
            "score. In prediction it is used only if it is given on the command line, else every face is taken (all).",
            choices=("largest", "central", "certain", "all"),
        ),
    ] = "largest"
    on_none: Annotated[
        str,
        Key(
            "An image without a face, in training and evaluation. error: stop; skip: leave it out; whole: take the whole image. "
            "In prediction only whole has an effect.",
            choices=("error", "skip", "whole"),
        ),
    ] = "error"
    min_score: Annotated[float, Key("The least score of a face, from the detector.", minimum=0.1, maximum=1)] = 0.6
    min_size: Annotated[float, Key("The least width and height of a face in pixels of the image.", minimum=0)] = 10.0
    weights: Annotated[
        str | None,
        Key(
            "The detector's file, face_detection_yunet_2023mar.onnx; null: from the cache, else downloaded once.",
            is_path=True,
        ),
    ] = None


@dataclass
class Finetune:
    """Which stages are trained, and what is stored of the frozen ones."""

    train_from: Annotated[
        Any,
        Key(
            "The lowest trainable stage: a name, an index (-1 is the head), or a list of [epoch, stage] such as "
            "[[0,head],[2,block5],[6,block3]]."
        ),
    ] = 0
    lr_decay: Annotated[float, Key("Learning-rate factor for each stage below the head.", above=0, maximum=10)] = 1.0
    pretrained_lr: Annotated[
        float,
        Key(
            "Learning-rate factor of the stages below the head that start from pretrained weights; their rate rises over the "
            "first epoch that trains them. 1: as other stages, and no such rise.",
            above=0,
            maximum=1,
        ),
    ] = 0.3
    cache: Annotated[
        str,
        Key(
            "Output of the frozen stages. auto: computed once for each image; off: in every epoch.",
            choices=("auto", "off"),
        ),
    ] = "auto"
    views: Annotated[
        int | None,
        Key(
            "With augmentation: augmented views of each training image whose frozen output is stored; null: none is stored.",
            minimum=1,
            maximum=1000,
        ),
    ] = None


@dataclass
class Augment:
    """Ranges of the random changes to a training image; 0 and false leave it as it is."""

    rotation: Annotated[float, Key("Degrees, drawn from ±rotation.", minimum=0, maximum=180)] = 0.0
    shift: Annotated[float, Key("Share of height and of width, drawn from ±shift.", minimum=0, maximum=1)] = 0.0
    shear: Annotated[float, Key("Angle in shear_unit, drawn from ±shear.", minimum=0, maximum=90)] = 0.0
    shear_unit: Annotated[
        str, Key("Unit of shear; Keras before 2.1.3 read radians.", choices=("degrees", "radians"))
    ] = "degrees"
    zoom: Annotated[float, Key("Factor for each axis, drawn from 1 ± zoom.", minimum=0, below=1)] = 0.0
    flip: Annotated[bool, Key("Mirror every second image, drawn at random.")] = False
    brightness: Annotated[float, Key("Factor drawn from 1 ± brightness.", minimum=0, maximum=1)] = 0.0
    contrast: Annotated[float, Key("Factor drawn from 1 ± contrast.", minimum=0, maximum=1)] = 0.0
    randaugment_ops: Annotated[int, Key("Operations of RandAugment for each image.", minimum=0, maximum=20)] = 0
    randaugment_magnitude: Annotated[int, Key("Strength of those operations.", minimum=0, maximum=30)] = 9


@dataclass
class Optim:
    """Keys that every optimizer shares."""

    lr: Annotated[float, Key("Learning rate of the head.", above=0, maximum=100)] = MISSING
    schedule: Annotated[
        str,
        Key("Learning rate over the epochs. cosine: falls to 0 at trainer.max_epochs.", choices=("constant", "cosine")),
    ] = "constant"
    warmup_epochs: Annotated[
        int, Key("Epochs in which the learning rate rises first.", minimum=0, maximum=1_000_000)
    ] = 0


@dataclass
class TorchOptimizer:
    """Keys of the optimizers in torch.optim; torch's documentation says more."""

    weight_decay: Annotated[float, Key("Weight decay.", minimum=0, maximum=100)] = 0.0
    eps: Annotated[float, Key("Added to the denominator, for numerical stability.", minimum=0, maximum=1)] = 1e-8
    betas: Annotated[list[float], Key("Decay rates of Adam's running averages.", minimum=0, below=1)] = field(
        default_factory=lambda: [0.9, 0.999]
    )
    momentum: Annotated[float, Key("Momentum.", minimum=0, below=1)] = 0.0
    nesterov: Annotated[bool, Key("Nesterov's form of momentum.")] = False
    alpha: Annotated[float, Key("Decay rate of RMSprop's running average (Keras: rho).", minimum=0, below=1)] = 0.99
    fused: Annotated[bool | None, Key("One kernel for all parameters, on CPUs too.")] = None


@dataclass
class Logger:
    """Keys of Lightning's loggers; its documentation says more."""

    save_dir: Annotated[str, Key("The folder to write to.")] = "."
    name: Annotated[str | None, Key("Name of the run, or of the folder below save_dir.")] = None
    version: Annotated[str | None, Key("Folder below name.")] = None
    project: Annotated[str | None, Key("Project of Weights & Biases.")] = None
    offline: Annotated[bool, Key("Write locally and send nothing.")] = False
    experiment_name: Annotated[str, Key("Experiment of MLflow.")] = "lightning_logs"
    run_name: Annotated[str | None, Key("Name of the run in MLflow.")] = None
    tracking_uri: Annotated[
        str | None, Key("MLflow's store: sqlite:///FILE, or the address of a server. Never taken from a checkpoint.")
    ] = None


@dataclass
class Trainer:
    """Device, precision and length of training."""

    accelerator: Annotated[str, Key("Lightning's accelerator: auto, cpu, cuda, mps, …")] = "auto"
    devices: Annotated[
        Any, Key("Number of devices, a list of their indices, or auto: all.", minimum=-1, maximum=1024)
    ] = 1
    strategy: Annotated[str, Key("Lightning's strategy over several devices: auto, ddp, …")] = "auto"
    precision: Annotated[
        str,
        Key(
            "auto: bf16 where the device computes in it, 16 on other CUDA devices, else 32.",
            choices=("auto", "32", "bf16", "16"),
        ),
    ] = "auto"
    max_epochs: Annotated[int, Key("The most epochs.", minimum=1, maximum=1_000_000)] = 10
    patience: Annotated[
        int | None,
        Key("Epochs without a better monitor before training stops; null: never.", minimum=1, maximum=1_000_000),
    ] = 5
    monitor: Annotated[
        str, Key("The figure that chooses the best checkpoint and stops training: val_loss, or val_<metric>.")
    ] = "val_loss"
    checkpoint: Annotated[
        str, Key("The checkpoint that is evaluated at the end of a run.", choices=("best", "last"))
    ] = "best"
    gradient_clip: Annotated[
        float | None, Key("The largest norm of the gradients; null or 0: not clipped.", minimum=0, maximum=1e9)
    ] = None
    limit_batches: Annotated[
        int | None, Key("The most batches of an epoch, and of its validation; null: all.", minimum=1)
    ] = None
    compile: Annotated[
        str,
        Key(
            "The training step. false: as it is; graph: replayed as CUDA graphs; auto: graph on one CUDA device, else false; "
            "true, reduce-overhead and max-autotune: torch.compile in its default mode or in that one.",
            choices=("auto", "false", "true", "graph", "reduce-overhead", "max-autotune"),
        ),
    ] = "auto"
    deterministic: Annotated[
        str,
        Key(
            "Only kernels that are repeatable to the last digit. true: an error for operations without one; warn: a warning; "
            "auto: false on CUDA; CPU runs are always repeatable.",
            choices=("auto", "true", "warn", "false"),
        ),
    ] = "auto"


@dataclass
class EvaluateOptions:
    """What is computed from a model's predictions, besides its metrics."""

    slices: Annotated[
        list[str] | None,
        Key("Columns to slice the results by, such as [ethnicity, age]; null: all that can; []: none."),
    ] = None
    leakage: Annotated[
        bool,
        Key("Compare images that have a copy, or their person, among the training images with the others."),
    ] = False
    calibrate: Annotated[bool, Key("Fit a temperature on the validation images and store it in the checkpoint.")] = (
        False
    )
    precision: Annotated[
        float | None,
        Key("Two classes: find the threshold of at least this precision with the most recall.", above=0, maximum=1),
    ] = None
    recall: Annotated[
        float | None,
        Key("Two classes: find the threshold of at least this recall with the most precision.", above=0, maximum=1),
    ] = None
    report: Annotated[
        str,
        Key(
            "full: report.html, pictures and Grad-CAM; figures: only the numbers, sooner.", choices=("full", "figures")
        ),
    ] = "full"


@dataclass
class Report:
    """What report.html shows."""

    paths: Annotated[
        bool, Key("Absolute paths, which may hold a user's name; else the page, made to be sent, has none.")
    ] = False


Seed = Annotated[int, Key("Seed of everything random.", minimum=0, maximum=LARGEST_SEED)]


@dataclass
class TrainConfig:
    """Top level of conf/train.yaml."""

    name: Annotated[str, Key("Name of the run, and of its folder in outputs/.")] = "run"
    seed: Seed = 0
    loss: Annotated[
        str,
        Key(
            "auto: bce for two classes, ce for more; bce: one logit; ce: softmax over one logit per class; one_vs_rest: a "
            "sigmoid for each class; corn: for ordered classes, a logit for each step from one to the next.",
            choices=("auto", "bce", "ce", "one_vs_rest", "corn"),
        ),
    ] = "auto"
    ckpt: Annotated[str | None, Key("A run's last.ckpt, to resume that run.", is_path=True)] = None
    quirks: Annotated[list[str], Key("What is odd about a published study; a preset fills it.")] = field(
        default_factory=list
    )
    published: Annotated[
        list[Any], Key("What a study published: entries of metric, split, value, n and source; a preset fills it.")
    ] = field(default_factory=list)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    report: Report = field(default_factory=Report)
    data: Any = None
    faces: Faces = field(default_factory=Faces)
    model: Any = None
    finetune: Finetune = field(default_factory=Finetune)
    augment: Augment = field(default_factory=Augment)
    optim: Any = None
    trainer: Trainer = field(default_factory=Trainer)
    logger: Any = None


@dataclass
class EvaluateConfig:
    """Top level of conf/evaluate.yaml."""

    ckpt: Annotated[str | None, Key("The checkpoint to evaluate.", is_path=True)] = None
    compare: Annotated[
        str | None,
        Key("Another checkpoint, evaluated on the same images: the difference with its interval.", is_path=True),
    ] = None
    seed: Seed = 0
    split: Annotated[
        str,
        Key(
            "auto: test, or val where there is none; all images of other data.",
            choices=("auto", "train", "val", "test", "all"),
        ),
    ] = "auto"
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    report: Report = field(default_factory=Report)
    data: Any = None
    faces: Faces = field(default_factory=Faces)
    trainer: Trainer = field(default_factory=Trainer)


@dataclass
class PredictOptions:
    """How an answer is made."""

    mirror: Annotated[bool, Key("Classify each crop as it is and mirrored, and answer with the mean.")] = False


@dataclass
class InputTable:
    """How `input` is read where it is a table: the keys of `data=csv`. null: as in training, else what is usual."""

    root: Annotated[
        str | None, Key("The folder that image names are relative to, if they are not beside the table.", is_path=True)
    ] = None
    image_column: Annotated[
        str | None, Key("Column of image names, with or without extension; a name, or a number from 0.")
    ] = None
    header: Annotated[bool | None, Key("Whether the first row names the columns; else they are numbered.")] = None
    image_dir: Annotated[str | None, Key("The images' folder below data.root or beside the table.")] = None


@dataclass
class PredictConfig:
    """Top level of conf/predict.yaml."""

    ckpt: Annotated[str | None, Key("The checkpoint to predict with.", is_path=True)] = None
    input: Annotated[
        str | None,
        Key(
            "An image or a video, a folder, a glob, a list of paths (.txt, one a line), or a table that training reads."
        ),
    ] = None
    batch_size: Annotated[int, Key("Images, or crops of faces, in a batch.", minimum=1, maximum=LARGEST_BATCH)] = 64
    every: Annotated[float, Key("Seconds between the frames that are taken of a video.", above=0, maximum=86_400)] = 1.0
    abstain: Annotated[
        float | None,
        Key("Below this probability the answer is `uncertain`; null: there is always an answer.", above=0, maximum=1),
    ] = None
    annotate: Annotated[bool, Key("Write the pictures with boxes and answers into annotated/.")] = False
    crops: Annotated[bool, Key("Write what the network takes, a picture for each answer, into crops/.")] = False
    faces: Faces = field(default_factory=Faces)
    predict: PredictOptions = field(default_factory=PredictOptions)
    data: InputTable = field(default_factory=InputTable)
    trainer: Trainer = field(default_factory=Trainer)


@dataclass
class ExportOptions:
    """How an export is made and what it must prove."""

    tolerance: Annotated[
        float,
        Key(
            "The largest difference between a probability of model.onnx in float32 and the checkpoint's; beyond it there is no "
            "export.",
            above=0,
            maximum=1,
        ),
    ] = 1e-4
    quantize: Annotated[
        str,
        Key("int8: weights and arithmetic of model.onnx in 8 bits, if the accuracy allows.", choices=("none", "int8")),
    ] = "none"
    max_drop: Annotated[
        float,
        Key(
            "With quantize or half: how much lower the accuracy on the same images may be; beyond it there is no export.",
            minimum=0,
            maximum=1,
        ),
    ] = 0.005
    half: Annotated[
        bool, Key("Store the weights as fp16, if the accuracy allows; they are computed with in float32.")
    ] = False
    push: Annotated[
        str | None,
        Key("Upload the export to the Hugging Face Hub as user/name, in a private repository; null: nothing is sent."),
    ] = None


@dataclass
class ExportConfig:
    """Top level of conf/export.yaml."""

    ckpt: Annotated[str | None, Key("The checkpoint to export.", is_path=True)] = None
    out: Annotated[
        str | None,
        Key("The folder to write, which must not exist; null: a new one in outputs/export.", is_path=True),
    ] = None
    seed: Seed = 0
    export: ExportOptions = field(default_factory=ExportOptions)
    data: Any = None
    faces: Faces = field(default_factory=Faces)


@dataclass
class ServeOptions:
    """What the server takes, and how much of it at a time."""

    queue: Annotated[
        int,
        Key(
            "Requests that are read, wait or are answered at a time; further ones get 503 with Retry-After.",
            minimum=1,
            maximum=10_000,
        ),
    ] = 64
    batch: Annotated[
        int, Key("The most images that are answered together, of those that wait.", minimum=1, maximum=1024)
    ] = 16
    max_bytes: Annotated[int, Key("The most bytes of an image file.", minimum=1000, maximum=600_000_000)] = 20_000_000
    max_pixels: Annotated[int, Key("The most pixels of an image.", minimum=1000, maximum=64_000_000)] = 50_000_000
    max_faces: Annotated[
        int, Key("At most this many faces of an image are classified, the largest ones.", minimum=1, maximum=1000)
    ] = 50
    timeout: Annotated[
        float, Key("Seconds in which a request must be there, and then be answered.", above=0, maximum=3600)
    ] = 30.0
    origins: Annotated[
        list[str],
        Key("Origins, such as https://example.org, whose pages may use the API (CORS)."),
    ] = field(default_factory=list)


@dataclass
class ServeConfig:
    """Top level of conf/serve.yaml."""

    ckpt: Annotated[str | None, Key("The checkpoint to serve.", is_path=True)] = None
    host: Annotated[
        str, Key("The address to listen on. 127.0.0.1: this machine only; 0.0.0.0: every network it is in.")
    ] = "127.0.0.1"
    port: Annotated[int, Key("The port to listen on; 0: one that is free.", minimum=0, maximum=65_535)] = 8000
    accelerator: Annotated[
        str | None, Key("Lightning's accelerator: auto, cpu, cuda, mps, …; null: as in training.")
    ] = None
    abstain: Annotated[
        float | None,
        Key("Below this probability the answer is `uncertain`; null: there is always an answer.", above=0, maximum=1),
    ] = None
    faces: Faces = field(default_factory=Faces)
    serve: ServeOptions = field(default_factory=ServeOptions)


SCHEMAS: dict[str, Any] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
}
SHARED: dict[str, Any] = {"data": Data, "model": Model, "optim": Optim}
"""Open groups whose options share keys; a function gets those of them that it takes."""
LIBRARY: dict[str, Any] = {"optim": TorchOptimizer, "logger": Logger}
"""Keys of functions that are not ours: used where a function has a parameter of that name."""
OPEN_GROUPS = ("data", "model", "optim", "logger")
OWN_GROUPS = (PredictOptions, InputTable, ExportOptions, ServeOptions)
"""Keys of one command that stand together, without options in conf/."""
