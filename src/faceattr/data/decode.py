"""Decodes image files to pixels (upright RGB, uint8) of the size that a network takes."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from os import PathLike

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from faceattr.config.schema import Faces, Model
from faceattr.data import damaged_images
from faceattr.data.array_file import RowArray
from faceattr.data.faces.crop import crop
from faceattr.data.faces.crop_recipe import WHOLE_IMAGE, FaceRecipe
from faceattr.data.faces.detect import Face
from faceattr.data.file_kinds import PathOrContent, describe_other_file
from faceattr.data.image_files import FORMATS
from faceattr.data.parallel import processes_pay, run_tasks
from faceattr.data.pixel_scaling import Scaling, scaling_of
from faceattr.progress import Progress

Image.MAX_IMAGE_PIXELS = None  # `decode` has its own limit, which is an error; Pillow's is a warning
MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: a few kilobytes can decompress to gigabytes."""

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
    """The input of a network: size in pixels, `interpolation` (a Pillow name), `scaling` (see `mean_and_std`; `auto` until the
    weights are known), how faces are cropped, and how whole images are resized (`model.resize`)."""

    height: int
    width: int
    interpolation: str
    scaling: Scaling
    faces: FaceRecipe = WHOLE_IMAGE
    resize: str = "stretch"

    @classmethod
    def from_config(cls, model: Model, faces: Faces) -> "InputSpec":
        """Of the keys that every model shares, and the group `faces`."""
        height, width = model.image_size
        recipe, scaling = FaceRecipe.from_config(faces), scaling_of(model.scaling)
        return cls(height, width, model.interpolation, scaling, recipe, model.resize)


class UnreadableImage(Exception):
    """The image cannot be decoded completely; the message is the reason."""


ImageLike = PathOrContent | Image.Image | np.ndarray
"""An image file or its content, a PIL image, or pixels: uint8 [height, width, 3] (RGB) or [height, width] (grey)."""


def decode(source: ImageLike) -> Image.Image:
    """The image as upright 8-bit RGB. Converts greyscale, palette, CMYK and 16-bit images; transparency becomes white.

    Raises UnreadableImage: a file that is truncated, corrupt, or of none of `FORMATS`; an image of more than
    `MAX_PIXELS`; numbers whose scale is unknown.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about unusual metadata
            with _open(source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImage(f"{image.width}x{image.height} pixels; the limit is {MAX_PIXELS:,}")
                coloured = image.mode in ("LA", "RGB", "RGBA") and image.format in ("PNG", "TIFF")
                sixteen_bits = coloured and ";16" in str(getattr(image, "tile", ""))  # gone when decoded
                if isinstance(source, str | PathLike | bytes):
                    _check_file(source, image)
                upright = _upright(image)
                if sixteen_bits:
                    _check_16_bit_colours(upright)
                return _rgb(upright)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, ValueError, struct.error, …
        reason = getattr(error, "strerror", None) or str(error)  # without "[Errno 2]" and the path, which is known
        raise UnreadableImage(reason or type(error).__name__) from error


def open_image(file: PathOrContent) -> Image.Image:
    """The image file, not yet decoded. Raises UnreadableImage if it is no file, or of none of `FORMATS`."""
    if not isinstance(file, bytes) and (reason := damaged_images.reason_not_opened(file)):
        raise UnreadableImage(reason)
    try:
        return Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnreadableImage(describe_other_file(file)) from error


def _check_file(file: PathOrContent, image: Image.Image) -> None:
    """Raises if the file's data are incomplete or damaged in a way that Pillow lets pass."""
    if image.format == "PNG":
        damaged_images.check_png(file)
    elif image.format in ("JPEG", "MPO"):
        image.load()
        if damaged_images.jpeg_is_cut(file, image):
            raise UnreadableImage("image file is truncated: its data end before the picture does")


def _open(source: ImageLike) -> AbstractContextManager[Image.Image]:
    if isinstance(source, str | PathLike | bytes):
        return open_image(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,)):
            raise UnreadableImage(f"pixels {source.dtype} {list(source.shape)}; give uint8 [height, width, 3]")
        return nullcontext(Image.fromarray(np.ascontiguousarray(source)))
    if isinstance(source, Image.Image):
        return nullcontext(source)
    raise UnreadableImage(
        f"a {type(source).__name__}; give a path, a file's bytes, a PIL image or a uint8 array [height, width, 3]"
    )


def _upright(image: Image.Image) -> Image.Image:
    """The image turned according to its EXIF orientation. Pillow's `exif_transpose` fails on unusual EXIF tags."""
    image.load()
    return image.transpose(TRANSPOSES[turned]) if (turned := orientation(image)) in TRANSPOSES else image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none that can be read: the pixels are still valid."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return 1
    return value if value in TRANSPOSES else 1


def _rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB on white."""
    if image.mode.startswith(("I", "F")):  # more than 8 bits; Pillow's own conversion clips at 255
        image = Image.fromarray(_to_8_bits(np.asarray(image), scaled=image.format == "PPM"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _check_16_bit_colours(image: Image.Image) -> None:
    """Raises UnreadableImage for 12 bits in 16: of 16-bit colours, Pillow gives the upper 8 bits, which are near-black then."""
    brightest = int(np.asarray(image.convert("RGB")).max())
    if 0 < brightest < 64:
        used = 8 + brightest.bit_length()
        raise UnreadableImage(f"16 bits for each colour, of which {used} are used; save it with 8 bits")


def _to_8_bits(values: np.ndarray, *, scaled: bool) -> np.ndarray:
    """Grey values as uint8, by their own range: whole numbers of 1, 8, 10, 12, 14 or 16 bits, the fewest that hold the largest
    (`scaled`: 16 bits in any case); other numbers from 0 to 1 or from 0 to 255. Raises UnreadableImage for all others."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        full = 1.0 if high <= 1 else 255.0
    else:
        full = next((2.0**bits - 1 for bits in ((16,) if scaled else (1, 8, 10, 12, 14, 16)) if high < 2**bits), 0.0)
    if not 0 <= low <= high <= full:
        expected = "0 to 1 or 0 to 255" if values.dtype.kind == "f" else "0 to 65535"
        raise UnreadableImage(f"values from {low:g} to {high:g}; expected {expected}")
    return (values.astype(np.float32) * np.float32(255 / full)).round().astype(np.uint8)


def read(source: ImageLike, spec: InputSpec, face: Face | None = None) -> np.ndarray:
    """The pixels of an image, or of the crop of its `face`, at the network's input size: uint8 [height, width, 3], RGB."""
    image = decode(source)
    if face is not None:
        return crop(np.asarray(image), face, spec.faces, (spec.height, spec.width), interpolation=spec.interpolation)
    return fit(image, spec)


BARS = (114, 114, 114)
"""Colour of the bars that letterboxing adds: the grey that is usual for it."""


def fit(image: Image.Image, spec: InputSpec) -> np.ndarray:
    """The pixels of a whole decoded image at the network's input size, resized as `spec.resize` says."""
    size, method = (spec.width, spec.height), Image.Resampling[spec.interpolation.upper()]
    if image.size == size:
        return np.asarray(image)
    if spec.resize == "crop":
        return np.asarray(ImageOps.fit(image, size, method))
    if spec.resize == "letterbox":
        return np.asarray(ImageOps.pad(image, size, method, color=BARS))
    return np.asarray(image.resize(size, method))


def read_many(
    images: Sequence[ImageLike],
    spec: InputSpec,
    out: RowArray | np.ndarray | None,
    *,
    workers: int | None,
    label: str,
    faces: Sequence[Face | None] | None = None,
) -> dict[int, str]:
    """Decodes `images` on all cores into `out`, uint8 [N, height, width, 3]. None: checks them only.

    workers: number of threads, or of processes if these pay; None: one for each core, up to 32.
    label: title of the progress; "" shows none.
    faces: what is cropped of each image; None: images are taken whole.

    Returns row → reason for the unreadable images; their rows of `out` are not written.
    """
    reasons: dict[int, str] = {}
    blocks = [slice(start, start + BLOCK) for start in range(0, len(images), BLOCK)]
    tasks = (
        partial(_read_block, images[part], spec, None if faces is None else faces[part], out is not None)
        for part in blocks
    )
    with Progress(label, len(images)) as progress:
        for block in run_tasks(tasks, workers=workers, processes=processes_pay(len(images), workers)):
            for row, result in enumerate(block, progress.done):
                if isinstance(result, str):
                    reasons[row] = result
                elif out is not None and result is not None:
                    out[row] = result
            progress.update(len(block))
    return reasons


BLOCK = 64
"""Images of a task of `read_many`."""


def _read_block(
    images: Sequence[ImageLike], spec: InputSpec, faces: Sequence[Face | None] | None, with_pixels: bool
) -> list[np.ndarray | str | None]:
    """For each image its pixels (None unless `with_pixels`), or why it is unreadable."""

    results: list[np.ndarray | str | None] = []
    for image, face in zip(images, [None] * len(images) if faces is None else faces, strict=True):
        try:
            pixels = read(image, spec, face)
            results.append(pixels if with_pixels else None)
        except UnreadableImage as error:
            results.append(str(error))
    return results
