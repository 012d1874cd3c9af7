"""Crops a face: `square` cuts its box; `align` turns and scales it, so that its five points come to fixed places."""

import math

import cv2
import numpy as np
from PIL import Image

from faceattr.data.faces.crop_recipe import FaceRecipe
from faceattr.data.faces.detect import Face

TEMPLATE = np.array([(0.293, 0.286), (0.683, 0.293), (0.472, 0.499), (0.314, 0.681), (0.646, 0.687)])
"""Where both eyes, the tip of the nose and both corners of the mouth lie in an aligned crop without margin, as shares of its
side: medians over crops of UTKFace. docs/faces.md has the measurement and a picture."""


def crop(
    image: np.ndarray, face: Face, recipe: FaceRecipe, size: tuple[int, int], *, interpolation: str = "bilinear"
) -> np.ndarray:
    """The face's crop, uint8 [height, width, 3], of an image, uint8 [H, W, 3]; `size` is (height, width).

    Where the crop reaches over the image's border, the outermost pixels are repeated. A crop that is not square shows more
    along its longer side. `interpolation` (a Pillow name) resizes the crop as whole images are resized.
    """
    height, width = size
    shorter = min(size)
    to_image, side = _transform(face, recipe)
    factor = max(1, math.floor(side / (4 * shorter)))  # a face of thousands of pixels is reduced first
    if factor > 1:
        image = np.asarray(Image.fromarray(image).reduce(factor))
        side /= factor
    enlarged = max(1.0, side / shorter)  # warped at the image's own resolution, then reduced without aliasing
    warped_size = (max(1, round(enlarged * width)), max(1, round(enlarged * height)))
    matrix = to_image @ _to_square(*warped_size)
    matrix = _pixel_centres(matrix, factor)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cropped = cv2.warpAffine(image, matrix[:2], warped_size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if warped_size == (width, height):
        return cropped
    return np.asarray(Image.fromarray(cropped).resize((width, height), Image.Resampling[interpolation.upper()]))


def crop_outline(face: Face, recipe: FaceRecipe, size: tuple[int, int]) -> np.ndarray:
    """The corners of the crop in pixels of the image, float [4, 2], clockwise from the top left one; `size` as in `crop`."""
    height, width = size
    corners = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)], float)
    return ((_transform(face, recipe)[0] @ _to_square(width, height)) @ corners.T).T[:, :2]


def _transform(face: Face, recipe: FaceRecipe) -> tuple[np.ndarray, float]:
    """The similarity, float [3, 3], from the unit square to the image, and the square's side in pixels of the image."""
    if recipe.mode == "align":
        template = 0.5 + (TEMPLATE - 0.5) / (1 + 2 * recipe.margin)
        matrix = _similarity(template, np.array(face.points))
        return matrix, float(np.hypot(*matrix[:2, 0]))
    side = max(face.width, face.height) * (1 + 2 * recipe.margin)
    x, y = (middle - side / 2 for middle in face.centre)
    return np.array([(side, 0, x), (0, side, y), (0, 0, 1)]), side


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and translation, float [3, 3], that bring points [N, 2] nearest to others (least squares)."""
    from_mean, to_mean = source.mean(0), target.mean(0)
    a, b = source - from_mean, target - to_mean
    scale = (a * a).sum()
    cosine, sine = (a * b).sum() / scale, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / scale
    linear = np.array([(cosine, -sine), (sine, cosine)])
    return np.vstack([np.column_stack([linear, to_mean - linear @ from_mean]), (0, 0, 1)])


def _to_square(width: int, height: int) -> np.ndarray:
    """The transform, float [3, 3], from the pixels of a crop to the unit square, which lies in the crop's middle and is as wide
    as its shorter side."""
    side = min(width, height)
    return np.array([(1 / side, 0, 0.5 - width / (2 * side)), (0, 1 / side, 0.5 - height / (2 * side)), (0, 0, 1)])


def _pixel_centres(matrix: np.ndarray, factor: int) -> np.ndarray:
    """`matrix` for OpenCV. In `matrix` pixel 0 spans 0 to 1, so its centre lies at 0.5; in OpenCV it lies at 0.

    The image, not the crop, is reduced by `factor`.
    """
    before = np.array([(1, 0, 0.5), (0, 1, 0.5), (0, 0, 1)])
    after = np.array([(1 / factor, 0, -0.5), (0, 1 / factor, -0.5), (0, 0, 1)])
    return after @ matrix @ before
