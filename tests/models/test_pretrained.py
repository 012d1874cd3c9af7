"""Initial weights: files with all namings, tensors that do not fit, no connection, the check of the scaling."""

import logging
from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch

from faceattr.errors import FaceattrError
from faceattr.models.conv_stacks import alexnet_imagenet, cnn
from faceattr.models.pretrained import WeightsReport, _scaling, check_weights, load_weights, resolve_scaling
from faceattr.models.staged_network import Network
from faceattr.models.timm_backbone import from_timm

VGG16 = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]


def small(num_logits: int = 2, width: int = 4, **keys: object) -> Network:
    """Two conv blocks with batch norm; names as in torchvision."""
    return cnn(image_size=[8, 8], num_logits=num_logits, head={}, blocks=[[width], [8]], norm="before_relu", **keys)


def from_file(network: Network, path: Path, **keys: object) -> WeightsReport:
    return load_weights(network, pretrained="auto", weights=str(path), **keys)


def wrapped(state: dict) -> dict:
    return {"state_dict": {f"network.{k}": v for k, v in state.items()}, "epoch": 3, "faceattr": {"format": 1}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.pth", dict),
        ("own.safetensors", dict),
        ("last.ckpt", wrapped),
        ("compiled.pt", lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()}),
        ("bare.pt", lambda state: {k.removeprefix("features."): v for k, v in state.items()}),
        ("half.pth", lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()}),
    ],
)
def test_load_weights_accepts_all_namings_and_formats(tmp_path, name, content):
    source, network = small(), small()
    save = safetensors.torch.save_file if name.endswith("safetensors") else torch.save
    save(content(source.state_dict()), tmp_path / name)
    report = from_file(network, tmp_path / name)
    assert report.missing == report.unused == []
    assert report.matched == 14  # two convs and their batch norms, the head; not the batch counters
    for key, tensor in network.state_dict().items():
        assert tensor.dtype == source.state_dict()[key].dtype
        torch.testing.assert_close(tensor, source.state_dict()[key], rtol=1e-3, atol=1e-4)
    assert report.source == str(tmp_path / name)
    assert not report.random


def test_load_weights_accepts_the_old_torch_format(tmp_path):
    torch.save(small().state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert from_file(small(), tmp_path / "old.pth").missing == []


def test_load_weights_reports_missing_and_unused_tensors(tmp_path, caplog):
    state = small().state_dict()
    torch.save({"features.0.weight": state["features.0.weight"], "other.weight": torch.zeros(1)}, tmp_path / "part.pth")
    network = small()
    before = network.state_dict()["features.0.bias"].clone()
    with caplog.at_level(logging.INFO):
        report = from_file(network, tmp_path / "part.pth")
    assert report.matched == 1
    assert report.unused == ["other.weight"]
    assert "features.0.bias" in report.missing
    assert torch.equal(network.state_dict()["features.0.bias"], before)
    assert caplog.records[-1].levelno == logging.WARNING  # part of the features stays random
    assert report.describe() in caplog.text
    assert "1 tensor matched, 13 not in it" in report.describe()


def test_load_weights_ignores_the_output_layer_of_another_task(tmp_path):
    torch.save(wrapped(small(num_logits=2).state_dict()), tmp_path / "gender.ckpt")
    report = from_file(small(num_logits=3), tmp_path / "gender.ckpt")
    assert report.missing == ["head.out.weight", "head.out.bias"]
    assert report.unused == ["network.head.out.weight", "network.head.out.bias"]


def test_load_weights_refuses_another_shape(tmp_path):
    torch.save(small(width=5).state_dict(), tmp_path / "other.pth")
    with pytest.raises(FaceattrError, match=r"other.pth does not fit .* features.0.weight \[5, 3, 3, 3\], here \[4,"):
        from_file(small(), tmp_path / "other.pth")


def test_load_weights_refuses_values_that_are_not_finite(tmp_path):
    state = small().state_dict()
    state["features.0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(FaceattrError, match="without finite values"):
        from_file(small(), tmp_path / "nan.pth")


def test_load_weights_shows_both_namings_if_no_name_matches(tmp_path):
    torch.save({"encoder.w": torch.zeros(2)}, tmp_path / "foreign.pth")
    with pytest.raises(FaceattrError, match=r"(?s)no tensor of this model.*encoder.w.*features.0.weight"):
        from_file(small(), tmp_path / "foreign.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "no such file"),
        ("text.pth", b"not weights", "damaged"),
        ("empty.pth", b"", "cannot be read|damaged"),
        ("text.safetensors", b"not weights", "cannot be read"),
        ("number.pth", 3, "not a state dict"),
        ("config.pth", {"lr": 0.1}, "not a state dict"),
        ("object.pth", Path("pickled"), "more than tensors"),
    ],
)
def test_load_weights_refuses_a_file_without_weights(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(FaceattrError, match=f"model.weights=.*{name}.*({message})") as caught:
        from_file(small(), path)
    with pytest.raises(FaceattrError, match=f"model.weights=.*{name}.*({message})"):
        check_weights(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_weights_refuses_a_truncated_file(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(small().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(FaceattrError, match=r"cannot be read|damaged") as caught:
        from_file(small(), path)
    assert "\n" not in str(caught.value)


def test_load_weights_names_the_part_of_a_file_that_was_damaged(tmp_path):
    """torch.load would read it, and give other weights."""
    state, path = small().state_dict(), tmp_path / "x.pth"
    torch.save(state, path)
    raw, values = bytearray(path.read_bytes()), next(iter(state.values())).numpy().tobytes()
    raw[raw.index(values)] ^= 1
    path.write_bytes(raw)
    for refused in (lambda: from_file(small(), path), lambda: check_weights(str(path))):
        with pytest.raises(FaceattrError, match=r"x\.pth cannot be read: damaged: x/data/0 is not as it was written"):
            refused()


def test_load_weights_does_not_warn_about_requested_random_weights(caplog):
    report = load_weights(small(), pretrained="false", weights=None)
    assert report.source == "random (model.pretrained=false)"
    assert report.random
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_load_weights_without_published_weights(caplog):
    with pytest.raises(FaceattrError, match=r"no weights are published.*model.weights=FILE"):
        load_weights(small(), pretrained="true", weights=None)
    report = load_weights(small(), pretrained="auto", weights=None)
    assert report.source.startswith("random (")
    assert "random (" in caplog.text
    network = small()
    network.published = "timm/mine"  # timm builds models that it has no weights of
    with pytest.raises(
        FaceattrError, match=r"timm's mine is not available: timm has no weights for it; model\.weights="
    ):
        load_weights(network, pretrained="true", weights=None)


def test_load_weights_refuses_an_unknown_torchvision_name():
    wrong = small(pretrained_weights="VGG16_Weights.NONE")
    with pytest.raises(FaceattrError, match=r"torchvision's VGG16_Weights.NONE is not available"):
        load_weights(wrong, pretrained="true", weights=None)


def test_scaling_names_published_mean_and_std():
    from torchvision.models import VGG16_Weights

    for weights, name in ((VGG16_Weights.IMAGENET1K_V1, "imagenet"), (VGG16_Weights.IMAGENET1K_FEATURES, "caffe")):
        assert _scaling(weights.transforms().mean, weights.transforms().std) == name
    assert _scaling((0.0,) * 3, (1.0,) * 3) == "unit"
    assert _scaling((0.5,) * 3, (0.5,) * 3) == "half"
    assert _scaling((0.4,) * 3, (0.5,) * 3) == ((0.4,) * 3, (0.5,) * 3)


def test_resolve_scaling_auto_is_what_the_weights_expect():
    timm = from_timm(name="tf_efficientnet_lite0", image_size=[32, 32], num_logits=1, head={})
    assert resolve_scaling("auto", timm) == "half"
    assert resolve_scaling("auto", timm, expects="imagenet") == "imagenet"
    assert resolve_scaling("unit", timm) == "unit"
    assert resolve_scaling("auto", small()) == "unit"
    assert resolve_scaling("auto", small(pretrained_weights="VGG16_Weights.IMAGENET1K_FEATURES")) == "caffe"
    assert resolve_scaling("auto", small(pretrained_weights="VGG16_Weights.NONE")) == "unit", "no such weights"


def test_load_weights_of_a_timm_file_expects_what_timm_says(shared):
    network = from_timm(name="tf_efficientnet_lite0", image_size=[32, 32], num_logits=1, head={})
    path = shared("weights", "tf_efficientnet_lite0_in1k_fp16.safetensors")
    assert from_file(network, path, scaling="half").warning is None
    assert from_file(network, path, scaling=[0.5, 0.5]).warning is None
    report = from_file(network, path, scaling="imagenet")
    assert report.warning is not None and "scaled as half" in report.warning
    assert report.missing == ["head.out.weight", "head.out.bias"] and not report.unused


@pytest.fixture
def no_connection(tmp_path, monkeypatch):
    """No cache, and a proxy that refuses every connection."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_load_weights_without_a_connection(no_connection, caplog, library):
    network = (
        small(pretrained_weights="VGG16_Weights.IMAGENET1K_V1")
        if library == "torchvision"
        else from_timm(name="test_vit", image_size=[32, 32], num_logits=2, head={})
    )
    with pytest.raises(FaceattrError, match=r"(?s)model.pretrained=true: .*model.weights=FILE.*model.pretrained=auto"):
        load_weights(network, pretrained="true", weights=None)
    report = load_weights(network, pretrained="auto", weights=None)
    assert report.random
    assert report.source.startswith(f"random ({library}'s ")
    assert "model.weights=FILE" in report.describe()
    assert caplog.records[-1].levelno == logging.WARNING
    assert report.describe() in caplog.text


def test_load_weights_takes_published_weights_that_were_downloaded_before(no_connection, tmp_path, monkeypatch):
    import timm

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    published = timm.create_model("test_vit")
    folder = tmp_path / f"models--{timm.get_pretrained_cfg('test_vit').hf_hub_id.replace('/', '--')}"
    for place, content in (("snapshots/" + "0" * 40, None), ("refs", "0" * 40)):
        (folder / place).mkdir(parents=True)
        if content:
            (folder / place / "main").write_text(content)
        else:
            safetensors.torch.save_file(published.state_dict(), folder / place / "model.safetensors")
    network = from_timm(name="test_vit", image_size=[32, 32], num_logits=2, head={})
    report = load_weights(network, pretrained="true", weights=None, scaling="unit")
    assert report.source == "timm test_vit" and report.missing == ["head.out.weight", "head.out.bias"]
    assert torch.equal(network.features.patch_embed.proj.weight, published.patch_embed.proj.weight)
    assert report.expects == "half" and "gets model.scaling=unit" in str(report.warning)


def test_load_weights_accepts_the_names_of_timm(tmp_path):
    import timm

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    report = from_file(
        from_timm(name="resnet18", image_size=[32, 32], num_logits=2, head={}), tmp_path / "resnet18.pth"
    )
    assert report.unused == ["fc.weight", "fc.bias"]
    assert report.missing == ["head.out.weight", "head.out.bias"]


@pytest.mark.parametrize(
    ("file", "expects", "other"),
    [
        ("vgg16_features_imagenet1k_v1.pth", "imagenet", "unit"),
        ("vgg16_features_caffe_rgb_fp16.pth", "caffe", "imagenet"),
        ("alexnet_features_imagenet1k_v1.pth", "imagenet", "caffe"),
    ],
)
def test_load_weights_warns_about_another_scaling(shared, caplog, file, expects, other):
    path = shared("weights", file)
    network = (
        alexnet_imagenet(image_size=[64, 64], num_logits=1, head={})
        if file.startswith("alexnet")
        else cnn(image_size=[32, 32], num_logits=2, head={"hidden": [128], "batch_norm": True}, blocks=VGG16)
    )
    report = from_file(network, path, scaling=expects)
    assert report.expects == expects
    assert report.warning is None
    assert report.unused == []
    assert {name.split(".")[0] for name in report.missing} == {"head"}
    assert network.features[0].weight.dtype == torch.float32
    state = torch.load(path, weights_only=True)
    assert torch.equal(network.features[0].weight, state["features.0.weight"].float())

    caplog.clear()
    report = from_file(network, path, scaling=other)
    assert report.warning is not None
    assert report.warning in caplog.text
    assert f"scaled as {expects}, and gets model.scaling={other}" in report.warning
    assert "\n" not in report.warning
