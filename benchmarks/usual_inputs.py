"""How often does the warning about unusual inputs come: for images like the training images, for others, for changed ones?

    python benchmarks/usual_inputs.py FACES PORTRAITS CELEBA

FACES holds faces.csv (file, split) and the images, PORTRAITS and CELEBA are folders of images. Pixels only; nothing is trained.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from faceattr.data.decode import InputSpec, read
from faceattr.data.image_files import walk
from faceattr.data.out_of_distribution import UsualInputs, statistics_of_all
from faceattr.data.pixel_scaling import scaling_of

SPEC = InputSpec(64, 64, "bilinear", scaling_of("unit"))
DRAWS = 1000


def images(files: list[Path]) -> np.ndarray:
    return np.stack([read(file, SPEC) for file in files])


def alarms(usual: UsualInputs, described: np.ndarray, n: int) -> float:
    """Share of random batches of `n` images that bring the warning."""
    rng = np.random.default_rng(0)
    draws = (rng.choice(len(described), n, replace=False) for _ in range(DRAWS))
    return float(np.mean([bool(usual.difference(described[rows])) for rows in draws]))


def main(faces: Path, portraits: Path, celeba: Path) -> None:
    table = pd.read_csv(faces / "faces.csv").sample(frac=1, random_state=0)
    files = {split: [faces / name for name in part["file"]] for split, part in table.groupby("split")}
    test = images(files["val"][1000:])
    usual = UsualInputs.fit(
        statistics_of_all([images(files["train"][:2000])]), statistics_of_all([images(files["val"][:1000])])
    )
    assert usual is not None
    part = test[:300]
    sets = {
        "other validation images": test,
        "mirrored": part[:, :, ::-1],
        "portraits, whole": images([portraits / name for name in walk(portraits).files]),
        "CelebA's crops": images([celeba / name for name in walk(celeba).files]),
        "upside down": part[:, ::-1],
        "negative": 255 - part,
        "turned by 90°": np.rot90(part, axes=(1, 2)),
        "red and blue swapped": part[..., ::-1],
        "a third as bright": (part * 0.3).astype(np.uint8),
        "grey": np.repeat(part.mean(3, keepdims=True).astype(np.uint8), 3, 3),
        "blurred, σ 3 pixels": np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in part]),
    }
    print(f"{'images':26} one  batches of 16")
    for name, pixels in sets.items():
        described = statistics_of_all([np.ascontiguousarray(pixels)])
        print(f"{name:26} {alarms(usual, described, 1):.3f}  {alarms(usual, described, 16):.3f}", flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
