"""Augmentation of a training batch on its device: one affine warp per image, then light, then RandAugment.

All parameters are drawn per image in `draw`, on the CPU from a generator of their own, so that a seed means the same
changes on every device. Ranges are the keys of conf/augment/*.yaml.
"""

import math
from collections.abc import Mapping
from typing import Any

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
                images = warp(images, matrices.to(images.device, non_blocking=True))
            if self.lights:
                images = relight(images, factors.to(images.device, non_blocking=True))
            if self.ranges.get("randaugment_ops"):
                images = self._randaugment(images, generator)
        return images

    def draw(self, batch: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Per image a matrix [B, 2, 3] from output to input coordinates (pixels about the centre), and [B, 2] factors.

        Rotation, then shift, shear and zoom, composed in the order of Keras's `apply_affine_transform`: the studies'
        presets name its arguments. Zoom is drawn per axis.
        """
        theta, down, right, shear, zoom_y, zoom_x = (
            torch.rand(6, batch, generator=generator) * 2 - 1
        ).double()  # one draw of everything, whatever is switched on: presets stay comparable under one seed
        flips = torch.rand(batch, generator=generator) < (0.5 if self.ranges.get("flip") else 0.0)
        light = torch.rand(batch, 2, generator=generator) * 2 - 1
        theta, shear = (x * math.radians(self.ranges.get(n) or 0) for x, n in ((theta, "rotation"), (shear, "shear")))
        down, right = (x * (self.ranges.get("shift") or 0) * size for x, size in ((down, height), (right, width)))
        zoom_y, zoom_x = (1 + x * (self.ranges.get("zoom") or 0) for x in (zoom_y, zoom_x))
        zero, one = torch.zeros(batch).double(), torch.ones(batch).double()
        sign = torch.where(flips, -one, one)

        def matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            return torch.stack([torch.stack(row, 1) for row in (*rows, (zero, zero, one))], 1)

        rotate = matrix((theta.cos(), -theta.sin(), zero), (theta.sin(), theta.cos(), zero))
        move = matrix((one, zero, down), (zero, one, right))
        slant = matrix((one, -shear.sin(), zero), (zero, shear.cos(), zero))
        scale = matrix((zoom_y, zero, zero), (zero, zoom_x, zero))
        mirror = matrix((one, zero, zero), (zero, sign, zero))
        full = rotate @ move @ slant @ scale @ mirror
        factors = 1 + light * torch.tensor([self.ranges.get(name) or 0.0 for name in FACTORS])
        return full[:, :2].float(), factors

    def _randaugment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        from torchvision.transforms.v2 import RandAugment

        policy = RandAugment(self.ranges["randaugment_ops"], self.ranges["randaugment_magnitude"])
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            return torch.stack([policy(image) for image in images]).contiguous(memory_format=torch.channels_last)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Images [B, 3, H, W] sampled bilinearly at matrix · (row, column, 1) about the centre; borders repeat the edge."""
    height, width = images.shape[2:]
    down, across = (height - 1) / 2, (width - 1) / 2
    # affine_grid's coordinates: (x, y), each from -1 to 1 between the centres of the corner pixels
    yy, yx, ty = matrices[:, 0].unbind(1)
    xy, xx, tx = matrices[:, 1].unbind(1)
    rows = (torch.stack((xx, xy * down / across, tx / across), 1), torch.stack((yx * across / down, yy, ty / down), 1))
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=True)
    warped = grid_sample(images.float(), grid, padding_mode="border", align_corners=True)
    return warped.round_().to(torch.uint8).contiguous(memory_format=torch.channels_last)


def relight(images: Tensor, factors: Tensor) -> Tensor:
    """Images [B, 3, H, W] with each image's brightness and contrast (about its mean) multiplied by `factors` [B, 2]."""
    values = images.float() * factors[:, 0].view(-1, 1, 1, 1)
    mean = values.mean((1, 2, 3), keepdim=True)
    return ((values - mean) * factors[:, 1].view(-1, 1, 1, 1) + mean).round_().clamp_(0, 255).to(torch.uint8)
