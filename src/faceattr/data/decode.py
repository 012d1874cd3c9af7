"""Decodes image files to pixels (upright RGB, uint8) of the size that a network takes; and the input scalings."""

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

from faceattr.config.schema import Faces, Model
from faceattr.data.array_cache import RowArray
from faceattr.data.faces.crop import crop
from faceattr.data.faces.detect import Face
from faceattr.data.faces.recipe import WHOLE_IMAGE, FaceRecipe

Image.MAX_IMAGE_PIXELS = None  # `decode` has its own limit, which is an error; Pillow's is a warning
MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: a few kilobytes can decompress to gigabytes."""

SCALINGS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "imagenet": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
}
"""(mean, std) of each channel, RGB, on the scale 0–255. `caffe` is the input of Keras's VGG16, but in RGB order: if weights
are for BGR, reversing the input channels of their first conv gives the same function."""

TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the operation that makes the image upright."""


@dataclass(frozen=True)
class InputSpec:
    """The input of a network: size in pixels, `interpolation` (a Pillow name), `scaling` (a name in SCALINGS), and how faces are
    cropped."""

    height: int
    width: int
    interpolation: str
    scaling: str
    faces: FaceRecipe = WHOLE_IMAGE

    @classmethod
    def from_config(cls, model: Model, faces: Faces) -> "InputSpec":
        """Of the keys that every model shares, and the group `faces`."""
        height, width = model.image_size
        return cls(height, width, model.interpolation, model.scaling, FaceRecipe.from_config(faces))


class UnreadableImage(Exception):
    """The image cannot be decoded completely; the message is the reason."""


ImageLike = str | PathLike[str] | Image.Image | np.ndarray
"""An image file, a PIL image, or pixels: uint8 [height, width, 3] (RGB) or [height, width] (grey)."""


def decode(source: ImageLike) -> Image.Image:
    """The image as upright 8-bit RGB. Converts greyscale, palette, CMYK and 16-bit images; transparency becomes white.

    Raises UnreadableImage: a file that is truncated, corrupt or no image, or an image of more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about unusual metadata
            with _open(source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImage(f"{image.width}x{image.height} pixels; the limit is {MAX_PIXELS:,}")
                return _rgb(_upright(image))
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, ValueError, struct.error, …
        reason = "not an image file" if type(error).__name__ == "UnidentifiedImageError" else str(error)
        raise UnreadableImage(reason or type(error).__name__) from error


def _open(source: ImageLike) -> AbstractContextManager[Image.Image]:
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
    """The image turned according to its EXIF orientation. Pillow's `exif_transpose` fails on unusual EXIF tags."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # unreadable EXIF: the pixels are still valid
        return image
    return image.transpose(TRANSPOSES[orientation]) if orientation in TRANSPOSES else image


def _rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB on white."""
    if image.mode.startswith("I"):  # 16 bits per pixel (some PNG); Pillow's own conversion clips at 255
        values = np.asarray(image).astype(np.float32)
        image = Image.fromarray((values / 257).clip(0, 255).round().astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.asarray(image).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read(source: ImageLike, spec: InputSpec, face: Face | None = None) -> np.ndarray:
    """The pixels of an image at the network's input size: uint8 [height, width, 3], RGB. Of its `face` only, where one is given."""
    image = decode(source)
    if face is not None:
        return crop(np.asarray(image), face, spec.faces, (spec.height, spec.width), interpolation=spec.interpolation)
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
    faces: Sequence[Face | None] | None = None,
) -> dict[int, str]:
    """Decodes `images` in threads (Pillow releases the GIL) into `out`, uint8 [N, height, width, 3]. None: checks them only.

    workers: number of threads; None: one for each core.
    label: title of the progress bar, which is shown on a terminal; "" for none.
    block: images of a task, after which the bar advances.
    faces: what is cropped of each image; None: images are taken whole.

    Returns row → reason for the unreadable images; their rows of `out` are not written.
    """
    reasons: dict[int, str] = {}
    blocks = [range(start, min(start + block, len(images))) for start in range(0, len(images), block)]

    def decode_block(rows: range) -> int:
        for row in rows:
            try:
                pixels = read(images[row], spec, faces[row] if faces is not None else None)
            except UnreadableImage as error:
                reasons[row] = str(error)
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
    return dict(sorted(reasons.items()))


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
