"""What is run: the presets, the variants that the claims need, their data, and how each budget shortens them. Uses no code of
faceattr."""

from dataclasses import dataclass
from pathlib import Path

SEEDS = (0, 1, 2)
GENDER = (
    *("data=csv", "data.file=faces.csv", "data.image_dir=null", "data.image_column=file", "data.label_column=gender"),
    "data.classes=[female,male]",
)
QUICK_AGE = "data.per_class={train: 400, val: 400}"
CAFFE, V1 = "vgg16_features_caffe_rgb_fp16.pth", "vgg16_features_imagenet1k_v1.pth"
PUBLISHED_NAME = {CAFFE: "VGG16_Weights.IMAGENET1K_FEATURES", V1: "VGG16_Weights.IMAGENET1K_V1"}


@dataclass(frozen=True)
class Study:
    """`own`: the folder below ROOT with the images of the study; with fewer than `own_images` files it is not used. `stand_in`:
    the folder that is used instead, and `as_stand_in` the overrides that read it."""

    own: str
    stand_in: str
    own_images: int
    as_stand_in: tuple[str, ...] = ()


STUDIES = {
    "s0": Study(own="s0", stand_in="small_csv", own_images=116),
    "s1": Study(
        own="celeba_folders",
        stand_in="faces",
        own_images=200_000,
        as_stand_in=(*GENDER, "data.split_column=split", "~data.class_map"),
    ),
    "s2": Study(
        own="celeba",
        stand_in="faces",
        as_stand_in=(
            *(*GENDER, "data.fractions={train: 0.7, val: 0.15, test: 0.15}"),
            *("~data.first_per_class", "~data.last_per_class"),
        ),
        own_images=200_000,
    ),
    "s3": Study(
        own="celeba575",
        stand_in="celeba",
        own_images=575,
        as_stand_in=(
            *("data=celeba", "data.split=random", "data.first_per_class=320", "data.per_class={train: 250, val: 38}"),
            *("data.classes=[male,female]", "~data.class_map"),
        ),
    ),
    "s4": Study(own="imfdb", stand_in="faces", own_images=19_906),
}


@dataclass(frozen=True)
class Job:
    """A preset, the overrides `variant` that change it and `quick` that shorten it. `weights`: a file of VGG16's conv weights."""

    study: str
    preset: str
    quick: tuple[str, ...] = ()
    variant: tuple[str, ...] = ()
    weights: str | None = None
    on_train: bool = False  # evaluate on the training images too
    fits: bool = True  # the study form takes less than 20 minutes on two cores


S2_QUICK = ("model.image_size=[89,109]", "data.max_images=1500", "trainer.max_epochs=3")
S2 = "s2_celeba_vgg16_last_block"
CNN_QUICK, VGG_QUICK = (QUICK_AGE, "trainer.max_epochs=12"), (QUICK_AGE, "trainer.max_epochs=15")

JOBS = {
    "s0_small_csv": Job("s0", "s0_small_csv"),
    "s0_small_csv_alt": Job("s0", "s0_small_csv_alt"),
    "s0_age_groups": Job("s0", "s0_age_groups"),
    "s1_celeba_alexnet": Job("s1", "s1_celeba_alexnet", ("data.max_images=2400", "trainer.max_epochs=6")),
    S2: Job("s2", S2, S2_QUICK, weights=CAFFE),
    f"{S2}_softmax": Job("s2", f"{S2}_softmax", S2_QUICK, weights=CAFFE),
    "s3_celeba575_cnn7": Job("s3", "s3_celeba575_cnn7", ("trainer.max_epochs=15",)),
    "s3_celeba575_three_conv": Job("s3", "s3_celeba575_three_conv", ("trainer.max_epochs=15",)),
    "s4a": Job("s4", "s4a", CNN_QUICK, on_train=True),
    "s4b": Job("s4", "s4b", CNN_QUICK),
    "s4c": Job("s4", "s4c", (QUICK_AGE, "trainer.max_epochs=20"), on_train=True),
    "s4d": Job("s4", "s4d", VGG_QUICK, weights=CAFFE),
    "s4e": Job("s4", "s4e", (QUICK_AGE, "trainer.max_epochs=30"), weights=CAFFE),
    "s4f": Job("s4", "s4f", (QUICK_AGE, "trainer.max_epochs=2"), weights=CAFFE, fits=False),
}
PRESETS = tuple(JOBS)
JOBS |= {
    "s2_frozen": Job("s2", f"{S2}_softmax", S2_QUICK, ("finetune=frozen",), CAFFE),
    # with Adam's 1e-3 a VGG16 that is trained in full diverges: this is the learning rate of S4-F
    "s2_full": Job("s2", f"{S2}_softmax", S2_QUICK, ("finetune=full", "optim.lr=1e-5"), CAFFE, fits=False),
}
WEIGHTS_AND_SCALING = {
    (weights, scaling): "s4d" if (weights, scaling) == (CAFFE, "unit") else f"s4d_{short}_{scaling}"
    for weights, short in ((CAFFE, "caffe"), (V1, "v1"))
    for scaling in ("unit", "imagenet", "caffe")
}
JOBS |= {
    name: Job("s4", "s4d", VGG_QUICK, (f"model.scaling={scaling}",), weights)
    for (weights, scaling), name in WEIGHTS_AND_SCALING.items()
    if name != "s4d"
}


def find_folder(root: Path, name: str) -> Path | None:
    """A folder in ROOT, in ROOT/data, or beside ROOT."""
    return next((place for place in (root / name, root / "data" / name, root.parent / name) if place.exists()), None)


def count_images(folder: Path) -> int:
    return sum(path.suffix.lower() in (".jpg", ".jpeg", ".png") for path in folder.rglob("*"))


def data_of(job: Job, root: Path) -> tuple[str, list[str]]:
    """`own` or the name of the stand-in, and the overrides that read it."""
    study = STUDIES[job.study]
    own = find_folder(root, study.own)
    if own and count_images(own) >= study.own_images:
        return "own", [f"data.root={own}"]
    stand_in = find_folder(root, study.stand_in)
    if stand_in is None:
        whole = f"{study.own} with its {study.own_images:,} images"
        raise SystemExit(f"Error: {root} has neither {whole} nor {study.stand_in} (in it, in data/, or beside it).")
    return study.stand_in, [*study.as_stand_in, f"data.root={stand_in}"]


def overrides(name: str, root: Path, budget: str, seed: int) -> tuple[str, list[str]]:
    """The name of a job's data, and the overrides for train.py. All seeds use the same split, that of seed 0."""
    job = JOBS[name]
    source, data = data_of(job, root)
    weights = find_folder(root, "weights")
    chosen = [f"experiment={job.preset}", *data, *job.variant]
    if job.weights and weights and (weights / job.weights).exists():
        chosen.append(f"model.weights={weights / job.weights}")
    elif job.weights:  # torchvision's copy is downloaded
        chosen.append(f"model.pretrained_weights={PUBLISHED_NAME[job.weights]}")
    return source, [*chosen, *(job.quick if budget == "quick" else ()), f"seed={seed}", "data.seed=0"]
