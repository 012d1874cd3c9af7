"""What is measured: the training cases, taken from the published studies, and the targets.

Each case holds the numbers that every competitor shares (images, batch, network input, optimizer, augmentation in Keras's terms)
and the `train.py` overrides that mean the same. Standard library only: the Keras peer reads it in an environment of its own.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One training, the same for every competitor.

    `faces`: the layout of the files, `celeba` (178x218 pixels, by gender) or `imfdb` (160x160, by age class). `size`: height,
    width. `epochs`: of the peers; `own_epochs`: of faceattr, whose epochs are shorter. `frozen`: how many layers of torchvision's
    `vgg16().features` are frozen. `whole_run`: epochs of a whole run, where whole runs are compared.
    """

    title: str
    faces: str
    size: tuple[int, int]
    train: int
    val: int
    optimizer: str
    lr: float
    overrides: tuple[str, ...]
    batch: int = 32
    epochs: int = 2
    own_epochs: int = 4
    scaling: str = "unit"
    frozen: int = 0
    augment: dict[str, float | bool] = field(default_factory=dict)
    whole_run: int | None = None


VGG16 = ("model=vgg16", "model.pretrained=false", "augment=none", "loss=ce")
FLAT = ("model.scaling=unit", "model.head.pool=flatten", "model.head.batch_norm=false")
CASES = {
    "s3": Case(
        "S3 7-layer CNN, augmented",
        faces="celeba",
        size=(150, 150),
        train=512,
        val=32,
        optimizer="rmsprop",
        lr=1e-3,
        overrides=("model=cnn7", "augment=none", "augment.shear=0.2", "augment.zoom=0.2", "loss=bce"),
        augment={"shear_range": 0.2, "zoom_range": 0.2},
    ),
    "s4c": Case(
        "S4-C CNN, augmented",
        faces="imfdb",
        size=(128, 128),
        train=512,
        val=32,
        optimizer="rmsprop",
        lr=1e-4,
        overrides=("model=cnn_age", "model.head.dropout=0.3", "augment=keras_40", "loss=ce"),
        augment={
            "rotation_range": 40,
            "width_shift_range": 0.2,
            "height_shift_range": 0.2,
            "shear_range": 0.2,
            "zoom_range": 0.2,
            "horizontal_flip": True,
        },
    ),
    "s2": Case(
        "S2 VGG16, last block trained",
        faces="celeba",
        size=(178, 218),  # as the study has it: height 178
        train=96,
        val=12,
        batch=12,
        optimizer="adam",
        lr=1e-3,
        overrides=(*VGG16, "model.image_size=[178,218]", "model.scaling=caffe", "finetune=last_block"),
        own_epochs=6,
        scaling="caffe",
        frozen=24,
    ),
    "s4d": Case(
        "S4-D VGG16, frozen",
        faces="imfdb",
        size=(128, 128),
        train=256,
        val=32,
        optimizer="rmsprop",
        lr=1e-4,
        overrides=(*VGG16, *FLAT, "model.head.hidden=[256]", "finetune=frozen"),
        own_epochs=50,
        frozen=31,
        whole_run=50,
    ),
    "s4f": Case(
        "S4-F VGG16, all trained",
        faces="imfdb",
        size=(128, 128),
        train=64,
        val=16,
        optimizer="rmsprop",
        lr=1e-5,
        overrides=(
            *VGG16,
            *FLAT,
            "model.head.hidden=[512,128,32]",
            "model.head.dropout=[0.3,0.3,0.0]",
            "finetune=full",
        ),
        own_epochs=3,
    ),
}

PEERS = {"keras": "Keras", "lightning": "Lightning + ImageFolder", "timm": "timm"}

# Ratios of images per second, faceattr's to the competitor's: at least
TARGETS = {
    "s3": {"keras": 3, "lightning": 5, "bare_loop": 0.92},
    "s4c": {"keras": 2.5, "lightning": 4, "bare_loop": 0.92},
    "s2": {"keras": 6, "lightning": 6, "bare_loop": 0.95},
    "s4d": {"keras": 300, "lightning": 300},
    "s4f": {"keras": 4, "lightning": 2.2, "bare_loop": 0.95},
}
WHOLE_RUN_TARGETS = {"keras": 30, "lightning": 20}  # ratio of seconds, theirs to ours, of a whole run of s4d: at least
DATA_LOADING_TARGET = 20  # ratio of images per second and core, ours to Lightning's: at least
GROWTH_TARGET = 1.1  # ratio of the time per image with the most images to that with the fewest: at most
MEMORY_TARGET = 300  # MB more for evaluating the most rows than for the fewest: at most
START_TARGETS = {"first_step": 8.0, "compose": 1.5}  # seconds: at most

GROWTH_IMAGES = (1_000, 4_000, 16_000, 64_000)  # training images
EVALUATION_ROWS = (2_000, 200_000)
