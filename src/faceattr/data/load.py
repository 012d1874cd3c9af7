"""From a source's table to the checked and split table of the group `data`."""

from typing import NamedTuple

import pandas as pd

from faceattr.config.schema import Data
from faceattr.data import table
from faceattr.errors import FaceattrError


class ModelClasses(NamedTuple):
    """What a trained model tells apart: its classes in order, or its attributes where it is multilabel."""

    names: tuple[str, ...]
    multilabel: bool


def load_table(
    loaded: pd.DataFrame, settings: Data, *, model_classes: ModelClasses | None = None, splits: bool = True
) -> pd.DataFrame:
    """`loaded`, a source's table, checked and split; `model_classes` (a checkpoint's) fixes the classes and their order.

    `splits=False` keeps a source's own split column but makes and demands none: for evaluating on other data.
    """
    multilabel, classes = bool(loaded.attrs.get("multilabel")), list(settings.classes or ()) or None
    if multilabel and classes and set(classes) != set(loaded.attrs["classes"]):
        raise FaceattrError(
            "data.classes names classes; with data.attributes leave it out, or give the same names in another order."
        )
    if model_classes:
        _check_classes(model_classes, multilabel, loaded.attrs["classes"])
        classes = list(model_classes.names)
    return table.prepare(
        loaded,
        settings.root,
        classes=classes,
        split=settings.split if splits else None,
        fractions=dict(settings.fractions),
        seed=settings.seed,
        per_class=dict(settings.per_class) if settings.per_class else None,
        max_images=settings.max_images,
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
