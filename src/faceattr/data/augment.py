"""Augmentation of a training batch on its device: one affine warp per image, then light, then RandAugment.

All parameters are drawn per image in `draw`, on the CPU from a generator of their own, so that a seed means the same
changes on every device. Ranges are the keys of conf/augment/*.yaml. Pixels are changed by OpenCV where they lie in host
memory (several times as fast there as `grid_sample`), by torch elsewhere: equal within one level of 255.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

FACTORS = ("brightness", "contrast")


class Augmentation:
    """Callable: uint8 images [B, 3, H, W] → uint8 images of the same shape; identity where every range is 0."""

    def __init__(self, ranges: Mapping[str, Any]) -> None:
        self.ranges = dict(ranges)
        self.warps = any(self.ranges.get(name) for name in ("rotation", "shift", "shear", "zoom", "flip"))
        self.lights = any(self.ranges.get(name) for name in FACTORS)
        self.active = bool(self.warps or self.lights or self.ranges.get("randaugment_ops"))

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """`generator` is a CPU generator; the batch may lie anywhere."""
        if not self.active:
            return images
        matrices, factors = self.draw(len(images), images.shape[2], images.shape[3], generator)
        with torch.autocast(images.device.type, enabled=False):  # coordinates in bf16 would be off by a pixel and more
            if self.warps:
                images = warp(images, matrices)
            if self.lights:
                images = relight(images, factors)
            if self.ranges.get("randaugment_ops"):
                images = self._randaugment(images, generator)
        return images

    def draw(self, batch: int, height: int, width: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Per image a matrix [B, 2, 3] from output to input coordinates (pixels about the centre), and [B, 2] factors.

        Rotation, then shift, shear and zoom, composed in the order of Keras's `apply_affine_transform`: the studies'
        presets name its arguments (of every release of keras-preprocessing; Keras since late 2020 shears the other axis).
        Zoom is drawn per axis.
        """
        # everything is drawn, whatever is switched on: presets stay comparable under one seed
        drawn = (torch.rand(6, batch, generator=generator) * 2 - 1).double().numpy()
        flips = (torch.rand(batch, generator=generator) < (0.5 if self.ranges.get("flip") else 0.0)).numpy()
        light = (torch.rand(batch, 2, generator=generator) * 2 - 1).numpy()
        rotation, shift, shear, zoom = (self.ranges.get(name) or 0.0 for name in ("rotation", "shift", "shear", "zoom"))
        shear = shear if self.ranges.get("shear_unit") == "radians" else math.radians(shear)
        most = np.array([math.radians(rotation), shift * height, shift * width, shear, zoom, zoom])
        theta, down, right, slope, zoom_y, zoom_x = drawn * most[:, None]

        def matrices(**entries: np.ndarray) -> np.ndarray:
            """Identity matrices with other entries: `e01` is that of row 0 and column 1."""
            made = np.tile(np.eye(3), (batch, 1, 1))
            for place, values in entries.items():
                made[:, int(place[1]), int(place[2])] = values
            return made

        rotate = matrices(e00=np.cos(theta), e01=-np.sin(theta), e10=np.sin(theta), e11=np.cos(theta))
        move = matrices(e02=down, e12=right)
        slant = matrices(e01=-np.sin(slope), e11=np.cos(slope))
        scale = matrices(e00=1 + zoom_y, e11=(1 + zoom_x) * np.where(flips, -1.0, 1.0))
        return (rotate @ move @ slant @ scale)[:, :2], 1 + light * [self.ranges.get(name) or 0.0 for name in FACTORS]

    def _randaugment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        from torchvision.transforms.v2 import RandAugment

        policy = RandAugment(self.ranges["randaugment_ops"], self.ranges["randaugment_magnitude"])
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            return torch.stack([policy(image) for image in images]).contiguous(memory_format=torch.channels_last)


def warp(images: Tensor, matrices: np.ndarray) -> Tensor:
    """Images [B, 3, H, W] sampled bilinearly at matrix · (row, column, 1) about the centre; borders repeat the edge."""
    return (warp_by_opencv if images.device.type == "cpu" else warp_by_torch)(images, matrices)


def relight(images: Tensor, factors: np.ndarray) -> Tensor:
    """Images [B, 3, H, W] with each image's brightness and contrast (about its mean) multiplied by `factors` [B, 2]."""
    return (relight_by_opencv if images.device.type == "cpu" else relight_by_torch)(images, factors)


def warp_by_opencv(images: Tensor, matrices: np.ndarray) -> Tensor:
    import cv2  # 0.2 s, which only training on a CPU has to spend

    height, width = images.shape[2:]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    linear = matrices[:, ::-1, 1::-1]  # OpenCV's coordinates: (x, y), from the first pixel
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = matrices[:, ::-1, 2] + centre - linear @ centre
    before, after = _in_and_out(images)
    for source, target, matrix in zip(before, after, np.concatenate((linear, offset[..., None]), 2), strict=True):
        cv2.warpAffine(source, matrix, (width, height), target, how, cv2.BORDER_REPLICATE)
    return torch.from_numpy(after).permute(0, 3, 1, 2)


def relight_by_opencv(images: Tensor, factors: np.ndarray) -> Tensor:
    import cv2

    before, after = _in_and_out(images)
    for source, target, (brightness, contrast) in zip(before, after, factors, strict=True):
        mean = brightness * sum(cv2.mean(source)[:3]) / 3
        levels = (np.arange(256) * brightness - mean) * contrast + mean
        cv2.LUT(source, levels.round().clip(0, 255).astype(np.uint8), target)
    return torch.from_numpy(after).permute(0, 3, 1, 2)


def _in_and_out(images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    before = images.permute(0, 2, 3, 1).contiguous().numpy()
    return before, np.empty_like(before)


def warp_by_torch(images: Tensor, matrices: np.ndarray) -> Tensor:
    down, across = ((size - 1) / 2 for size in images.shape[2:])
    # affine_grid's coordinates: (x, y), each from -1 to 1 between the centres of the corner pixels
    (yy, yx, ty), (xy, xx, tx) = matrices.transpose(1, 2, 0)
    rows = np.array(((xx, xy * down / across, tx / across), (yx * across / down, yy, ty / down))).transpose(2, 0, 1)
    theta = torch.from_numpy(rows).float().to(images.device, non_blocking=True)
    grid = affine_grid(theta, list(images.shape), align_corners=True)
    warped = grid_sample(images.float(), grid, padding_mode="border", align_corners=True)
    return warped.round_().to(torch.uint8).contiguous(memory_format=torch.channels_last)


def relight_by_torch(images: Tensor, factors: np.ndarray) -> Tensor:
    brightness, contrast = (
        torch.from_numpy(f).float().to(images.device, non_blocking=True).view(-1, 1, 1, 1) for f in factors.T.copy()
    )
    values = images.float() * brightness
    mean = values.mean((1, 2, 3), keepdim=True)
    return ((values - mean) * contrast + mean).round_().clamp_(0, 255).to(torch.uint8)
