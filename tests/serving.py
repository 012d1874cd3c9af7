"""The application of `faceattr serve` in this process, and pictures to send to it."""

import io
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faceattr.commands.from_python import run_command
from faceattr.commands.serve import application
from faceattr.config.validate_keys import validate
from faceattr.data.sources.sample_people import imagine
from faceattr.data.sources.sample_portraits import draw

LOCAL = "http://localhost"


def create(ckpt: Path, folder: Path, *overrides: str) -> Any:
    """The ASGI application that serve.py would run with these arguments; `folder` is for what Hydra writes."""
    given = [f"ckpt={ckpt}", f"hydra.run.dir={folder}", *overrides]
    return run_command("serve", given, lambda cfg: application(validate(cfg)))


@contextmanager
def client(app: Any, **options: Any):
    """A client of the application, while it runs."""
    from starlette.testclient import TestClient

    with TestClient(app, LOCAL, **options) as started:
        yield started


def scene(*people: int, side: int = 160) -> Image.Image:
    """Drawn portraits side by side."""
    picture = Image.new("RGB", (side * len(people), side))
    for place, person in enumerate(people):
        picture.paste(draw(imagine(person, 0, 0), side, side), (side * place, 0))
    return picture


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
