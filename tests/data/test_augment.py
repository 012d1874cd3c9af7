"""Augmentation: the documented warp and light, within their ranges, decided by a generator and nothing else."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from faceattr.data import augment
from faceattr.data.augment import Augmentation

PRESETS = sorted((Path(__file__).resolve().parents[2] / "conf" / "augment").glob("*.yaml"))
HEIGHT, WIDTH = 24, 18
RANGES = {"rotation": 30, "shift": 0.2, "shear": 20, "zoom": 0.3, "flip": True, "brightness": 0.3, "contrast": 0.4}


@pytest.fixture(params=["opencv", "torch"])
def pixels_by(request, monkeypatch):
    """What a CPU does, and what any other device does."""
    if request.param == "torch":
        monkeypatch.setattr(augment, "warp_by_opencv", augment.warp_by_torch)
        monkeypatch.setattr(augment, "relight_by_opencv", augment.relight_by_torch)
    return request.param


def batch(size: int = 3, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Noise, as the data module gives it: uint8 [B, 3, H, W], channels last in memory."""
    values = torch.randint(0, 256, (size, height, width, 3), generator=torch.Generator().manual_seed(0))
    return values.to(torch.uint8).permute(0, 3, 1, 2)


def warp(images: Tensor, matrices: np.ndarray) -> Tensor:
    return augment.warp_by_opencv(images, matrices)


def relight(images: Tensor, factors: np.ndarray) -> Tensor:
    return augment.relight_by_opencv(images, factors)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrices(draws: int, **ranges: object) -> np.ndarray:
    """[draws, 2, 3] at 24 rows x 18 columns."""
    return Augmentation(ranges).draw(draws, HEIGHT, WIDTH, seeded())[0]


def moved(images: Tensor, *rows: tuple[float, float, float]) -> Tensor:
    return warp(images, np.array([rows] * len(images), float))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_gives_the_same_kind_of_batch_and_its_seed_decides(preset, pixels_by):
    augmentation = Augmentation(OmegaConf.load(preset))
    images = batch(4, 32, 32)
    before = images.clone()
    first, again, other = (augmentation(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(images, before), "the packed pixels were written to"
    assert first.shape == images.shape and first.dtype == torch.uint8
    assert first.is_contiguous(memory_format=torch.channels_last)
    if preset.stem == "none":
        assert torch.equal(first, images)
    else:
        assert not torch.equal(first, images)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("name", RANGES)
def test_each_range_changes_images_and_zero_does_not(name):
    images = batch(8)
    assert not torch.equal(Augmentation({name: RANGES[name]})(images, seeded()), images)
    assert torch.equal(Augmentation({name: 0})(images, seeded()), images)


def test_images_of_a_batch_are_changed_differently():
    images = batch(1).expand(6, -1, -1, -1)
    for name in set(RANGES) - {"flip"}:
        found = Augmentation({name: RANGES[name]})(images, seeded())
        assert len({image.numpy().tobytes() for image in found}) == 6, name


def test_rotation_turns_within_its_degrees():
    found = matrices(500, rotation=30)
    angles = np.degrees(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    assert np.allclose(found[:, 0, 0], np.cos(np.radians(angles)), atol=1e-6)
    assert np.allclose(found[:, 0, 1], -found[:, 1, 0])
    assert not found[:, :, 2].any()
    fills(angles, 30)


def test_shift_moves_by_shares_of_height_and_of_width():
    found = matrices(500, shift=0.2)
    assert np.allclose(found[:, :, :2], np.eye(2))
    fills(found[:, 0, 2], 0.2 * HEIGHT)
    fills(found[:, 1, 2], 0.2 * WIDTH)


def test_shear_slants_within_its_degrees():
    found = matrices(500, shear=20)
    angles = np.degrees(np.arcsin(-found[:, 0, 1]))
    assert np.allclose(found[:, 1, 1], np.cos(np.radians(angles)), atol=1e-6)
    assert np.allclose(found[:, :, 0], [1, 0])
    fills(angles, 20)


def test_shear_can_be_given_in_radians():
    assert np.allclose(matrices(50, shear=0.2, shear_unit="radians"), matrices(50, shear=math.degrees(0.2)))
    assert np.allclose(matrices(50, shear=0.2, shear_unit="degrees"), matrices(50, shear=0.2))


def test_zoom_is_drawn_per_axis():
    found = matrices(500, zoom=0.3)
    assert not found[:, [0, 1, 0, 1], [1, 0, 2, 2]].any()
    fills(found[:, 0, 0] - 1, 0.3)
    fills(found[:, 1, 1] - 1, 0.3)
    assert abs(np.corrcoef(found[:, 0, 0], found[:, 1, 1])[0, 1]) < 0.2


def test_flip_mirrors_half_of_the_images_exactly(pixels_by):
    images = batch(64)
    found = Augmentation({"flip": True})(images, seeded())
    mirrored = (found == images.flip(3)).flatten(1).all(1)
    kept = (found == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 20 <= int(mirrored.sum()) <= 44


def fills(values: np.ndarray, limit: float, slack: float = 1e-5) -> None:
    assert np.abs(values).max() <= limit + slack
    assert values.max() > 0.9 * limit
    assert values.min() < -0.9 * limit


def test_the_matrix_is_kerass_composition():
    """rotation · shift · shear · zoom, then the mirror: what each range draws alone under the same seed, multiplied."""
    full = matrices(20, **RANGES)
    expected = np.tile(np.eye(3), (20, 1, 1))
    for name in ("rotation", "shift", "shear", "zoom", "flip"):
        alone = matrices(20, **{name: RANGES[name]})
        expected = expected @ np.concatenate([alone, np.tile([[[0.0, 0.0, 1.0]]], (20, 1, 1))], 1)
    assert np.allclose(full, expected[:, :2], atol=1e-5)


def test_warp_samples_where_keras_does(pixels_by):
    """Keras's `apply_affine_transform`: (row, column) about ((h-1)/2, (w-1)/2), bilinear, the edge repeated."""
    images = batch(6)
    drawn = matrices(6, **RANGES)
    found = warp(images, drawn).numpy()
    centre = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])
    grid = np.stack(np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij"), -1)
    for image, matrix, result in zip(images.numpy(), drawn.astype(float), found, strict=True):
        at = (grid - centre) @ matrix[:, :2].T + matrix[:, 2] + centre
        at = at.clip(0, [HEIGHT - 1, WIDTH - 1])
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, [HEIGHT - 1, WIDTH - 1])
        row, column = np.moveaxis(at - low, -1, 0)
        expected = (
            image[:, low[..., 0], low[..., 1]] * (1 - row) * (1 - column)
            + image[:, low[..., 0], high[..., 1]] * (1 - row) * column
            + image[:, high[..., 0], low[..., 1]] * row * (1 - column)
            + image[:, high[..., 0], high[..., 1]] * row * column
        )
        assert np.abs(result - expected).max() < (0.51 if pixels_by == "torch" else 1.01)  # rounded to whole numbers


def test_the_identity_warp_is_exact(pixels_by):
    images = batch(2, 224, 160)
    assert torch.equal(moved(images, (1, 0, 0), (0, 1, 0)), images)


def test_a_quarter_turn_equals_rot90(pixels_by):
    images = batch(2, 31, 31)
    turn = Augmentation({}).draw(2, 31, 31, seeded())[0]
    turn[:] = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]
    assert torch.equal(warp(images, turn), images.rot90(-1, (2, 3)))
    assert torch.equal(moved(batch(), (-1, 0, 0), (0, -1, 0)), batch().flip(2, 3))


def test_a_shift_by_whole_pixels_repeats_the_edge(pixels_by):
    images = batch()
    rows = (torch.arange(HEIGHT) + 2).clamp(0, HEIGHT - 1)
    columns = (torch.arange(WIDTH) - 5).clamp(0, WIDTH - 1)
    assert torch.equal(moved(images, (1, 0, 2), (0, 1, -5)), images[:, :, rows][:, :, :, columns])


def test_brightness_and_contrast_follow_their_factors(pixels_by):
    flat = torch.full((200, 3, 2, 2), 100, dtype=torch.uint8)
    bright = Augmentation({"brightness": 0.3})(flat, seeded()).float().mean((1, 2, 3)).numpy()
    fills(bright - 100, 30)
    images = (batch(50).float() / 4 + 40).to(torch.uint8)  # room on both sides, so that nothing is clipped
    found = Augmentation({"contrast": 0.4})(images, seeded()).float()
    assert torch.allclose(found.mean((1, 2, 3)), images.float().mean((1, 2, 3)), atol=0.5)
    fills((found.std((1, 2, 3)) / images.float().std((1, 2, 3)) - 1).numpy(), 0.4, slack=0.01)


def test_light_is_clipped_not_wrapped(pixels_by):
    images = torch.tensor([250, 5], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    found = relight(images, np.array([[1.0, 1.5]]))
    assert found[0, 0, 0].tolist() == [255, 0]


def test_switching_light_on_leaves_the_warp_of_a_seed():
    """One draw of everything: presets stay comparable under one seed."""
    warped = {"rotation": 30, "shift": 0.2}
    matrix, factors = Augmentation(warped | {"brightness": 0.3}).draw(3, HEIGHT, WIDTH, seeded())
    assert (Augmentation(warped).draw(3, HEIGHT, WIDTH, seeded())[0] == matrix).all()
    both = Augmentation(warped | {"brightness": 0.3})(batch(), seeded())
    assert torch.equal(both, relight(warp(batch(), matrix), factors))


@pytest.mark.parametrize("ranges", [RANGES, {"randaugment_ops": 2, "randaugment_magnitude": 9}], ids=["warp", "rand"])
def test_mixed_precision_changes_no_pixel(ranges, pixels_by):
    """Training steps run under autocast, which would round the coordinates of a matrix product to bf16."""
    images = batch(8, 64, 48)
    expected = Augmentation(ranges)(images, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Augmentation(ranges)(images, seeded()), expected)


def test_randaugment_follows_its_generator_and_leaves_the_global_one():
    images = batch(6)
    augmentation = Augmentation({"randaugment_ops": 2, "randaugment_magnitude": 9})
    state = torch.get_rng_state()
    first = augmentation(images, seeded(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(augmentation(images, seeded(3)), first)
    torch.set_rng_state(state)
    assert not torch.equal(augmentation(images, seeded(4)), first)
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_warp_and_light_leave_the_global_generator():
    state = torch.get_rng_state()
    Augmentation(RANGES)(batch(), seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_goes_on_from_batch_to_batch():
    generator, augmentation = seeded(), Augmentation(RANGES)
    assert not torch.equal(augmentation(batch(), generator), augmentation(batch(), generator))


def test_every_device_changes_pixels_alike():
    images = batch(16, 60, 50)
    drawn, factors = Augmentation(RANGES).draw(16, 60, 50, seeded())
    pairs = (
        (augment.warp_by_opencv(images, drawn), augment.warp_by_torch(images, drawn)),
        (augment.relight_by_opencv(images, factors), augment.relight_by_torch(images, factors)),
    )
    for one, other in pairs:
        assert one.dtype == other.dtype and one.stride() == other.stride()
        assert (one.int() - other.int()).abs().max() <= 1


@pytest.mark.parametrize("names", [("rotation", "flip"), ("brightness", "contrast"), tuple(RANGES)], ids="+".join)
def test_change_with_one_tensor_of_parameters_does_what_the_cpu_does(names):
    """What a device runs, and a CUDA graph replays: the same draws, everything in one call."""
    augmentation, images = Augmentation({name: RANGES[name] for name in names}), batch(16, 60, 50)
    parameters = augmentation.parameters(images, seeded(5))
    assert parameters.shape == (16, 8) and parameters.dtype == torch.float32
    changed, expected = augmentation.change(images, parameters), augmentation(images, seeded(5))
    assert changed.dtype == torch.uint8 and changed.is_contiguous(memory_format=torch.channels_last)
    away = (changed.int() - expected.int()).abs()
    assert away.max() <= 2 and (away > 1).float().mean() < 1e-3  # each of the two steps rounds for itself


def test_change_leaves_pixels_alone_where_no_range_is_set():
    images = batch()
    augmentation = Augmentation({"randaugment_ops": 2, "randaugment_magnitude": 9})
    assert augmentation.change(images, augmentation.parameters(images, seeded())) is images
    assert not augmentation.capturable and Augmentation(RANGES).capturable
