"""Parity with Keras (with its torch backend): the same results for the same images, random numbers and weights.

The studies used versions before 3. Where Keras 3 differs from them, the test says so and shows which one faceattr equals.
"""

import importlib
import math
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from composing import compose_unchecked
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from faceattr.commands.build_from_config import create_classifier, create_network
from faceattr.config.instantiate import instantiate
from faceattr.data import augment
from faceattr.data.augment import Augmentation
from faceattr.data.decode import InputSpec, read
from faceattr.metrics import compute_metrics
from faceattr.models.staged_network import HeightNorm, Network
from faceattr.models.task import Task

CONF = Path(__file__).resolve().parents[2] / "conf"
PRESETS = {f"keras_{n}": dict(OmegaConf.load(CONF / "augment" / f"keras_{n}.yaml")) for n in (40, 20)}
PRESETS["radians"] = PRESETS["keras_40"] | {"shear_unit": "radians"}


@pytest.fixture(scope="module")
def keras(tmp_path_factory) -> ModuleType:
    """Keras, imported when the first test needs it; its settings go to a temporary folder, not to ~/.keras."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_TORCH_DEVICE", "cpu")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        if not os.environ.get("CI"):
            pytest.importorskip("keras", reason="parity is checked against Keras: pip install keras scipy")
        module = importlib.import_module("keras")
    assert module.backend.backend() == "torch"
    return module


@pytest.fixture(autouse=True)
def fixed_random_numbers():
    """The same random numbers for each test (Keras uses NumPy's generator); restores the generators of the process."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        yield
    np.random.set_state(state)


def composed(*overrides: str) -> DictConfig:
    """The config of train.py."""
    return compose_unchecked("train", ["data.root=.", *overrides])


def network_of(cfg: DictConfig) -> Network:
    """For the study's classes: three ages, or two genders."""
    classes = ["young", "middle", "old"] if cfg.loss == "ce" else ["female", "male"]
    return create_network(cfg, Task.from_config(classes, ordinal=False, loss=cfg.loss))


# Augmentation


def generator_of(keras: ModuleType, ranges: dict):
    """Keras's ImageDataGenerator for the keys of conf/augment/*.yaml."""
    angle = ranges.get("shear", 0)
    return importlib.import_module("keras.src.legacy.preprocessing.image").ImageDataGenerator(
        rotation_range=ranges.get("rotation", 0),
        width_shift_range=ranges.get("shift", 0),
        height_shift_range=ranges.get("shift", 0),
        shear_range=math.degrees(angle) if ranges.get("shear_unit") == "radians" else angle,
        zoom_range=ranges.get("zoom", 0),
        horizontal_flip=ranges.get("flip", False),
    )


def parameters(ranges: dict, count: int, height: int, width: int) -> dict[str, np.ndarray]:
    """The parameters that `draw` draws, by Keras's names: each from the matrix of its range alone, with the same seed."""

    def alone(name: str) -> np.ndarray:
        only = {name: ranges.get(name), "shear_unit": ranges.get("shear_unit")}
        return Augmentation(only).draw(count, height, width, torch.Generator().manual_seed(0))[0]

    rotation, shift, zoom = alone("rotation"), alone("shift"), alone("zoom")
    return {
        "theta": np.degrees(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])),
        "tx": shift[:, 0, 2],
        "ty": shift[:, 1, 2],
        "shear": np.degrees(np.arcsin(-alone("shear")[:, 0, 1])),
        "zx": zoom[:, 0, 0],
        "zy": zoom[:, 1, 1],
        "flip_horizontal": alone("flip")[:, 1, 1] < 0,
    }


def portrait(height: int, width: int) -> np.ndarray:
    """An image with smooth shading and sharp edges, like a photo of a face: uint8 [height, width, 3]."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    pixels = np.stack([110 + 60 * np.sin(2 * x + y), 90 + 70 * y, 120 + 80 * x * y], -1)
    pixels[(x / 0.6) ** 2 + (y / 0.8) ** 2 < 1] += (70, 40, 10)
    pixels[(abs(x) - 0.25) ** 2 + (y + 0.2) ** 2 < 0.02] = (20, 30, 250)
    return pixels.round().clip(0, 255).astype(np.uint8)


def warped_by_keras(generator, image: np.ndarray, drawn: dict) -> np.ndarray:
    """Every release of keras-preprocessing (to 1.1.2) read the matrix in (row, column), as we do. Keras took over what
    followed (#318): (x, y), but the centre is found as if height and width had kept their places. So the present one is
    given the image turned over its diagonal, within a square whose border repeats the edge.
    """
    side = max(image.shape)
    down, across = ((side - size) // 2 for size in image.shape[:2])
    square = np.pad(image.astype(np.float32), ((down, down), (across, across), (0, 0)), mode="edge")
    turned = drawn | {"flip_horizontal": False, "flip_vertical": drawn["flip_horizontal"]}
    warped = generator.apply_transform(square.transpose(1, 0, 2), turned).transpose(1, 0, 2)
    return warped[down : side - down, across : side - across]


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # of a module of SciPy's that Keras uses
@pytest.mark.parametrize("by", [augment.warp_by_opencv, augment.warp_by_torch], ids=["opencv", "torch"])
@pytest.mark.parametrize("size", [(48, 48), (64, 40), (40, 64)], ids=["square", "high", "wide"])
@pytest.mark.parametrize("ranges", ["rotation 40", "shift 0.2", "shear 20", "zoom 0.2", "flip 1", *PRESETS])
def test_augment_pixels_equal_keras(keras, ranges, size, by):
    """Keras gives floats, faceattr rounds: they differ by half a level at most, and by the error of float32 coordinates."""
    one = ranges.split()
    ranges = {one[0]: float(one[1])} if len(one) == 2 else PRESETS[ranges]
    generator, drawn, image = generator_of(keras, ranges), parameters(ranges, 8, *size), portrait(*size)
    batch = torch.from_numpy(image).permute(2, 0, 1).expand(8, -1, -1, -1)
    matrices = Augmentation(ranges).draw(8, *size, torch.Generator().manual_seed(0))[0]
    pixels = by(batch, matrices).permute(0, 2, 3, 1).numpy()
    each = [warped_by_keras(generator, image, {name: values[n] for name, values in drawn.items()}) for n in range(8)]
    assert np.abs(pixels - np.stack(each)).max() < 0.51
    assert (pixels != np.round(each)).mean() < 0.001
    assert (pixels != image).any((1, 2, 3)).mean() > 0.3, "the image did not change"


@pytest.mark.parametrize("preset", PRESETS)
def test_augment_parameters_are_distributed_as_in_keras(keras, preset):
    from scipy.stats import ks_2samp

    ours = parameters(PRESETS[preset], 4000, 64, 40)
    draws = [generator_of(keras, PRESETS[preset]).get_random_transform((64, 40, 3)) for _ in range(4000)]
    theirs = {name: np.array([draw[name] for draw in draws]) for name in ours}
    for drawn in (ours, theirs):
        assert drawn.pop("flip_horizontal").mean() == pytest.approx(0.5 if PRESETS[preset].get("flip") else 0, abs=0.03)
        assert np.abs(np.corrcoef(list(drawn.values())) - np.eye(6)).max() < 0.06, "each is drawn by itself"
    for name, values in ours.items():
        assert np.ptp(values) == pytest.approx(np.ptp(theirs[name]), rel=0.01), name
        assert ks_2samp(values, theirs[name]).pvalue > 0.001, name


# Images


@pytest.mark.parametrize("size", [(30, 44), (64, 64), (109, 89), (150, 150), (178, 218)], ids=str)
@pytest.mark.parametrize("form", ["png", "jpg"])
def test_read_nearest_equals_load_img(keras, tmp_path, form, size):
    path = tmp_path / f"photo.{form}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (109, 89, 3), np.uint8)).save(path)
    expected = np.asarray(keras.utils.load_img(path, target_size=size, interpolation="nearest"))
    assert np.array_equal(read(path, InputSpec(*size, "nearest", "unit")), expected)


@pytest.mark.parametrize("scaling", ["caffe", "imagenet", "unit"])
def test_scaling_equals_preprocess_input(keras, scaling):
    cfg = composed(f"model.scaling={scaling}", "model.image_size=[32,24]")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 24, 3), np.uint8)
    by_keras = {
        "caffe": lambda x: keras.applications.vgg16.preprocess_input(x)[..., ::-1],  # blue is the first channel
        "imagenet": lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode="torch"),
        "unit": keras.layers.Rescaling(1 / 255),
    }
    classifier = create_classifier(
        cfg, Task.from_config(["a", "b"], ordinal=False, loss="bce"), network=network_of(cfg)
    )
    scaled = classifier.scaled(torch.from_numpy(pixels).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert np.allclose(scaled, by_keras[scaling](pixels.astype(np.float32)), rtol=0, atol=1e-6)


# Layers


@pytest.mark.parametrize(
    ("quirks", "kind", "axis"),
    [("as_published", HeightNorm, 1), ("corrected", nn.BatchNorm2d, -1), ("corrected", nn.BatchNorm1d, -1)],
)
def test_batch_norm_equals_keras(keras, quirks, kind, axis):
    """The batch norm of S4-B. The running variance of n values is biased in Keras 3: (n - 1) / n of torch's and Keras 2's."""
    network = network_of(composed("experiment=s4b", f"quirks={quirks}"))
    ours = next(layer for layer in network.modules() if type(layer) is kind)
    theirs = keras.layers.BatchNormalization(axis=axis)  # its default constants are those of the preset
    inner = (512,) if kind is nn.BatchNorm1d else (126, 4, 32)
    batches = 3 * torch.randn(4, 8, *inner) + 1
    n = batches[0].numel() // ours.num_features
    theirs.build((None, *inner))
    for parameter, variable in ((ours.weight, theirs.gamma), (ours.bias, theirs.beta)):
        variable.assign(nn.init.uniform_(parameter, 0.5, 1.5).detach())

    def normed(batch: Tensor) -> Tensor:
        return ours(batch) if batch.ndim == 2 else ours(batch.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    for batch in batches[:3]:
        assert torch.allclose(normed(batch), theirs(batch, training=True), rtol=0, atol=2e-5)
    assert torch.allclose(ours.running_mean, theirs.moving_mean.value, rtol=0, atol=1e-6)
    variance, start = theirs.moving_variance.value, 0.99**3
    assert torch.allclose((ours.running_var - start) * (n - 1) / n, variance - start, rtol=0, atol=2e-6)
    ours.eval().running_var.copy_(variance)
    assert torch.allclose(normed(batches[3]), theirs(batches[3], training=False), rtol=0, atol=2e-5)


@pytest.mark.parametrize("experiment", ["s3_celeba575_cnn7", "s4a"])
def test_initial_weights_are_distributed_as_in_keras(keras, experiment):
    from scipy.stats import ks_2samp

    network = network_of(composed(f"experiment={experiment}"))
    draw = keras.initializers.GlorotUniform(seed=0)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 7
    for layer in layers:
        num_logits, inputs, *kernel = layer.weight.shape
        limit = math.sqrt(6 / ((inputs + num_logits) * math.prod(kernel)))
        ours, theirs = (w.detach().flatten().numpy() for w in (layer.weight, draw((*kernel, inputs, num_logits))))
        for values in (ours, theirs):
            assert limit * (1 - 10 / len(values)) < np.abs(values).max() <= limit * (1 + 1e-6)
        assert ks_2samp(ours, theirs).pvalue > 0.001
        assert not layer.bias.any()


# Optimizers

RMSPROP, ADAM = ["optim=rmsprop"], ["experiment=s1_celeba_alexnet"]


@pytest.fixture
def gradients() -> Tensor:
    """Gradients of 1,000 weights at five steps: from 0.1 to 1 in size; each weight has one sign, so no steps cancel out."""
    return (torch.rand(5, 1000) * 0.9 + 0.1) * torch.randn(1000).sign()


def moved(keras: ModuleType, overrides: list[str], optimizer, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """The weights after each step from 0 [steps, weights], with the config's optimizer and with Keras's."""
    ours, theirs = nn.Parameter(torch.zeros(1000)), keras.Variable(np.zeros(1000, np.float32))
    own = instantiate(composed(*overrides).optim, "optim", drop=("schedule", "warmup_epochs"), params=[ours])
    optimizer.build([theirs])
    steps = []
    for gradient in gradients:
        ours.grad = gradient.clone()
        own.step()
        optimizer.apply([gradient.clone()], [theirs])
        steps.append(torch.stack((ours.detach(), theirs.value.detach())))
    return torch.stack(steps).unbind(1)


@pytest.mark.parametrize(("overrides", "name", "lr"), [(RMSPROP, "RMSprop", 1e-4), (ADAM, "Adam", 1e-3)])
def test_optimizer_steps_equal_keras(keras, gradients, overrides, name, lr):
    """Where epsilon is added changes the first RMSprop step at a gradient of 0.1 by 5e-5, and less at larger gradients."""
    ours, theirs = moved(keras, overrides, getattr(keras.optimizers, name)(lr), gradients)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=0)


def test_rmsprop_epsilon_is_placed_as_in_keras_2(keras, gradients):
    """Outside the square root, as in torch. Keras 3 adds it inside: steps are then tiny for small gradients."""
    ours, keras_3 = moved(keras, RMSPROP, keras.optimizers.RMSprop(1e-4), gradients * 1e-4)
    square, keras_2 = torch.zeros(1000), torch.zeros(1000)
    for gradient, position in zip(gradients * 1e-4, ours, strict=True):
        square = 0.9 * square + 0.1 * gradient**2
        keras_2 -= 1e-4 * gradient / (square.sqrt() + 1e-7)
        assert torch.allclose(position, keras_2, rtol=1e-5, atol=0)
    assert (ours / keras_3 > 3).all()


def test_adam_epsilon_differs_from_keras_as_documented(keras, gradients):
    """Keras adds it to the uncorrected root ("epsilon hat"), which is torch's epsilon divided by √(1 - 0.999^t) at step t."""
    small = gradients[:1] * 1e-4
    ours, theirs = moved(keras, ADAM, keras.optimizers.Adam(1e-3), small)
    assert (ours / theirs > 1.02).all()
    larger = [*ADAM, f"optim.eps={composed(*ADAM).optim.eps / math.sqrt(1 - 0.999)}"]
    assert torch.allclose(moved(keras, larger, keras.optimizers.Adam(1e-3), small)[0], theirs, rtol=1e-4, atol=0)


# Networks and losses


def convs(layers, blocks: list, padding: str = "valid", axis: int | None = None) -> list:
    made = []
    for block in blocks:
        for width in block:
            made.append(layers.Conv2D(width, 3, padding=padding, activation="relu"))
            made += [] if axis is None else [layers.BatchNormalization(axis=axis)]
        made.append(layers.MaxPooling2D(2))
    return made


def dense(layers, units: list, num_logits: int, rate: float = 0.0, norm: bool = False) -> list:
    made = [layers.Flatten(), layers.Dropout(rate if norm else 0.0)]
    for width in units:
        made.append(layers.Dense(width, activation="relu"))
        made += [layers.BatchNormalization()] if norm else []
        made.append(layers.Dropout(rate))
    return [*made, layers.Dense(num_logits)]


def alexnet(layers) -> list:
    made = []
    for width, kernel, pool in [(96, 11, 1), (256, 11, 0), (384, 3, 0), (384, 3, 0), (256, 3, 1)]:
        step = {"strides": 1, "padding": "same"} if made else {"strides": 4, "padding": "valid"}
        made += [layers.Conv2D(width, kernel, activation="relu", **step), layers.BatchNormalization()]
        made += [layers.MaxPooling2D(2)] * pool
    return made + dense(layers, [4096, 4096], 1, 0.5)


S0, S0_ALT = [[32] * 2, [64] * 2, [128] * 3, [256] * 3, [256] * 3], [[32] * 2, [64] * 2, [128] * 2, [256] * 2]
S3, S4 = [[32], [32], [32], [64], [64]], [[32], [64], [128], [128], [128]]
STUDIES = {  # image size, parameters and statistics, and the layers of the study's table
    "s0_small_csv": (64, 4_008_609, lambda k: convs(k, S0, "same") + dense(k, [256] * 2, 1)),
    "s0_small_csv_alt": (64, 2_287_137, lambda k: convs(k, S0_ALT, "same") + dense(k, [256] * 2, 1, 0.5)),
    "s1_celeba_alexnet": (64, 32_338_689, alexnet),
    "s3_celeba575_cnn7": (150, 91_329, lambda k: convs(k, S3) + dense(k, [64], 1, 0.5)),
    "s3_celeba575_three_conv": (150, 1_212_513, lambda k: convs(k, [[32], [32], [64]]) + dense(k, [64], 1, 0.5)),
    "s4a": (128, 652_611, lambda k: convs(k, S4) + dense(k, [512], 3)),
    "s4b": (128, 655_583, lambda k: convs(k, S4, axis=1) + dense(k, [512], 3, 0.3, norm=True)),
    "s4b quirks=corrected": (128, 656_579, lambda k: convs(k, S4, axis=-1) + dense(k, [512], 3, 0.3, norm=True)),
}


def randomise(model) -> None:
    """Random kernels that preserve the variance through ReLUs; other weights uniform around 0 (shifts) or 1 (factors)."""
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name == "kernel":
            variable.assign(torch.randn(shape) * math.sqrt(2 / math.prod(shape[:-1])))
        else:
            variable.assign(torch.rand(shape) - 0.5 + (variable.name in ("gamma", "moving_variance")))


def copy_weights(keras: ModuleType, model, network: Network) -> None:
    """Kernels are [rows, columns, in, out] in Keras and [out, in, rows, columns] in torch; also in the layer after Flatten."""
    ours = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear | _BatchNorm)]
    theirs = [layer for layer in model.layers if layer.weights]
    inputs = next(layer.input.shape[1:] for layer in model.layers if isinstance(layer, keras.layers.Flatten))
    for task, source in zip(ours, theirs, strict=True):
        first, *rest = (variable.value.detach() for variable in source.weights)
        if isinstance(task, nn.Linear):
            first, inputs = first.view(*inputs, -1), (1, 1, task.out_features)
        if first.ndim == 4:
            first = first.permute(3, 2, 0, 1).reshape(task.weight.shape)
        names = ("weight", "bias", "running_mean", "running_var")
        task.load_state_dict(dict(zip(names, (first, *rest), strict=False)), strict=False)


@pytest.mark.parametrize("study", STUDIES)
def test_study_networks_equal_keras(keras, study):
    side, total, layers = STUDIES[study]
    model = keras.Sequential([keras.Input((side, side, 3)), *layers(keras.layers)])
    randomise(model)
    network = network_of(composed(*f"experiment={study}".split())).eval()
    tensors = [*network.parameters(), *(b for name, b in network.named_buffers() if "running" in name)]
    assert model.count_params() == sum(t.numel() for t in tensors) == total
    copy_weights(keras, model, network)
    pixels = torch.rand(4, side, side, 3) * torch.tensor([0.1, 0.4, 0.7, 1.0]).view(4, 1, 1, 1)
    with torch.no_grad():
        theirs, ours = model(pixels, training=False), network(pixels.permute(0, 3, 1, 2))
    assert theirs.std(0).min() > 0.05, "the output does not depend on the image"
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("loss", ["bce", "ce", "one_vs_rest"])
def test_losses_equal_keras(keras, loss):
    task = Task.from_config(["a", "b", "c"] if loss == "ce" else ["a", "b"], ordinal=False, loss=loss)
    logits, truth = 2 * torch.randn(200, task.num_logits), torch.randint(len(task.classes), (200,))
    one_hot = nn.functional.one_hot(truth).float()
    if loss == "ce":
        expected = keras.losses.CategoricalCrossentropy(reduction=None)(one_hot, logits.softmax(1))
    else:
        units = truth[:, None].float() if loss == "bce" else one_hot
        expected = keras.losses.BinaryCrossentropy(reduction=None)(units, logits.sigmoid())
    assert torch.allclose(task.losses(logits, truth), expected, rtol=0, atol=1e-4)
    if loss == "one_vs_rest":
        metrics = compute_metrics.all_metrics(task, task.probabilities(logits), truth)
        per_unit = keras.metrics.binary_accuracy(one_hot, logits.sigmoid()).mean()
        assert metrics["accuracy_per_unit"] == pytest.approx(float(per_unit)) != metrics["accuracy"]
