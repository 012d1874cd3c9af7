"""Which table and which split evaluate.py takes: the run's own data, or other data that the command line names."""

import logging
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from faceattr.commands.build_from_config import data_settings
from faceattr.config.instantiate import instantiate
from faceattr.config.key_annotation import declared_keys
from faceattr.config.schema import Data
from faceattr.data import table
from faceattr.data.load_table import ModelClasses, load_table
from faceattr.errors import FaceattrError

log = logging.getLogger(__name__)

SAME_IMAGES = {"root", "batch_size", "workers", "pack", "balance", "attribute_weights"}
"""Keys of `data` that a title leaves out: they do not say which images are taken; the root is in the name."""


def read_evaluated_table(
    cfg: DictConfig, classes: ModelClasses, description: dict[str, Any], own_data: bool, *, calibrate: bool
) -> tuple[pd.DataFrame, bool]:
    """The table to evaluate, and whether it is the run's own: keys of the command line may make other data of it, without splits.

    Raises FaceattrError: `calibrate`, and other data.
    """
    loaded, settings = instantiate(cfg.data, "data"), data_settings(cfg)
    shared = set(declared_keys(Data)) - {"root"}
    splits_asked = cfg.split != "auto"  # only the run's own data have its splits
    data_keys = ", ".join(data_keys_given(shared)) if own_data and not splits_asked else ""
    if not data_keys:
        return load_table(loaded, settings, model_classes=classes, splits=own_data), own_data
    with suppress(FaceattrError):  # no data that could be trained on: not the run's own
        prepared = load_table(loaded, settings, model_classes=classes)
        if table.fingerprint(prepared) == description["fingerprint"]:
            return prepared, True
    if calibrate:
        raise FaceattrError(f"evaluate.calibrate=true takes the run's own data, which {data_keys} does not give.")
    log.info("%s: other data than the run's, so all images are evaluated (split=… takes one split)", data_keys)
    return load_table(loaded, settings, model_classes=classes, splits=False), False


def chosen_split(requested: str, prepared: pd.DataFrame, own_data: bool) -> str:
    present = set(prepared["split"].dropna()) if "split" in prepared else set()
    if requested == "auto":
        return ("test" if "test" in present else "val") if own_data else "all"
    if requested != "all" and requested not in present:
        listed = ", ".join(sorted(present)) or "none"
        raise FaceattrError(f"split={requested}: no such images in this data. Splits there: {listed}. Or split=all")
    return requested


def rows_of_splits(prepared: pd.DataFrame, *splits: str) -> pd.DataFrame:
    """The table with the images of these splits only; `all` is every image."""
    return prepared if "all" in splits else prepared[prepared["split"].isin(splits)].reset_index(drop=True)


def data_keys_given(besides: Collection[str]) -> list[str]:
    """The arguments `data.…` of the command line, but for these keys."""
    arguments = [text for text in HydraConfig.get().overrides.task if text.startswith("data.")]
    return [text for text in arguments if text.partition("=")[0].removeprefix("data.") not in besides]


def warn_of_changed_data(prepared: pd.DataFrame, description: dict[str, Any]) -> None:
    """Where the fingerprint of the data is not that of training."""
    fingerprint = table.fingerprint(prepared)
    if fingerprint != description["fingerprint"]:
        log.warning(
            "The data have changed since training (fingerprint was %s in training, is %s now): "
            "images of this split may have been trained on",
            description["fingerprint"],
            fingerprint,
        )
