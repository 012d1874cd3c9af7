"""From the group `data` to its checked and split table."""

from typing import NamedTuple

import pandas as pd
from omegaconf import DictConfig

from faceattr.config.instantiate import instantiate
from faceattr.data import table
from faceattr.errors import FaceattrError


class ModelClasses(NamedTuple):
    """What a trained model tells apart: its classes in order, or its attributes where it is multilabel."""

    names: tuple[str, ...]
    multilabel: bool


def load_table(cfg: DictConfig, *, model_classes: ModelClasses | None = None, splits: bool = True) -> pd.DataFrame:
    """The checked and split table that the group `data` describes; `model_classes` (a checkpoint's) fixes classes and their order.

    `splits=False` keeps a source's own split column but makes and demands none: for evaluating on other data.
    """
    loaded = instantiate(cfg, "data")
    multilabel, classes = bool(loaded.attrs.get("multilabel")), list(cfg.classes or ()) or None
    if multilabel and classes and set(classes) != set(loaded.attrs["classes"]):
        raise FaceattrError(
            "data.classes names classes; with data.attributes leave it out, or give the same names in another order."
        )
    if model_classes:
        _check_classes(model_classes, multilabel, loaded.attrs["classes"])
        classes = list(model_classes.names)
    return table.prepare(
        loaded,
        cfg.root,
        classes=classes,
        split=cfg.split if splits else None,
        fractions=dict(cfg.fractions),
        seed=cfg.seed,
        per_class=dict(cfg.per_class) if cfg.per_class else None,
        max_images=cfg.max_images,
    )


def _check_classes(model: ModelClasses, multilabel: bool, classes: list[str]) -> None:
    names, others = ", ".join(model.names), ", ".join(classes)
    if model.multilabel and (not multilabel or set(classes) != set(model.names)):
        held = f"data.attributes is {others}" if multilabel else f"these data have the classes {others}"
        given = f"'data.attributes=[{','.join(model.names)}]'"
        raise FaceattrError(
            f"The model tells the attributes {names}; {held}.\nGive {given}, where these data have them."
        )
    if multilabel and not model.multilabel:
        raise FaceattrError(
            f"The model tells apart the classes {names}; data.attributes asks for others: leave it out."
        )
    if set(classes) != set(model.names):
        raise FaceattrError(
            f"The model tells apart {names}; these data hold {others}.\n"
            "Classes are matched by name: rename those of the data (data.label_map, data.class_map, data.classes, data.bins)."
        )
