"""Images per second of prediction with faces: all at once, one at a time as deepface is called, and finding faces alone.

    python benchmarks/prediction.py IMAGES DETECTOR [ROUNDS]

IMAGES is a folder of portraits, DETECTOR the file face_detection_yunet_2023mar.onnx. The portraits are resized to 256×256 and
to 1024×1024 as JPEG. The network is VGG16 at 64×64 with random weights, whose speed is that of trained ones. A round measures
each way in turn; the best round counts, since other programs only add time. Prints a table in Markdown.
"""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import OmegaConf
from PIL import Image

SIZES, IMAGES = (256, 1024), 200


def main(folder: Path, detector: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.environ["FACEATTR_CACHE"] = place
        from faceattr import load
        from faceattr.api import Predictor
        from faceattr.data.faces.detector_file import detector_file
        from faceattr.data.photo_reader import SubjectReader, create_detector

        logging.disable(logging.WARNING)
        detector_file(detector)
        model: Predictor = load(checkpoint(Path(place) / "model.ckpt"))
        recipe = model._spec.faces
        print(
            f"{IMAGES} portraits, {torch.get_num_threads()} threads of torch, {os.cpu_count()} cores, images per second:\n"
        )
        print("| portraits | all at once | one at a time | decoding and finding faces alone |\n|---|---|---|---|")
        for size in SIZES:
            files = [str(file) for file in resized(folder, Path(place) / str(size), size)]
            finder = create_detector(recipe)
            ways: list[Callable[[], object]] = [
                lambda files=files: model.predict(files),
                lambda files=files: [model.predict(file) for file in files],
                lambda files=files, finder=finder: list(SubjectReader(files, model._spec, finder)),
            ]
            model.predict(files[:4])
            best = [min(seconds(way) for _ in range(rounds)) for way in ways]
            print(f"| {size}×{size} | " + " | ".join(f"{len(files) / taken:.1f}" for taken in best) + " |", flush=True)


def seconds(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def resized(folder: Path, target: Path, size: int) -> list[Path]:
    """The first portraits of a folder as square JPEGs."""
    target.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())[:IMAGES]):
        image = Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        image.save(target / f"{number:03}.jpg", quality=92)
    return sorted(target.iterdir())


def checkpoint(file: Path) -> Path:
    """Of VGG16 that takes aligned faces, never trained."""
    from faceattr.commands.build_from_config import create_classifier, input_spec
    from faceattr.config.conf_folder import compose_conf
    from faceattr.config.validate_keys import validate
    from faceattr.models.task import Task
    from faceattr.training import checkpoint_format as format

    overrides = [
        "name=speed",
        "model=vgg16",
        "model.pretrained=false",
        "model.image_size=[64,64]",
        "faces=align",
        "trainer=cpu",
    ]
    cfg = validate(compose_conf("train", overrides))
    task = Task.from_config(["female", "male"], ordinal=False, loss=cfg.loss)
    plain = OmegaConf.to_container(cfg, resolve=True)
    detector = input_spec(cfg).faces.detector
    described = format.describe(plain, task, fingerprint="", weights="random", detector=detector)  # type: ignore[arg-type]
    state = create_classifier(cfg, task).state_dict()
    format.AtomicCheckpointIO(described).save_checkpoint({"state_dict": state, "epoch": 0}, file)
    return file


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3)
