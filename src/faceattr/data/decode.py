"""From an image file to pixels: what a network's input looks like, and decoding to it (upright RGB, uint8)."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from faceattr.config.schema import Model
from faceattr.data.array_cache import RowArray

Image.MAX_IMAGE_PIXELS = None  # `decode` has its own limit, an error instead of Pillow's warning
MAX_PIXELS = 64_000_000
"""A larger image is refused unread: a few kilobytes can unpack to gigabytes."""

SCALINGS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "imagenet": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
}
"""(mean, std) per channel, RGB, on the scale 0–255. `caffe` is Keras's VGG16 input with the channels left in RGB order:
weights stored for BGR have their first layer turned round, which is the same function."""


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what makes the picture upright."""


@dataclass(frozen=True)
class InputSpec:
    """What a network takes: it belongs to the model's config and travels in the checkpoint."""

    height: int
    width: int
    interpolation: str
    scaling: str

    @classmethod
    def from_config(cls, model: Model) -> "InputSpec":
        """Of the keys that every model shares."""
        height, width = model.image_size
        return cls(height, width, model.interpolation, model.scaling)


class UnreadableImage(Exception):
    """The file is no image that can be decoded whole; says why."""


ImageLike = str | PathLike[str] | Image.Image | np.ndarray
"""An image file, a PIL image, or pixels: uint8 [height, width, 3] (RGB) or [height, width] (grey)."""


def decode(source: ImageLike) -> Image.Image:
    """The picture as upright 8-bit RGB: greyscale, palette, CMYK and 16-bit converted, transparency on white.

    Raises UnreadableImage for anything truncated, corrupt, not an image, or larger than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's notes about odd metadata
            with _opened(source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImage(f"{image.width}x{image.height} pixels; the limit is {MAX_PIXELS:,}")
                return _rgb(_upright(image))
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, ValueError, struct.error, …
        reason = "not an image file" if type(error).__name__ == "UnidentifiedImageError" else str(error)
        raise UnreadableImage(reason or type(error).__name__) from error


def _opened(source: ImageLike) -> AbstractContextManager[Image.Image]:
    if isinstance(source, str | PathLike):
        return Image.open(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,)):
            raise UnreadableImage(f"pixels {source.dtype} {list(source.shape)}; give uint8 [height, width, 3]")
        return nullcontext(Image.fromarray(np.ascontiguousarray(source)))
    if isinstance(source, Image.Image):
        return nullcontext(source)
    raise UnreadableImage(f"a {type(source).__name__}; give a path, a PIL image or a uint8 array [height, width, 3]")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says; Pillow's own `exif_transpose` writes EXIF anew too, and fails over odd tags in it."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF that cannot be read says nothing; the pixels are whole
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel (some PNG); Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.float32)
        image = Image.fromarray((values / 257).clip(0, 255).round().astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.asarray(image).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read(source: ImageLike, spec: InputSpec) -> np.ndarray:
    """Pixels of an image at the network's size: uint8 [height, width, 3], RGB."""
    image = decode(source)
    if image.size != (spec.width, spec.height):
        image = image.resize((spec.width, spec.height), Image.Resampling[spec.interpolation.upper()])
    return np.asarray(image)


def read_many(
    images: Sequence[ImageLike],
    spec: InputSpec,
    out: RowArray | np.ndarray | None,
    *,
    workers: int | None,
    label: str,
    block: int = 64,
) -> dict[int, str]:
    """Decode all `images` in threads (Pillow lets go of the GIL) into `out`, uint8 [N, height, width, 3]; None only checks.

    Returns the position of each unreadable image and why; its row of `out` stays zero. Shows progress on a terminal under `label`.
    """
    bad: dict[int, str] = {}
    blocks = [range(start, min(start + block, len(images))) for start in range(0, len(images), block)]

    def decode_block(rows: range) -> int:
        for row in rows:
            try:
                pixels = read(images[row], spec)
            except UnreadableImage as error:
                bad[row] = str(error)
            else:
                if out is not None:
                    out[row] = pixels
        return len(rows)

    with (
        ThreadPoolExecutor(workers or cores()) as pool,
        tqdm(total=len(images), desc=label, unit="img", disable=None if label else True, leave=False) as progress,
    ):
        for done in pool.map(decode_block, blocks):
            progress.update(done)
    return dict(sorted(bad.items()))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
