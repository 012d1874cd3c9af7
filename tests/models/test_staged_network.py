"""Networks: published numbers of parameters, the stages of every conf/model/*.yaml, heads, invalid settings."""

from pathlib import Path

import pytest
import torch
import torchvision
from composing import compose_unchecked
from omegaconf import OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from faceattr.config.instantiate import instantiate
from faceattr.config.schema import Head
from faceattr.errors import FaceattrError
from faceattr.models.conv_stacks import alexnet_imagenet, cnn
from faceattr.models.staged_network import Network, build_head, limited_parameters

CONF = Path(__file__).resolve().parents[2] / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
S4_D = {"model.head.pool": "flatten", "model.head.hidden": [256], "model.head.batch_norm": False}
S4_F = S4_D | {"model.head.hidden": [512, 128, 32], "model.head.dropout": [0.3, 0.3, 0.0]}


def build(model: str, num_logits: int = 2, device: str = "meta", **overrides: object) -> Network:
    cfg = compose_unchecked(f"model/{model}")
    for key, value in overrides.items():
        OmegaConf.update(cfg, key, value)
    with torch.device(device):
        return instantiate(cfg.model, "model", num_logits=num_logits)


def small(blocks: tuple = ((4,), (8, 8)), image_size: tuple = (16, 12), **keys: object) -> Network:
    return cnn(
        **{"image_size": list(image_size), "num_logits": 3, "head": {}, "blocks": [list(b) for b in blocks], **keys}
    )


def parameters_and_statistics(network: nn.Module) -> tuple[int, int]:
    statistics = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return sum(p.numel() for p in network.parameters()), sum(b.numel() for b in statistics)


@pytest.mark.parametrize(
    ("model", "num_logits", "overrides", "parameters", "total"),
    [
        ("cnn7", 1, {}, 91_329, 91_329),
        ("cnn_age", 3, {}, 652_611, 652_611),
        ("cnn_age_bn", 3, {}, 654_595, 656_579),
        ("alexnet", 1, {}, 32_335_937, 32_338_689),
        ("vgg16_half", 1, {}, 4_008_609, 4_008_609),
        ("vgg16", 2, {}, 14_780_866, 14_781_122),
        ("vgg16", 3, S4_D, 16_812_867, 16_812_867),
        ("vgg16", 3, S4_F, 18_979_395, 18_979_395),
    ],
)
def test_models_have_the_published_numbers_of_parameters(model, num_logits, overrides, parameters, total):
    counts = parameters_and_statistics(build(model, num_logits, **overrides))
    assert counts[0] == parameters
    assert sum(counts) == total


def test_vgg16_stages_have_the_published_numbers_of_parameters():
    network = build("vgg16", 2)
    count = dict.fromkeys(network.stage_names, 0)
    for name, parameter in network.named_parameters():
        count[network.stage_of(name)] += parameter.numel()
    assert sum(count.values()) - count["head"] == 14_714_688
    assert count["block5"] == 7_079_424
    assert network.stage_of("features.23") == "block4"  # torch's features[24:] is all of block 5
    assert network.stage_of("features.24.weight") == "block5"


@pytest.mark.parametrize("model", MODELS)
def test_stage_of_gives_one_stage_per_parameter_and_leaf_module(model):
    network = build(model)
    assert network.stage_names[-1] == "head"
    stages = {name: network.stage_of(name) for name, _ in network.named_parameters()}
    assert list(dict.fromkeys(stages.values())) == network.stage_names, "a stage without parameters, or out of order"
    assert all(name.startswith("head.") == (stage == "head") for name, stage in stages.items())
    for name, module in network.named_modules():
        if not list(module.children()):
            assert network.stage_of(name) in network.stage_names, name
        for parameter, _ in module.named_parameters():
            if network.stage_of(name) is not None:
                assert stages[f"{name}.{parameter}"] == network.stage_of(name)
    assert network.stage_of("") is None
    assert network.stage_of("features") is None
    assert network.stage_of("no.such.name") is None


@pytest.mark.parametrize("model", MODELS)
def test_forward_gives_finite_logits_at_the_default_size(model):
    network = build(model)
    device = "cpu" if sum(p.numel() for p in network.parameters()) < 5_000_000 else "meta"
    network = build(model, num_logits=3, device=device).eval()
    with torch.no_grad():
        logits = network(torch.rand(2, 3, *network.image_size, device=device))
    assert logits.shape == (2, 3)
    assert device == "meta" or torch.isfinite(logits).all()


def test_default_model_needs_at_most_100_million_multiply_adds():
    network = build("cnn")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, *network.image_size, device="meta"))
    assert counter.get_total_flops() / 2 <= 100e6


def test_vgg16_equals_torchvision():
    ours = build("vgg16", device="cpu").features
    theirs = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 33, 48)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_alexnet_imagenet_equals_torchvision():
    ours = alexnet_imagenet(image_size=[64, 64], num_logits=2, head={}).features
    with torch.device("meta"):
        theirs = torchvision.models.AlexNet().features
    theirs.load_state_dict(ours.state_dict(), assign=True)
    images = torch.randn(2, 3, 80, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_alexnet_imagenet_head_equals_torchvision():
    head = build("alexnet_imagenet", num_logits=1000).head
    with torch.device("meta"):
        theirs = torchvision.models.AlexNet()
    assert [repr(m).replace("inplace=False", "") for m in head if isinstance(m, nn.Linear | nn.Dropout)] == [
        repr(m).replace("inplace=False", "") for m in theirs.classifier if not isinstance(m, nn.ReLU)
    ]
    assert head.pool.output_size == theirs.avgpool.output_size[0]


def test_alexnet_has_batch_norm_after_relu_and_no_pool_in_block2():
    layers = {
        name: [type(m).__name__ for n, m in build("alexnet").features.named_children() if int(n) in numbers]
        for name, numbers in {"block1": range(4), "block2": range(4, 7)}.items()
    }
    assert layers == {
        "block1": ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"],
        "block2": ["Conv2d", "ReLU", "BatchNorm2d"],
    }


def test_cnn_pools_before_relu_only_without_batch_norm_between():
    def order(norm):
        return [type(layer).__name__ for layer in small(((4,),), norm=norm).features]

    assert order(None) == ["Conv2d", "MaxPool2d", "ReLU"]
    assert order("before_relu") == ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    assert order("after_relu") == ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]


def test_height_norm_normalises_rows():
    from faceattr.models.staged_network import HeightNorm

    images, norm = torch.randn(3, 5, 4, 6).to(memory_format=torch.channels_last), HeightNorm(4)
    mean, var = (
        f(images, dim=(0, 1, 3), keepdim=True) for f in (torch.mean, lambda *a, **k: torch.var(*a, correction=0, **k))
    )
    assert torch.allclose(norm(images), (images - mean) / (var + norm.eps).sqrt(), atol=1e-5)
    assert torch.allclose(norm(images.contiguous()), norm(images))
    assert norm(images).is_contiguous(memory_format=torch.channels_last)


def test_building_a_network_changes_no_statistics_or_gradients():
    network = small(norm="before_relu")
    assert torch.equal(network.features[1].running_mean, torch.zeros(4))
    assert network.features[1].num_batches_tracked == 0
    assert all(p.device.type == "cpu" and p.requires_grad for p in network.parameters())


def test_cnn_init_he_and_glorot_have_the_right_scale():
    torch.manual_seed(0)
    he, glorot = (small(((64, 32),), init=init).features[2].weight for init in ("he", "glorot"))
    assert he.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert glorot.abs().max().item() == pytest.approx((6 / (96 * 9)) ** 0.5, rel=0.01)


def names(head: nn.Module) -> list[str]:
    return [name for name, _ in head.named_children()]


def test_build_head_layers_follow_the_studies():
    s4_b = {"hidden": [512], "batch_norm": True, "dropout": 0.3, "input_dropout": 0.3, "pool": "flatten"}
    assert names(build_head((4, 2, 2), 3, Head(**s4_b))) == [
        "flatten",
        "drop0",
        "fc1",
        "relu1",
        "norm1",
        "drop1",
        "out",
    ]
    s2 = build_head((512, 4, 4), 2, Head(hidden=[128], batch_norm=True))
    assert names(s2) == ["pool", "flatten", "fc1", "relu1", "norm1", "out"]
    assert s2.fc1.in_features == 512
    s4_f = build_head((8, 2, 2), 3, Head(pool="flatten", hidden=[512, 128, 32], dropout=[0.3, 0.3, 0]))
    assert names(s4_f) == ["flatten", "fc1", "relu1", "drop1", "fc2", "relu2", "drop2", "fc3", "relu3", "out"]
    assert build_head((8, 5, 4), 1, Head(pool_size=6)).out.in_features == 8 * 36
    assert names(build_head((192,), 1, Head(pool="flatten"))) == ["out"]


def test_build_head_refuses_a_wrong_number_of_dropout_rates():
    with pytest.raises(FaceattrError, match="each of 2 hidden layers"):
        build_head((4, 2, 2), 1, Head(hidden=[8, 8], dropout=[0.3]))


def test_limited_parameters_refuses_a_network_before_it_is_initialised():
    with (
        pytest.raises(FaceattrError, match=r"more than 1,000 parameters.*model\.max_parameters=10000"),
        limited_parameters(1000),
    ):
        small(blocks=((64,), (64,)))
    small(blocks=((64,), (64,)))  # no limit outside


def test_limited_parameters_counts_what_a_network_has():
    exact = sum(p.numel() for p in small().parameters())
    with limited_parameters(exact):
        small()
    with pytest.raises(FaceattrError), limited_parameters(exact - 1):
        small()


def test_limited_parameters_says_that_a_network_does_not_fit_into_memory():
    with (
        pytest.raises(FaceattrError, match=r"does not fit into memory: make model\.blocks or model\.head\.hidden"),
        limited_parameters(1000),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    on_windows = "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    with pytest.raises(FaceattrError, match="does not fit into memory"), limited_parameters(1000):
        raise RuntimeError(on_windows)
    with pytest.raises(RuntimeError, match="size of tensor"), limited_parameters(1000):  # not one of memory
        torch.empty(2) + torch.empty(3)


@pytest.mark.parametrize("blocks", [[], [[4], []]])
def test_cnn_refuses_an_empty_block(blocks):
    with pytest.raises(FaceattrError, match=r"model\.blocks"):
        cnn(image_size=[16, 16], num_logits=1, head={}, blocks=blocks)


@pytest.mark.parametrize(("model", "smallest"), [("vgg16", 32), ("cnn7", 94), ("alexnet", 23)])
def test_network_refuses_a_too_small_image_size(model, smallest):
    build(model, **{"model.image_size": [smallest, smallest]})
    with pytest.raises(FaceattrError, match=rf"does not run on model.image_size=.{smallest - 1}, 200.: "):
        build(model, **{"model.image_size": [smallest - 1, 200]})


@pytest.mark.parametrize("image_size", [(0, 12), (16,), (16, 12, 3)])
def test_network_refuses_an_image_size_that_is_none(image_size):
    with pytest.raises(FaceattrError, match=r"model\.image_size=.* must be \[height, width\] in pixels"):
        small(image_size=image_size)


class Turned(nn.Module):
    """Two convolutions, the second one defined first."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Conv2d(4, 5, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_layer_names_takes_modules_that_do_not_run_in_their_order_for_one_layer():
    network = Network(Turned(), {"first": "stem", "second": "stage1"}, [8, 8], 2, {})
    assert network.layer_names == ("features", "head.pool", "head.flatten", "head.out")
    assert [network.num_constant_layers(start) for start in range(3)] == [0, 0, 3]


def test_from_timm_resnet_stages():
    network = build("timm")
    assert network.stage_names == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert network.stage_of("features.bn1.running_mean") == "stem"
    assert network.stage_of("features.maxpool") == "stem"
    assert network.stage_of("features.layer2.0.downsample.1") == "stage2"


def test_from_timm_vit_accepts_any_image_size():
    tiny = build("timm", **{"model.name": "vit_tiny_patch16_224", "model.image_size": [64, 48]})
    assert tiny.features.pos_embed.shape[1] == 1 + 4 * 3
    network = build("timm", **{"model.name": "test_vit", "model.image_size": [64, 48]})
    assert network.stage_of("features.pos_embed") == "stem"
    assert network.stage_of("features.blocks") is None
    assert network.stage_of("features.blocks.0.attn") == "stage1"


@pytest.mark.parametrize(
    "name", ["caformer_s18", "coat_tiny", "inception_v3", pytest.param("rdnet_tiny", marks=pytest.mark.slow)]
)
def test_from_timm_unusual_models_have_stages(name):
    """Without groups from timm, with shared parameters, with groups from a function, with fine groups only."""
    network = build("timm", **{"model.name": name})
    stages = {network.stage_of(name) for name, _ in network.named_parameters()}
    assert stages == set(network.stage_names)
    assert len(network.stage_names) > 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model.name": "resnet19"}, r"model.name=resnet19 .*Unknown model"),
        ({"model.name": "resnet18.nope"}, r"model.name=resnet18.nope .*Invalid pretrained tag"),
        ({"model.name": "test_vit", "model.image_size": [33, 64]}, "test_vit does not run on model.image_size=.33, 64"),
    ],
)
def test_from_timm_refuses_unknown_names_and_sizes(keys, message):
    with pytest.raises(FaceattrError, match=message):
        build("timm", **keys)
