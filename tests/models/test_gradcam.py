"""Grad-CAM: heatmaps cover what raises the score, equal the published definition, and leave the network unchanged."""

import random

import numpy as np
import pytest
import torch
from composing import MODELS, compose_config
from torch import Tensor, nn
from torch.nn.functional import interpolate

from faceattr.commands.build_from_config import create_classifier
from faceattr.errors import FaceattrError
from faceattr.models import gradcam
from faceattr.models.staged_network import Network
from faceattr.models.task import Task
from faceattr.training.lightning_module import Classifier

TINY_VGG = ("model=vgg16", "model.blocks=[[4,4],[6],[6],[8],[8,8]]")


def configured(*overrides: str):
    return compose_config("trainer=cpu", "trainer.precision=32", "model.pretrained=false", *overrides)


def build(*overrides: str, classes: str = "ab", **task) -> Classifier:
    task = Task.from_config(list(classes), **{"ordinal": False, "loss": "auto"} | task)
    torch.manual_seed(0)
    cfg = configured(*overrides)
    return create_classifier(cfg, task)


def pictures(model: Classifier, count: int = 3) -> Tensor:
    size = [model.spec.height, model.spec.width]
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


RED, BLUE, CYAN = (slice(2, 8), slice(2, 8)), (slice(24, 30), slice(24, 30)), (slice(2, 8), slice(24, 30))


def red_or_blue(weights: list[list[float]], **task) -> Classifier:
    """A network whose two features detect red and blue; `weights` [num_logits, 2] are those of its output layer."""
    model = build("model=cnn", "model.image_size=[32,32]", "model.blocks=[[2]]", "model.norm=null", **task)
    conv, out = model.network.features[0], model.network.head.out
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, :2, 1, 1] = torch.tensor([1.0, -1.0])
        conv.weight[1, 1:, 1, 1] = torch.tensor([-1.0, 1.0])
        out.weight.copy_(torch.tensor(weights))
    return model


def spots() -> Tensor:
    """A grey image with a red, a blue and a cyan spot."""
    image = torch.full((3, 32, 32), 100, dtype=torch.uint8)
    image[0][RED], image[2][BLUE], image[0][CYAN] = 250, 180, 0
    return image


def covers(heat: np.ndarray, spot: tuple[slice, slice]) -> bool:
    inside = np.zeros((32, 32), bool)
    inside[spot] = True
    return ((heat > 0) == inside).all() and heat.max() == 1


def test_heatmaps_cover_what_raises_the_score_of_the_class():
    model = red_or_blue([[1.0, -1.0]]).eval()
    grey = torch.full_like(spots(), 100)
    with torch.no_grad():
        assert model(spots()[None])[0] > 0 == model(grey[None])[0]
    blue, red, nothing = model.explain(torch.stack((spots(), spots(), grey)), torch.tensor([0, 1, 1]))
    assert covers(red, RED) and covers(blue, BLUE)
    assert (nothing == 0).all()


@pytest.mark.parametrize("task", [{}, {"multilabel": True}, {"loss": "one_vs_rest"}])
def test_heatmaps_differ_between_logits(task):
    model = red_or_blue([[0.0, 1.0], [2.0, 0.0], [-1.0, -1.0]], classes="abc", **task)
    blue, red, nothing = model.explain(spots().expand(3, 3, 32, 32), torch.tensor([0, 1, 2]))
    assert covers(red, RED) and covers(blue, BLUE)
    assert (nothing == 0).all()


def test_heatmaps_of_more_images_than_a_batch():
    model = red_or_blue([[1.0, -1.0]])
    count = gradcam.BATCH + 3
    maps = model.explain(spots().expand(count, 3, 32, 32), torch.arange(count) % 2)
    assert [covers(heat, RED if i % 2 else BLUE) for i, heat in enumerate(maps)] == [True] * count


@pytest.mark.parametrize("name", MODELS)
def test_heatmaps_of_every_model(name):
    small = ["model.image_size=[64,64]"] if name in ("timm", "vgg16", "vgg16_half") else []
    model = build(f"model={name}", *small, classes="abcdef")
    images = pictures(model, 1)
    trunk, pooling = gradcam._split_features(model.network.eval().features)
    with torch.no_grad():
        torch.testing.assert_close(model.network.head(pooling(trunk(model.scaled(images)))), model(images))
    maps = torch.from_numpy(model.explain(images.repeat(6, 1, 1, 1), torch.arange(6)))
    assert maps.shape == (6, *images.shape[2:]) and maps.dtype == torch.float32
    assert maps.isfinite().all() and maps.min() >= 0 and set(maps.amax((1, 2)).tolist()) <= {0.0, 1.0}
    assert len(maps.unique(dim=0)) > 1, "the same for each class"


def tokens(prefix: int):
    return lambda out, h, w: out[:, prefix:].unflatten(1, (h, w)).permute(0, 3, 1, 2)


def rows_first(out: Tensor, h: int, w: int) -> Tensor:
    return out if out.shape[2:] == (h, w) else out.permute(0, 3, 1, 2)


def expected_heatmaps(model: Classifier, layer: nn.Module, as_map, images: Tensor, classes: Tensor) -> np.ndarray:
    """The paper's equations 1 and 2 for `layer`; `as_map` turns its output into [B, C, h, w]."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    score = model.task.class_score(model.eval()(images), classes).sum()
    hook.remove()
    slope, features = (
        as_map(t, images.shape[2] // 32, images.shape[3] // 32)
        for t in (*torch.autograd.grad(score, outputs), outputs[0])
    )
    heat = interpolate(
        (slope.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu(), images.shape[2:], mode="bilinear"
    )
    return (heat / heat.amax((2, 3), keepdim=True).clamp_min(1e-30))[:, 0].detach().numpy()


@pytest.mark.parametrize(
    ("name", "layer", "as_map"),
    [
        ("resnet18", "layer4", rows_first),
        pytest.param("convnext_atto", "stages", rows_first, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", "bn2", rows_first, marks=pytest.mark.slow),
        pytest.param("mobilenetv3_small_100", "blocks", rows_first, marks=pytest.mark.slow),
        ("swin_tiny_patch4_window7_224", "norm", rows_first),
        ("vit_tiny_patch16_224", "blocks.11.norm1", tokens(1)),
        pytest.param("deit_tiny_distilled_patch16_224", "blocks.11.norm1", tokens(2), marks=pytest.mark.slow),
        pytest.param("mixer_s32_224", "norm", tokens(0), marks=pytest.mark.slow),
    ],
)
def test_heatmaps_of_timm_families_equal_the_definition(name, layer, as_map):
    side = 224 if "mixer" in name else 96
    grid = 16 if "tiny_" in name and "swin" not in name else 32
    model = build("model=timm", f"model.name={name}", f"model.image_size=[{side},{side if side == 224 else 64}]")
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):  # a linear layer with zero bias has the same map as its input
            nn.init.normal_(parameter, std=0.1)
    images, classes = pictures(model, 2), torch.tensor([1, 0])
    heat = model.explain(images, classes)
    scale = lambda out, h, w: as_map(out, h * 32 // grid, w * 32 // grid)  # noqa: E731
    expected = expected_heatmaps(model, model.network.features.get_submodule(layer), scale, images, classes)
    np.testing.assert_allclose(heat, expected, atol=1e-4)
    assert heat.max() == 1


def test_heatmaps_use_the_last_map_larger_than_a_pixel():
    model = build("model=timm", "model.name=resnet18", "model.image_size=[32,32]")
    maps = model.explain(pictures(model), torch.tensor([0, 1, 1]))
    assert maps.shape == (3, 32, 32) and maps.max() == 1 and np.ptp(maps, axis=(1, 2)).max() > 0.5


def flat() -> Classifier:
    cfg = configured("model.image_size=[8,8]")
    features = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(inplace=True))
    network = Network(features, {"0": "flat", "1": "flat", "2": "flat"}, [8, 8], 1, {})
    return create_classifier(cfg, Task.from_config(["a", "b"], ordinal=False, loss="auto"), network=network)


def test_heatmaps_refuse_a_network_without_maps():
    model = flat()
    with pytest.raises(FaceattrError, match="no layer's output has a height and width"):
        model.explain(pictures(model), torch.tensor([0, 1, 1]))
    assert state(model)["hooks"] == 0


def state(model: Classifier) -> dict:
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "trained": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()
        ),
        "chance": (torch.get_rng_state(), random.getstate()),
    }


@pytest.mark.parametrize(
    "overrides", [(*TINY_VGG, "finetune=last_block"), ("model=timm", "model.name=vit_tiny_patch16_224")]
)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_heatmaps_leave_the_network_unchanged(overrides, mode):
    model = build(*overrides, "model.image_size=[64,64]").train()
    images, classes = pictures(model), torch.tensor([0, 1, 1])
    model.task.losses(model(images), classes).mean().backward()
    before = state(model)
    alike = {len(set(before[key])) for key in ("modes", "trained")}
    assert alike == ({2} if "finetune=last_block" in overrides else {1})
    with mode():
        heat = model.explain(images, classes)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    torch.testing.assert_close(state(model), before, rtol=0, atol=0)
    np.testing.assert_array_equal(heat, model.eval().explain(images, classes))


def test_overlay_shows_the_image_and_an_outline():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    heat = np.zeros((40, 30), np.float32)
    heat[10:20, 5:15] = 1
    shown = gradcam.overlay(pixels, heat)
    assert shown.shape == pixels.shape and shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[25:], pixels[25:] // 2)
    assert shown[12:18, 7:13].mean() > 1.5 * shown[25:].mean()
    assert (shown[10, 5:15] == 255).all() and (shown[9, 5:15] == 0).all(), "no outline"
    assert np.corrcoef(shown[12:18, 7:13].ravel(), pixels[12:18, 7:13].ravel())[0, 1] > 0.7
    np.testing.assert_array_equal(gradcam.overlay(pixels, np.zeros_like(heat)), pixels // 2)
