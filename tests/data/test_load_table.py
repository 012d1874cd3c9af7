"""From a source's table to the checked table of the group `data`: classes, their order, those of a checkpoint."""

import pandas as pd
import pytest
from composing import compose_unchecked
from omegaconf import DictConfig
from PIL import Image

from faceattr.config import schema
from faceattr.config.instantiate import group_settings, instantiate
from faceattr.data.load_table import ModelClasses, load_table
from faceattr.errors import FaceattrError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten images of each of two classes."""
    folder = tmp_path_factory.mktemp("load")
    for name in ("man", "woman"):
        (folder / name).mkdir()
        for number in range(10):
            Image.new("RGB", (8, 8)).save(folder / name / f"{number}.png")
    return folder


def load(cfg: DictConfig, **keys: object) -> pd.DataFrame:
    return load_table(instantiate(cfg, "data"), group_settings(cfg, schema.Data), **keys)


def data_config(*overrides: str) -> DictConfig:
    return compose_unchecked("data/folders", [f"++{override}" for override in overrides]).data


def test_load_table_follows_the_config_and_the_checkpoints_classes(root):
    cfg = data_config(f"data.root={root}", "data.seed=0")
    own = load(cfg)
    assert own.attrs["classes"] == ["man", "woman"]
    assert set(own["split"]) == {"train", "val", "test"}
    turned = load(cfg, model_classes=ModelClasses(("woman", "man"), multilabel=False))
    assert turned["label"].cat.categories.tolist() == ["woman", "man"]
    assert (turned["label"].astype(str) == own["label"].astype(str)).all()


def test_classes_of_a_checkpoint_that_the_data_lack_are_refused_with_both_lists(root):
    message = r"The model tells apart old, young; these data hold man, woman\.\n.*data.class_map"
    with pytest.raises(FaceattrError, match=message):
        load(
            data_config(f"data.root={root}", "data.seed=0"),
            model_classes=ModelClasses(("old", "young"), multilabel=False),
        )


def test_data_with_some_of_a_checkpoints_classes_are_taken(root):
    classes = ModelClasses(("woman", "child", "man"), multilabel=False)
    table = load(data_config(f"data.root={root}", "data.seed=0"), model_classes=classes, splits=False)
    assert table["label"].cat.categories.tolist() == ["woman", "child", "man"] and len(table) == 20


def test_data_ordinal_orders_the_classes_that_are_listed(root):
    given = (f"data.root={root}", "data.seed=0")
    table = load(data_config(*given, "data.ordinal=true", "data.classes=[woman,man]"))
    assert (
        table.attrs["ordinal"]
        and table["label"].cat.ordered
        and list(table["label"].cat.categories) == ["woman", "man"]
    )
    assert not load(data_config(*given)).attrs["ordinal"]
    with pytest.raises(FaceattrError, match=r"data.ordinal=true: give the classes .* data.classes=\['man','woman'\]"):
        load(data_config(*given, "data.ordinal=true"))


def test_attributes_have_no_order_and_are_not_classes_of_a_model():
    attributes = pd.DataFrame({"path": ["1.png"], "Male": [1.0]})
    attributes.attrs.update(multilabel=True, classes=["Male"])
    with pytest.raises(FaceattrError, match=r"^data\.ordinal=true: attributes \(data\.attributes\) have no order"):
        load_table(attributes, schema.Data(root="", ordinal=True))
    classes = ModelClasses(("woman", "man"), multilabel=False)
    with pytest.raises(FaceattrError, match=r"the classes woman, man; data\.attributes asks for others: leave it out"):
        load_table(attributes, schema.Data(root=""), model_classes=classes)
