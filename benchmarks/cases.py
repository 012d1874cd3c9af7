"""What is measured: the training cases, taken from the published studies, with the numbers that every competitor shares
(images, batch, network input, optimizer, augmentation in Keras's terms) and how each is spelled as a `train.py` run; and the bars.
Standard library only: the Keras peer reads it from an environment of its own.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """`faces` are the files' layout: `celeba` (178x218 pixels, by gender) or `imfdb` (160x160, by age class).

    `size` is [height, width]. `epochs` are the peers', `own_epochs` ours: an epoch costs us less. `frozen` counts the
    layers of torchvision's `vgg16().features` that are not trained. `whole` is the length of a whole run, where one is compared.
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
    whole: int | None = None


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
        whole=50,
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

# Ratios of images per second, ours to theirs
BARS = {
    "s3": {"keras": 3, "lightning": 5, "ceiling": 0.92},
    "s4c": {"keras": 2.5, "lightning": 4, "ceiling": 0.92},
    "s2": {"keras": 6, "lightning": 6, "ceiling": 0.95},
    "s4d": {"keras": 300, "lightning": 300},
    "s4f": {"keras": 4, "lightning": 2.2, "ceiling": 0.95},
}
WHOLE_BARS = {"keras": 30, "lightning": 20}  # ratio of seconds, theirs to ours, for a whole run of s4d
FEEDING_BAR = 20  # ratio of images per second and core, ours to Lightning's
GROWTH_BAR = 1.1  # time per image at most, of the most images to the least
MEMORY_BAR = 300  # MB more at most, evaluating the most rows and the least
START_BARS = {"first_step": 8.0, "compose": 1.5}  # seconds at most

GROWTH = (1_000, 4_000, 16_000, 64_000)  # training images
ROWS = (2_000, 200_000)  # evaluated
EXTRAS = {"feeding": "Feeding", "growth": "Growth", "evaluation": "Evaluation", "startup": "Start-up"}
