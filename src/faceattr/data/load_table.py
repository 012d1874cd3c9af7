"""From a source's table to the checked and split table of the group `data`."""

from typing import NamedTuple

import pandas as pd

from faceattr.config.quote_for_hydra import quoted
from faceattr.config.schema import Data
from faceattr.data import table, table_checks
from faceattr.errors import FaceattrError
from faceattr.message_text import listed


class ModelClasses(NamedTuple):
    """What a trained model tells apart: its classes in order, or its attributes where it is multilabel."""

    names: tuple[str, ...]
    multilabel: bool


def load_table(
    loaded: pd.DataFrame, settings: Data, *, model_classes: ModelClasses | None = None, splits: bool = True
) -> pd.DataFrame:
    """`loaded`, a source's table, checked and split; `model_classes` (a checkpoint's) fixes the classes and their order.

    `splits=False` keeps a source's own split column but makes and demands none: for evaluating on other data.
    Data with some of the model's classes only are taken; data with another class are refused.
    """
    multilabel, classes = bool(loaded.attrs.get("multilabel")), list(settings.classes or ()) or None
    if multilabel and classes and set(classes) != set(loaded.attrs["classes"]):
        raise FaceattrError(
            "data.classes names classes; with data.attributes leave it out, or give the same names in another order."
        )
    loaded.attrs["ordinal"] = _ordinal(settings, loaded)
    if model_classes:
        _check_classes(model_classes, multilabel, loaded.attrs["classes"])
        classes = list(model_classes.names)
    prepared = table.prepare(
        loaded,
        settings.root,
        classes=classes,
        split=settings.split if splits else None,
        fractions=dict(settings.fractions),
        seed=settings.seed,
        per_class=dict(settings.per_class) if settings.per_class else None,
        max_images=settings.max_images,
        on_bad_image=settings.on_bad_image,
        on_bad_label=settings.on_bad_label,
    )
    if splits and not multilabel:
        table_checks.warn_about_small_classes(prepared)
    return prepared


def _ordinal(settings: Data, loaded: pd.DataFrame) -> bool:
    """Whether the classes are ordered: data.ordinal, else as the source says."""
    if settings.ordinal is None:
        return bool(loaded.attrs.get("ordinal"))
    if settings.ordinal and loaded.attrs.get("multilabel"):
        raise FaceattrError("data.ordinal=true: attributes (data.attributes) have no order.")
    if settings.ordinal and not settings.classes and not loaded.attrs.get("ordinal"):
        present = ",".join(quoted(name) for name in loaded.attrs["classes"])
        raise FaceattrError(f"data.ordinal=true: give the classes in their order, such as data.classes=[{present}].")
    return settings.ordinal


def _check_classes(model: ModelClasses, multilabel: bool, classes: list[str]) -> None:
    names, others = (listed(of) for of in (model.names, classes))
    if model.multilabel and (not multilabel or set(classes) != set(model.names)):
        held = f"data.attributes is {others}" if multilabel else f"these data have the classes {others}"
        example = f"'data.attributes=[{','.join(model.names)}]'"
        raise FaceattrError(
            f"The model tells the attributes {names}; {held}.\nGive {example}, where these data have them."
        )
    if multilabel and not model.multilabel:
        raise FaceattrError(
            f"The model tells apart the classes {names}; data.attributes asks for others: leave it out."
        )
    if set(classes) - set(model.names):
        raise FaceattrError(
            f"The model tells apart {names}; these data hold {others}.\n"
            "Classes are matched by name: rename those of the data (data.label_map, data.class_map, data.classes, data.bins)."
        )
