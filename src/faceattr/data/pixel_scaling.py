"""Input scalings: what `model.scaling` subtracts from the pixels, and divides them by."""

from typing import Any

import numpy as np

from faceattr.errors import FaceattrError

SCALINGS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "imagenet": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    "half": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
}
"""(mean, std) of each channel, RGB, on the scale 0–255. `caffe` is the input of Keras's VGG16, but in RGB order: if weights
are for BGR, reversing the input channels of their first conv gives the same function."""

Scaling = str | tuple[tuple[float, ...], tuple[float, ...]]
"""A name in SCALINGS; `auto`; or (mean, std) of each channel on the scale 0–1."""


def scaling_of(value: Any) -> Scaling:
    """`model.scaling`, a name or [mean, std], as an InputSpec has it. Raises FaceattrError: an invalid list."""
    from faceattr.config.validate_keys import check_mean_and_std  # Hydra: only where a config is read

    if not isinstance(value, list | tuple):
        return str(value)
    parts = [list(part) if isinstance(part, list | tuple) else part for part in value]
    check_mean_and_std(parts)
    mean, std = (tuple(map(float, part)) if isinstance(part, list) else (float(part),) * 3 for part in parts)
    return mean, std


def mean_and_std(scaling: Scaling) -> np.ndarray:
    """[2, 3]: mean and standard deviation of each channel, RGB, on the scale 0–255. Raises FaceattrError: an unknown name."""
    if isinstance(scaling, str) and scaling not in SCALINGS:
        raise FaceattrError(f"model.scaling={scaling} is no scaling: {', '.join(SCALINGS)}, or [mean, std].")
    return np.array(SCALINGS[scaling]) if isinstance(scaling, str) else 255 * np.array(scaling)
