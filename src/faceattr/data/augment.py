"""Augmentation of a training batch on its device: one affine warp per image, then brightness and contrast, then RandAugment.

All parameters are drawn per image in `draw`, on the CPU from a generator of their own, so that a seed means the same
changes on every device. Ranges are the keys of conf/augment/*.yaml. Pixels are changed by OpenCV where they lie in host
memory (several times as fast there as `grid_sample`), by torch elsewhere: equal within one level of 255. The torch part
takes its parameters as one tensor and never waits for the device, so that it can be captured in a CUDA graph.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

FACTORS = ("brightness", "contrast")


class Augmentation:
    """Callable: uint8 images [B, 3, H, W] → uint8 images of the same shape; identity where every range is 0."""

    def __init__(self, ranges: Mapping[str, Any]) -> None:
        self.ranges = dict(ranges)
        self.warps = any(self.ranges.get(name) for name in ("rotation", "shift", "shear", "zoom", "flip"))
        self.relights = any(self.ranges.get(name) for name in FACTORS)
        self.active = bool(self.warps or self.relights or self.ranges.get("randaugment_ops"))

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """`generator` is a CPU generator; the batch may lie anywhere."""
        if not self.active:
            return images
        with torch.autocast(images.device.type, enabled=False):  # coordinates in bf16 would be off by a pixel and more
            if images.device.type == "cpu":
                matrices, factors = self.draw(len(images), images.shape[2], images.shape[3], generator)
                images = warp_by_opencv(images, matrices) if self.warps else images
                images = relight_by_opencv(images, factors) if self.relights else images
            else:
                images = self.change(images, self.parameters(images, generator).to(images.device, non_blocking=True))
            return self._randaugment(images, generator) if self.ranges.get("randaugment_ops") else images

    @property
    def capturable(self) -> bool:
        """Whether `change` does all of it: RandAugment decides image by image on the host."""
        return not self.ranges.get("randaugment_ops")

    def parameters(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What `change` takes for this batch: float32 [B, 8] on the CPU, drawn as `draw` does."""
        height, width = images.shape[2:]
        matrices, factors = self.draw(len(images), height, width, generator)
        return torch.cat((_sampling(matrices, height, width).flatten(1), torch.from_numpy(factors).float()), 1)

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Warps uint8 images [B, 3, H, W] and changes their brightness and contrast by `parameters` [B, 8], both on one device."""
        if not (self.warps or self.relights):
            return images
        with torch.autocast(images.device.type, enabled=False):
            values = images.float()
            if self.warps:
                values = _sample(values, parameters[:, :6].view(-1, 2, 3))
            if self.relights:
                values = _relight(values, parameters[:, 6:])
            return values.to(torch.uint8, memory_format=torch.channels_last)

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
            for entry, values in entries.items():
                made[:, int(entry[1]), int(entry[2])] = values
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


def warp_by_opencv(images: Tensor, matrices: np.ndarray) -> Tensor:
    """Images [B, 3, H, W] sampled bilinearly at matrix · (row, column, 1) about the centre; borders repeat the edge."""
    import cv2  # 0.2 s, which only training on a CPU has to spend

    height, width = images.shape[2:]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    linear = matrices[:, ::-1, 1::-1]  # OpenCV's coordinates: (x, y), from the first pixel
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = matrices[:, ::-1, 2] + centre - linear @ centre
    before, after = _in_and_out(images)
    for source, target, matrix in zip(before, after, np.concatenate((linear, offset[..., None]), 2), strict=True):
        cv2.warpAffine(source, matrix, (width, height), target, flags, cv2.BORDER_REPLICATE)
    return torch.from_numpy(after).permute(0, 3, 1, 2)


def relight_by_opencv(images: Tensor, factors: np.ndarray) -> Tensor:
    """Images [B, 3, H, W] with each image's brightness and contrast (about its mean) multiplied by `factors` [B, 2]."""
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
    """What `warp_by_opencv` does, on any device."""
    sampling = _sampling(matrices, *images.shape[2:]).to(images.device, non_blocking=True)
    return _sample(images.float(), sampling).to(torch.uint8, memory_format=torch.channels_last)


def relight_by_torch(images: Tensor, factors: np.ndarray) -> Tensor:
    """What `relight_by_opencv` does, on any device."""
    tensor = torch.from_numpy(factors).float().to(images.device, non_blocking=True)
    return _relight(images.float(), tensor).to(torch.uint8)


def _sampling(matrices: np.ndarray, height: int, width: int) -> Tensor:
    """`matrices` [B, 2, 3] in the coordinates of `grid_sample`, float32 [B, 2, 3]: (x, y), each from -1 to 1 between the
    centres of the corner pixels."""
    down, across = (height - 1) / 2, (width - 1) / 2
    (yy, yx, ty), (xy, xx, tx) = matrices.transpose(1, 2, 0)
    rows = np.array(((xx, xy * down / across, tx / across), (yx * across / down, yy, ty / down)))
    return torch.from_numpy(rows.transpose(2, 0, 1).copy()).float()


def _sample(values: Tensor, sampling: Tensor) -> Tensor:
    """Whole levels, float32 [B, 3, H, W]. The grid is a sum of a part per row and one per column: one addition of its size,
    where `affine_grid` multiplies matrices (nearly three times as long as the sampling itself on an H200)."""
    y, x = (torch.linspace(-1, 1, size, device=values.device) for size in values.shape[2:])
    by_column = sampling[:, None, :, 0] * x[:, None]
    by_row = sampling[:, None, :, 1] * y[:, None] + sampling[:, None, :, 2]
    grid = by_row[:, :, None] + by_column[:, None]
    return grid_sample(values, grid, padding_mode="border", align_corners=True).round_()


def _relight(values: Tensor, factors: Tensor) -> Tensor:
    """Whole levels, float32 [B, 3, H, W]: brightness first, then contrast about the mean."""
    brightness, contrast = factors.view(-1, 2, 1, 1, 1).unbind(1)
    mean = values.mean((1, 2, 3), keepdim=True) * brightness
    return torch.addcmul(mean * (1 - contrast), values, brightness * contrast).round_().clamp_(0, 255)
