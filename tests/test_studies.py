"""The published studies: parameter counts, quirks, a run of every preset on its study's true layout, the reproduction."""

import copy
import json
import os
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from composing import compose_unchecked, compose_with_hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from programs import FIGURES, ROOT, Ended, inside, quick
from torch.nn.modules.batchnorm import _BatchNorm

from faceattr.commands.build_from_config import create_network, create_policy, read_table
from faceattr.config.validate_keys import validate
from faceattr.data.sources import sample
from faceattr.metrics.intervals import wilson
from faceattr.models import freezing
from faceattr.models.staged_network import HeightNorm, Network
from faceattr.models.task import Task

CONF = ROOT / "conf"
CLASSES = {"s0_age_groups": 3, "s4a": 3, "s4b": 3, "s4c": 3, "s4d": 3, "s4e": 3, "s4f": 3}
VGG16 = 14_714_688
COUNTS = {  # parameters with batch-norm statistics, as published; and those that are trained
    "s0_small_csv": (4_008_609, 4_008_609),
    "s0_small_csv_alt": (2_287_137, 2_287_137),
    "s0_age_groups": (4_009_123, 4_009_123),
    "s1_celeba_alexnet": (32_338_689, 32_335_937),
    "s2_celeba_vgg16_last_block": (14_781_122, 7_145_602),
    "s2_celeba_vgg16_last_block_softmax": (14_781_122, 7_145_602),
    "s3_celeba575_cnn7": (91_329, 91_329),
    "s3_celeba575_three_conv": (1_212_513, 1_212_513),
    "s4a": (652_611, 652_611),
    "s4b": (655_583, 654_097),
    "s4c": (652_611, 652_611),
    "s4d": (16_812_867, 2_098_179),
    "s4e": (VGG16 + 4_196_355, 4_196_355),
    "s4f": (18_979_395, 18_979_395),
}
PRESETS = sorted(path.stem for path in (CONF / "experiment").glob("s*.yaml") if path.stem != "_base")


@pytest.fixture
def composed(tmp_path):
    """A function: a preset and overrides → the validated config of train.py."""

    def function(preset: str, *overrides: str) -> DictConfig:
        return copy.deepcopy(_checked(preset, overrides))

    yield function
    HydraConfig.instance().cfg = None


@cache
def _checked(preset: str, overrides: tuple[str, ...]) -> DictConfig:
    return validate(compose_with_hydra(f"experiment={preset}", "data.root=/nowhere", *overrides))


def build(cfg: DictConfig, classes: int = 2) -> Network:
    task = Task.from_config([f"c{i}" for i in range(classes)], ordinal=False, loss=cfg.loss)
    with torch.device("meta"):
        network = create_network(cfg, task)
    freezing.freeze(network, create_policy(cfg, network).first_trainable_stage(0))
    return network


def counts(network: Network) -> tuple[int, int]:
    """All parameters with batch-norm statistics, and those that are trained."""
    statistics = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    found = freezing.count_parameters(network)
    return found["total"] + sum(b.numel() for b in statistics), found["trainable"]


def test_every_preset_has_its_counts():
    assert set(PRESETS) == set(COUNTS)


@pytest.mark.parametrize("preset", COUNTS)
def test_parameters_are_the_published_ones(composed, preset):
    assert counts(build(composed(preset), CLASSES.get(preset, 2))) == COUNTS[preset]


def test_s2_trains_what_the_study_trained(composed):
    """Block 5 and the head: torchvision's `features[24:]`."""
    network = build(composed("s2_celeba_vgg16_last_block"))
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {
        n for n, _ in network.named_parameters() if n.startswith("features.") and int(n.split(".")[1]) < 24
    }


@pytest.mark.parametrize("preset", COUNTS)
def test_presets_have_what_keras_had(composed, preset):
    cfg = composed(preset)
    assert cfg.model.interpolation == "nearest" and cfg.optim.eps == 1e-7 and cfg.finetune.pretrained_lr == 1
    assert cfg.optim._target_ == "torch.optim.Adam" or cfg.optim.alpha == 0.9
    norms = [m for m in build(cfg).modules() if isinstance(m, _BatchNorm)]
    assert all((m.momentum, m.eps) == (0.01, 1e-3) for m in norms)
    assert bool(norms) == preset.startswith(("s1", "s2", "s4b"))
    assert cfg.model.pretrained == ("true" if preset.startswith(("s2", "s4d", "s4e", "s4f")) else "false")
    for entry in cfg.published:
        assert set(entry) == {"metric", "split", "value", "n", "source"}
    assert cfg.published and (cfg.quirks or preset == "s0_age_groups") and cfg.name == preset


# quirks -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("preset", COUNTS)
def test_corrected_differs_from_as_published_in_more_than_words(composed, preset):
    """Presets whose only quirk is the leaking split of a table without identities say that it stays."""
    first, second = (composed(preset, f"quirks={which}") for which in ("as_published", "corrected"))
    words = first.pop("quirks"), second.pop("quirks")
    if preset in ("s4a", "s4c"):
        assert first == second and words[1][0].startswith("not corrected: ")
    elif preset == "s0_age_groups":
        assert first == second and words == ([], [])
    else:
        assert first != second and words[0] != words[1]


def test_the_command_line_goes_before_a_quirk(composed):
    assert composed("s4d", "quirks=corrected", "model.scaling=imagenet").model.scaling == "imagenet"


def test_s4b_normalises_rows_or_channels(composed):
    rows = [m.num_features for m in build(composed("s4b"), 3).modules() if isinstance(m, HeightNorm)]
    assert rows == [126, 61, 28, 12, 4]
    corrected = build(composed("s4b", "quirks=corrected"), 3)
    assert counts(corrected) == (656_579, 654_595)
    assert not any(isinstance(m, HeightNorm) for m in corrected.modules())


def test_s2_squashes_pairs_sigmoids_and_leaks(composed):
    published, corrected = (
        composed("s2_celeba_vgg16_last_block", f"quirks={q}") for q in ("as_published", "corrected")
    )
    assert (published.model.image_size, corrected.model.image_size) == ([178, 218], [218, 178])
    assert (published.loss, corrected.loss) == ("one_vs_rest", "ce")
    assert (published.data.split, corrected.data.split) == ("random", "identity")
    assert composed("s2_celeba_vgg16_last_block_softmax").loss == "ce"
    assert counts(build(corrected)) == counts(build(published))  # average pooling makes both forms equal


def test_s3_chooses_the_epoch_on_what_it_reports_or_on_other_images(composed, celeba575):
    splits = []
    for quirks in ("as_published", "corrected"):
        cfg = composed("s3_celeba575_cnn7", f"quirks={quirks}")
        assert (cfg.trainer.monitor, cfg.trainer.checkpoint) == ("val_accuracy", "best")
        cfg.data.root = str(celeba575)
        splits.append(read_table(cfg).set_index("path")["split"])
    published, corrected = splits
    assert published.value_counts().to_dict() == {"train": 32, "val": 8}
    assert set(published.index[published == "val"]) == set(corrected.index[corrected == "test"])
    assert corrected.value_counts().to_dict() == {"train": 28, "test": 8, "val": 4}


@pytest.mark.parametrize("preset", ["s4d", "s4e", "s4f"])
def test_s4_feeds_unit_pixels_to_weights_that_expect_another_input(composed, preset):
    assert composed(preset).model.scaling == "unit"
    corrected = composed(preset, "quirks=corrected").model
    assert corrected.scaling == "caffe" and corrected.pretrained_weights.endswith("IMAGENET1K_FEATURES")


@pytest.mark.parametrize("quirks", ["as_published", "corrected"])
def test_s2_draws_the_first_and_the_last_rows_and_splits_people_or_not(composed, celeba, quirks):
    few = {
        "as_published": ["data.first_per_class=40", "data.last_per_class=8"],
        "corrected": ["data.first_per_class=48", "data.fractions={train: 0.6, val: 0.2, test: 0.2}"],
    }[quirks]
    cfg = composed("s2_celeba_vgg16_last_block", f"quirks={quirks}", *few)
    cfg.data.root = str(celeba)
    table = read_table(cfg)
    who = "identity" if quirks == "as_published" else "group"
    apart = (table.groupby(who)["split"].nunique() == 1).all()
    assert apart == (quirks == "corrected")
    if quirks == "as_published":
        assert table.groupby("label", observed=True)["split"].value_counts().to_dict() == {
            (label, split): n for label in ("female", "male") for split, n in (("train", 32), ("val", 8), ("test", 8))
        }
        rows = pd.read_csv(celeba / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)["Male"]
        last = {f"img_align_celeba/{name}" for male in (1, -1) for name in rows.index[rows == male][-8:]}
        assert set(table["path"][table["split"] == "test"]) == last


def test_s1_corrected_takes_identities_from_a_file(composed, celeba_folders):
    cfg = composed("s1_celeba_alexnet", "quirks=corrected")
    cfg.data.root = str(celeba_folders)
    table = read_table(cfg)
    assert (table.groupby("group")["split"].nunique() == 1).all() and table["group"].nunique() > 5


def test_corrected_without_a_study_is_refused(tmp_path):
    ended = inside("train", "quirks=corrected", "data.n=60", "data.image_size=32", cwd=tmp_path)
    assert ended.code == 1 and ended.err.startswith("Error: quirks=corrected: nothing here was published")


# a run of each ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def celeba(tmp_path_factory) -> Path:
    return sample.write("celeba", tmp_path_factory.mktemp("celeba"), n=150)


@pytest.fixture(scope="module")
def celeba_folders(tmp_path_factory, celeba) -> Path:
    """S1's layout, with CelebA's identity file beside the folders."""
    root = sample.write("folders", tmp_path_factory.mktemp("folders"), n=150, image_size=64)
    (root / "identity_CelebA.txt").write_bytes((celeba / "identity_CelebA.txt").read_bytes())
    return root


@pytest.fixture(scope="module")
def celeba575(tmp_path_factory, celeba_folders) -> Path:
    """S3's layout: all, train and val, each with man and woman; `all` holds the other two once more."""
    root = tmp_path_factory.mktemp("celeba575")
    for split, count in (("Train", 16), ("Validation", 4)):
        for gender, folder in (("Male", "man"), ("Female", "woman")):
            for file in sorted((celeba_folders / split / gender).iterdir())[:count]:
                for place in (root / {"Train": "train", "Validation": "val"}[split], root / "all"):
                    (place / folder).mkdir(parents=True, exist_ok=True)
                    (place / folder / file.name).write_bytes(file.read_bytes())
    return root


@pytest.fixture(scope="module")
def layouts(tmp_path_factory, celeba, celeba_folders, celeba575) -> dict[str, Path]:
    return {
        "s0": sample.write("csv", tmp_path_factory.mktemp("csv"), n=160, image_size=64),
        "s1": celeba_folders,
        "s2": celeba,
        "s3": celeba575,
        "s4": sample.write("imfdb", tmp_path_factory.mktemp("imfdb"), n=150, image_size=64),
    }


@pytest.fixture(scope="module")
def vgg16_weights(tmp_path_factory) -> Path:
    """A file of the conv base's form, half precision as the shared one: what is tested is that it is loaded."""
    file = Path(tmp_path_factory.mktemp("weights")) / "vgg16.pth"
    cfg = compose_unchecked("train", ["experiment=s4d", "data.root=x", "name=x", "logger={}"])
    torch.manual_seed(0)
    network = create_network(cfg, Task.from_config(["a", "b"], ordinal=False, loss="ce"))
    torch.save({name: t.half() for name, t in network.state_dict().items() if name.startswith("features")}, file)
    return file


SMALL = {
    "s0": ["model.image_size=[32,32]"],
    "s1": ["model.image_size=[32,32]", "model.head.hidden=[64,64]"],
    "s2": ["data.first_per_class=40", "data.last_per_class=8", "model.image_size=[36,44]"],
    "s3": ["model.image_size=[94,94]"],
    "s4": ["data.per_class={train: 12, val: 6}", "model.image_size=[94,94]"],
}
SMALL_VGG16 = ["model.image_size=[32,32]"]


@pytest.mark.slow
@pytest.mark.parametrize("preset", COUNTS)
def test_every_preset_trains_on_its_studys_layout(composed, tmp_path, layouts, vgg16_weights, preset):
    study, vgg16 = preset[:2], preset.startswith(("s2", "s4d", "s4e", "s4f"))
    given = [*SMALL.get(study, []), *(SMALL_VGG16 if vgg16 and study != "s2" else [])]
    given += [f"model.weights={vgg16_weights}"] if vgg16 else []
    fixed = ["trainer=cpu", "trainer.max_epochs=1", "hydra.run.dir=run", f"data.root={layouts[study]}", FIGURES]
    ended = inside("train", f"experiment={preset}", *given, *fixed, cwd=tmp_path)
    assert ended.code == 0, ended.err
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    cfg = composed(preset)
    assert about["published"] == OmegaConf.to_container(cfg.published) and about.get("quirks", []) == cfg.quirks
    assert f"{cfg.trainer.checkpoint}_epoch" in about and about["name"] == preset
    expected = {"s0": ["male", "female"], "s1": ["female", "male"], "s2": ["female", "male"], "s3": ["male", "female"]}
    assert about["classes"] == (["young", "middle", "old"] if CLASSES.get(preset) else expected[study])
    for entry in cfg.published:
        found = json.loads((tmp_path / "run" / f"{entry.split}_metrics.json").read_text())
        assert 0 <= found[entry.metric] <= 1
        assert f"Published: {entry.split} {entry.metric} " in ended.out + ended.err
    if study == "s3":
        assert found["published_map"] == found["accuracy"] != found["average_precision"]
    sizes = {"s0": {"train": 110, "val": 6}, "s2": {"train": 64, "val": 16, "test": 16}, "s3": {"train": 32, "val": 8}}
    if study in sizes and preset != "s0_age_groups":
        assert about["images"] == sizes[study]


def test_a_study_never_starts_from_random_weights_where_it_had_imagenets(tmp_path, layouts):
    offline = {"https_proxy": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1", "TORCH_HOME": str(tmp_path / "none")}
    small = ["data.per_class={train: 12, val: 6}", "hydra.run.dir=run"]
    ended = inside("train", "experiment=s4d", f"data.root={layouts['s4']}", *small, cwd=tmp_path, **offline)
    assert ended.code == 1 and "model.pretrained=true" in ended.err and "model.weights=FILE" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_going_on_keeps_what_was_published(tmp_path, layouts):
    given = ["experiment=s4b", f"data.root={layouts['s4']}", *SMALL["s4"], "trainer=cpu", "hydra.run.dir=run", FIGURES]
    assert inside("train", *given, "trainer.max_epochs=1", cwd=tmp_path).code == 0
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    ended = inside("train", "ckpt=run/checkpoints/last.ckpt", "trainer.max_epochs=2", cwd=tmp_path)
    assert ended.code == 0, ended.err
    after = json.loads((tmp_path / "run" / "run.json").read_text())
    assert after["last_epoch"] == 1
    for key in ("published", "quirks", "parameters", "name"):
        assert after[key] == before[key]


# the reproduction -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studies():
    """The modules of studies/, which is no package."""
    sys.path.insert(0, str(ROOT / "studies"))
    import claims
    import jobs
    import results_page

    yield {"claims": claims, "jobs": jobs, "results_page": results_page}
    sys.path.remove(str(ROOT / "studies"))


def test_every_preset_is_a_job(studies):
    assert set(studies["jobs"].PRESETS) == set(PRESETS)


@pytest.mark.parametrize(
    ("source", "budget"), [("own", "study"), pytest.param("stand-in", "quick", marks=pytest.mark.slow)]
)
def test_every_job_composes_on_its_own_data_and_on_the_stand_in(
    studies, composed, tmp_path, monkeypatch, source, budget
):
    """A folder of the study's name that holds too few images is not the study's own set. Jobs that differ in nothing but the
    preset are composed once: the presets are composed above."""
    jobs, composed_before = studies["jobs"], set()
    for key, study in jobs.STUDIES.items():
        monkeypatch.setitem(jobs.STUDIES, key, replace(study, own_images=3))
        for folder in (study.own, study.stand_in):
            (tmp_path / folder / "images").mkdir(exist_ok=True, parents=True)
        for number in range(3 if source == "own" else 2):
            (tmp_path / study.own / "images" / f"{number}.jpg").touch()
    for name, job in jobs.JOBS.items():
        found, given = jobs.overrides(name, tmp_path, budget, seed=1)
        assert found == ("own" if source == "own" else jobs.STUDIES[job.study].stand_in)
        kind = (job.study, job.variant if source == "own" else job.quick)
        if kind in composed_before:
            continue
        composed_before.add(kind)
        cfg = composed(*[text.removeprefix("experiment=") for text in given])
        assert cfg.seed == 1 and cfg.data.seed == 0 and cfg.data.root.startswith(str(tmp_path))


def record(
    job: str, seed: int, right: np.ndarray, data: str = "own", budget: str = "study", value: float | None = 0.7
) -> dict:
    """A record as reproduce.py keeps it."""
    return {
        **{"job": job, "seed": seed, "data": data, "budget": budget, "seconds": 10.0, "rate": 100.0 + seed},
        **{"command": f"python train.py experiment={job}", "device": "cpu × 1", "precision": "bf16"},
        "published": [{"metric": "accuracy", "split": "val", "value": value, "n": 2396, "source": "text"}],
        "parameters": {"total": 10, "trainable": 5},
        "metrics": {"val": {"accuracy": float(right.mean()), "n": len(right)}},
        "correct": {"val": np.packbits(right).tobytes().hex()},
    }


def drawn(accuracy: float, n: int = 1000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < accuracy


def test_the_verdict_follows_the_rule(studies):
    compared = studies["results_page"].compare_with_published
    near, far = drawn(0.70), drawn(0.50)
    assert compared([record("s4a", 0, near)])["verdict"] == "reproduced"
    assert compared([record("s4a", 0, far)])["verdict"] == "differs"
    assert compared([record("s4a", 0, near, budget="quick")])["verdict"] == "shortened"
    assert compared([record("s4a", 0, near, data="faces")])["verdict"] == "other data"
    assert compared([record("s4a", 0, near, value=None)])["verdict"] == "no figure published"


def test_claims_are_decided_by_interval_and_by_every_seed(studies):
    claims = studies["claims"]

    def verdicts(first: list[np.ndarray], second: list[np.ndarray]) -> list[str]:
        runs = [record(job, s, r) for job, rows in (("s4a", first), ("s4b", second)) for s, r in enumerate(rows)]
        return [row[-1] for row in claims.claim_rows(claims.Runs(runs, "study"))]

    low, high = ([drawn(accuracy, 2000, s) for s in range(3)] for accuracy in (0.6, 0.7))
    assert verdicts(low, high) == ["**holds**"]
    assert verdicts(high, low) == ["**does not hold**"]
    assert verdicts(low, low[1:] + low[:1]) == ["open"]  # no difference
    assert verdicts(low, [high[0], high[1], low[2] & drawn(0.95, 2000, 9)]) == ["open"]  # one seed says otherwise
    assert verdicts(low[:2], high[:2]) == ["none: 2 seeds"]


def test_no_better_needs_a_narrow_interval(studies):
    verdict, pair = studies["claims"].verdict, studies["claims"].PairedDifference
    assert verdict(pair(0.0, -0.01, 0.01, 0, 0, 1), [0.0, 0.01, -0.01], no_better=True) == "**holds**"
    assert verdict(pair(-0.2, -0.3, -0.1, 0, 0, 1), [-0.2, -0.2, -0.2], no_better=True) == "**holds**"
    assert verdict(pair(0.0, -0.04, 0.04, 0, 0, 1), [0.0, 0.0, 0.0], no_better=True) == "open"
    assert verdict(pair(0.05, 0.01, 0.09, 0, 0, 1), [0.1, 0.1, -0.01], no_better=True) == "open"
    assert verdict(pair(0.05, 0.01, 0.09, 0, 0, 1), [0.1, 0.1, 0.01], no_better=True) == "**does not hold**"


def test_ours_takes_in_the_chance_of_training(studies):
    compared = studies["results_page"].compare_with_published
    alike = compared([record("s4a", seed, drawn(0.7)) for seed in range(3)])["ours"]
    apart = compared([record("s4a", seed, drawn(0.7 + 0.05 * (seed - 1))) for seed in range(3)])["ours"]
    assert alike == pytest.approx((drawn(0.7).mean(), *wilson(drawn(0.7).mean(), 1000)))
    assert apart[2] - apart[1] > 3 * (alike[2] - alike[1])


def test_a_claim_holds_where_all_of_its_comparisons_do(studies):
    def summarize(*verdicts: str) -> list[str]:
        return studies["claims"].summary([["4", "best", "-", verdict] for verdict in verdicts])

    assert summarize("**holds**", "**holds**") == ["4. best: **holds** (2 of 2 comparisons hold)"]
    assert summarize("**holds**", "open") == ["4. best: **open** (1 of 2 comparisons hold)"]
    assert summarize("none: 1 seed") == []
    assert summarize("**holds**", "**does not hold**", "open") == [
        "4. best: **does not hold** (1 of 3 comparisons hold)"
    ]


def test_the_document_is_made_from_the_results(studies, tmp_path):
    document, picture = tmp_path / "results.md", tmp_path / "studies.png"
    document.write_text("before\n<!-- results -->\nstale\n<!-- /results -->\nafter\n")
    runs = [record(job, s, drawn(p, 1000, s)) for job, p in (("s4a", 0.68), ("s4b", 0.8)) for s in range(3)]
    studies["results_page"].write(runs, document, picture)
    text = document.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "stale" not in text
    assert "| `s4a` | val accuracy | 0.700 (0.681–0.718) |" in text and "reproduced |" in text
    assert "`s4b` – `s4a`" in text and "python train.py experiment=s4a" in text
    assert picture.stat().st_size > 5_000


def test_the_committed_document_is_that_of_the_committed_results(studies, tmp_path):
    document = tmp_path / "results.md"
    document.write_text((ROOT / "docs" / "studies-results.md").read_text())
    studies["results_page"].write(
        json.loads((ROOT / "studies" / "results.json").read_text()), document, tmp_path / "p.png"
    )
    assert document.read_text() == (ROOT / "docs" / "studies-results.md").read_text()


@pytest.mark.slow
def test_reproducing_a_preset_and_then_not_again(tmp_path, layouts, monkeypatch):
    """The command itself on a copy of studies/, on S0's layout as its own data."""
    for name in ("studies", "docs/images"):
        (tmp_path / name).mkdir(parents=True)
    for file in [*(ROOT / "studies").glob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"]:
        (tmp_path / file.relative_to(ROOT)).write_bytes(file.read_bytes())
    (tmp_path / "conf").symlink_to(CONF)
    (tmp_path / "docs" / "studies-results.md").write_text("<!-- results -->\n<!-- /results -->\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "s0").symlink_to(layouts["s0"])
    paths = os.pathsep.join([str(tmp_path / "studies"), os.environ.get("PYTHONPATH", "")])

    def reproduce(*arguments: str) -> Ended:
        return quick(str(tmp_path / "studies" / "reproduce"), "data", *arguments, cwd=tmp_path, PYTHONPATH=paths)

    for made in (1, 0):
        ended = reproduce("--only", "s0_small_csv_alt", "--seeds", "0", "--continue")
        assert ended.code == 0, ended.err
        assert ended.out.count(" seed ") == made
    text = (tmp_path / "docs" / "studies-results.md").read_text()
    assert "| `s0_small_csv_alt` | val accuracy | none |" in text and "| own | no figure published |" in text
    wrong = reproduce("--only", "s9")
    assert wrong.code == 1 and "no such job" in wrong.err
